//! Instants as nanoseconds since the epoch, to and from RFC 3339. Written out because a million lines pass through here.

/// Nanoseconds in a second.
const SECOND_NS: i64 = 1_000_000_000;

/// Now, in nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

/// As Go's `RFC3339Nano`: the fraction without its trailing zeros, none when it is zero.
pub fn rfc3339_nano(time_ns: i64) -> String {
    let mut out = Vec::with_capacity(30);
    Formatter::default().append_trimmed(&mut out, time_ns);
    String::from_utf8(out).unwrap_or_default()
}

/// With nine digits of fraction always, as `docker logs --timestamps` shows it.
pub fn rfc3339_nano_fixed(time_ns: i64) -> String {
    let mut out = Vec::with_capacity(30);
    Formatter::default().append_fixed(&mut out, time_ns);
    String::from_utf8(out).unwrap_or_default()
}

/// Formats instants, remembering the second of the last one.
#[derive(Debug, Default)]
pub struct Formatter {
    second: i64,
    text: Vec<u8>,
}

impl Formatter {
    /// Appends the instant, trailing zeros trimmed.
    pub fn append_trimmed(&mut self, out: &mut Vec<u8>, time_ns: i64) {
        let fraction = self.append_second(out, time_ns);
        let digits = digits9(fraction);
        let used = 9 - digits.iter().rev().take_while(|digit| **digit == b'0').count();
        if used > 0 {
            out.push(b'.');
            out.extend_from_slice(&digits[..used]);
        }
        out.push(b'Z');
    }

    /// Appends the instant with nine digits.
    pub fn append_fixed(&mut self, out: &mut Vec<u8>, time_ns: i64) {
        let fraction = self.append_second(out, time_ns);
        out.push(b'.');
        out.extend_from_slice(&digits9(fraction));
        out.push(b'Z');
    }

    /// Appends `YYYY-MM-DDTHH:MM:SS` and returns the nanoseconds beyond.
    fn append_second(&mut self, out: &mut Vec<u8>, time_ns: i64) -> u32 {
        let second = time_ns.div_euclid(SECOND_NS);
        if self.text.is_empty() || second != self.second {
            let (year, month, day) = civil(second.div_euclid(86_400));
            let of_day = second.rem_euclid(86_400);
            let (hour, minute, sec) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
            self.second = second;
            self.text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{sec:02}").into_bytes();
        }
        out.extend_from_slice(&self.text);
        time_ns.rem_euclid(SECOND_NS) as u32
    }
}

fn digits9(mut number: u32) -> [u8; 9] {
    let mut digits = [b'0'; 9];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// Parses RFC 3339 with up to nine digits of fraction, `Z` or a numeric offset. `None` for anything else and for years
/// that do not fit (before 1678, after 2261).
pub fn parse(text: &[u8]) -> Option<i64> {
    if text.len() < 20 || text[4] != b'-' || text[7] != b'-' || text[13] != b':' || text[16] != b':' {
        return None;
    }
    if !matches!(text[10], b'T' | b't') {
        return None;
    }
    let year = number(&text[0..4])?;
    let (month, day) = (number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    if !(1678..=2261).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut fraction = 0;
    if let [b'.', digits @ ..] = rest {
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > 9 {
            return None;
        }
        fraction = number(&digits[..count])? * 10_i64.pow(9 - count as u32);
        rest = &digits[count..];
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let seconds = number(&[*h1, *h2])? * 3600 + number(&[*m1, *m2])? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(SECOND_NS)?.checked_add(fraction)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

/// Days since the epoch to year, month, day. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Year, month, day to days since the epoch; the inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400_500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_709_210_096_123_456_780, "2024-02-29T12:34:56.12345678Z"),
            (4_102_444_799_999_999_999, "2099-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(rfc3339_nano(ns), text);
            assert_eq!(parse(text.as_bytes()), Some(ns), "{text}");
            assert_eq!(parse(rfc3339_nano_fixed(ns).as_bytes()), Some(ns));
        }
        assert_eq!(rfc3339_nano_fixed(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(parse(b"1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse(b"1969-12-31T23:30:00.000-00:30"), Some(0));
    }

    #[test]
    fn refuses_what_is_not_a_time() {
        for text in ["", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z", "1970-01-01 00:00:00Z", "9999-01-01T00:00:00Z"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        for text in ["1970-01-01T00:00:00.Z", "1970-01-01T00:00:00.1234567890Z", "197a-01-01T00:00:00Z"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
