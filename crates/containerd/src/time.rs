//! Times on the wire, durations on the command line.

use std::time::Duration;

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use crate::error::{Error, Result};

/// 0001-01-01, which clients of the original send for "no time".
const ZERO_SECONDS: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59, the last second a Timestamp can hold.
const MAX_SECONDS: i64 = 253_402_300_799;

/// A time as protobuf has it.
pub fn to_proto(time: DateTime<Utc>) -> Timestamp {
    // `timestamp_subsec_nanos` is below 2e9, so it fits.
    Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().min(999_999_999) as i32 }
}

/// A time from the wire; `None` for the zero time.
///
/// # Errors
/// When it is outside of the years 1 to 9999.
pub fn from_proto(time: Option<Timestamp>) -> Result<Option<DateTime<Utc>>> {
    let Some(time) = time else { return Ok(None) };
    if time.seconds < ZERO_SECONDS {
        return Err(Error::TimestampOutOfRange(format!("timestamp: {} before 0001-01-01", show(&time))));
    }
    if time.seconds > MAX_SECONDS {
        return Err(Error::TimestampOutOfRange(format!("timestamp: {} after 10000-01-01", show(&time))));
    }
    let nanos = u32::try_from(time.nanos).ok().filter(|n| *n < 1_000_000_000);
    let Some(nanos) = nanos else {
        return Err(Error::TimestampOutOfRange(format!("timestamp: {}: nanos not in range [0, 1e9)", show(&time))));
    };
    if time.seconds == ZERO_SECONDS && nanos == 0 {
        return Ok(None);
    }
    Ok(DateTime::from_timestamp(time.seconds, nanos))
}

fn show(time: &Timestamp) -> String {
    format!("seconds:{} nanos:{}", time.seconds, time.nanos)
}

/// Parses Go's duration syntax: `5m`, `1h30m`, `500ms`, `0`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_go_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() || rest.starts_with('-') {
        return Err(invalid());
    }
    let mut total_seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        total_seconds += number * seconds;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total_seconds).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let cases = [("0", 0), ("2m", 120_000), ("500ms", 500), ("1h30m", 5_400_000), ("1.5s", 1500), ("5m", 300_000)];
        for (text, ms) in cases {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "m", "-1s", "1x", "1e999h", ".s", "99999999999999999999h"] {
            assert!(parse_go_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_of_the_wire() {
        let at = |seconds, nanos| from_proto(Some(Timestamp { seconds, nanos }));
        assert!(from_proto(None).unwrap().is_none());
        assert!(at(ZERO_SECONDS, 0).unwrap().is_none());
        assert_eq!(at(5, 7).unwrap().map(to_proto), Some(Timestamp { seconds: 5, nanos: 7 }));
        assert!(at(ZERO_SECONDS - 1, 0).unwrap_err().to_string().ends_with("before 0001-01-01"));
        assert!(at(MAX_SECONDS + 1, 0).is_err());
        assert!(at(0, -1).is_err());
        assert!(at(0, 1_000_000_000).is_err());
    }
}
