//! Points in time as clients write them.

use api::filters::Filters;
use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{Error, Result};

/// The `until` filter of the prune calls: an instant, or how long ago (`24h`, `1h30m`).
pub fn until_filter(filters: &Filters) -> Result<Option<DateTime<Utc>>> {
    let mut values = filters.get("until");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => parse(value).map(Some),
        _ => Err(Error::InvalidParameter("more than one until filter specified".into())),
    }
}

fn parse(text: &str) -> Result<DateTime<Utc>> {
    let invalid = || Error::InvalidParameter(format!("failed to parse value as time or duration: \"{text}\""));
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    if let Some(at) = text.parse::<f64>().ok().and_then(|s| DateTime::from_timestamp(s as i64, 0)) {
        return Ok(at);
    }
    if let Ok(day) = text.parse::<chrono::NaiveDate>() {
        return day.and_hms_opt(0, 0, 0).map(|at| at.and_utc()).ok_or_else(invalid);
    }
    Ok(Utc::now() - duration(text).ok_or_else(invalid)?)
}

/// Go's notation of durations.
fn duration(text: &str) -> Option<TimeDelta> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit_end..];
    }
    TimeDelta::try_milliseconds((total * 1e3) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_durations() {
        assert_eq!(duration("1h30m"), Some(TimeDelta::minutes(90)));
        assert_eq!(duration("250ms"), Some(TimeDelta::milliseconds(250)));
        assert!(duration("5").is_none() && duration("x").is_none());
        assert_eq!(parse("2024-01-02T03:04:05Z").unwrap().timestamp(), 1_704_164_645);
        assert_eq!(parse("1704164645").unwrap().timestamp(), 1_704_164_645);
        assert!(parse("soon").is_err());
    }
}
