//! The `until` filter of the prunes: an instant, or how long ago.

use api::filters::Filters;
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use crate::error::{Error, Result};

/// The instant that `until` names, if it was given.
pub fn until_filter(filters: &Filters) -> Result<Option<DateTime<Utc>>> {
    let mut values = filters.get("until");
    let Some(text) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::InvalidParameter("more than one until filter specified".into()));
    }
    let invalid = || Error::InvalidParameter(format!("failed to parse value as time or duration: {text:?}"));
    parse(text, Utc::now()).map(Some).ok_or_else(invalid)
}

/// Go's duration before `now`, RFC 3339 (shortened as much as one likes, UTC without a zone), or seconds since the epoch.
fn parse(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if text != "0"
        && let Some(ago) = parse_duration(text)
    {
        return now.checked_sub_signed(ago);
    }
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.to_utc());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H"] {
        if let Ok(instant) = NaiveDateTime::parse_from_str(text, format) {
            return Some(instant.and_utc());
        }
    }
    if let Ok(day) = NaiveDate::parse_from_str(text.trim_end_matches('Z'), "%Y-%m-%d") {
        return Some(day.and_hms_opt(0, 0, 0)?.and_utc());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    DateTime::from_timestamp(seconds.parse().ok()?, digits.parse().ok()?)
}

/// `1h30m`, `1.5s`, `250ms`: Go's notation, without a sign.
fn parse_duration(text: &str) -> Option<TimeDelta> {
    let mut rest = text;
    let mut nanos = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (nanos < 9e18).then(|| TimeDelta::nanoseconds(nanos as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_durations() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let seconds = |text: &str| parse(text, now).map(|instant| instant.timestamp());
        assert_eq!(seconds("1h30m"), Some(1_700_000_000 - 5400));
        assert_eq!(seconds("1.5h"), Some(1_700_000_000 - 5400));
        assert_eq!(seconds("250ms"), Some(1_699_999_999));
        assert_eq!(seconds("2023-11-14T22:13:20Z"), Some(1_700_000_000));
        assert_eq!(seconds("2023-11-14T22:13:20"), Some(1_700_000_000));
        assert_eq!(seconds("2023-11-14"), Some(1_699_920_000));
        assert_eq!(seconds("1600000000.5"), Some(1_600_000_000));
        for bad in ["", "x", "5x", "h", "-5m", "1.2.3", "tomorrow"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let mut filters = Filters::default();
        assert_eq!(until_filter(&filters).unwrap(), None);
        filters.add("until", "5m");
        assert!(until_filter(&filters).unwrap().is_some());
        filters.add("until", "6m");
        assert!(until_filter(&filters).is_err());
    }
}
