//! Instants as Docker writes them: RFC 3339 in UTC with as many fractional digits as needed (at most nine), and the
//! year-one instant for "never".

use std::fmt;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::wire::Omit;

/// An instant. The default is `0001-01-01T00:00:00Z`, which stands for "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    pub fn now() -> Self {
        Self(Utc::now())
    }

    /// From nanoseconds since the epoch; what chrono cannot represent becomes "never".
    pub fn from_unix_nanos(nanos: i128) -> Self {
        let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
        let fraction = nanos.rem_euclid(1_000_000_000) as u32;
        DateTime::from_timestamp(seconds, fraction).map_or_else(Self::default, Self)
    }

    /// From seconds since the epoch.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_nanos(i128::from(seconds) * 1_000_000_000)
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|instant| Self(instant.to_utc()))
    }

    pub fn unix_seconds(self) -> i64 {
        self.0.timestamp()
    }

    pub fn unix_nanos(self) -> i128 {
        i128::from(self.0.timestamp()) * 1_000_000_000 + i128::from(self.0.timestamp_subsec_nanos())
    }

    /// Whether it stands for "never".
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// The same without fractions of a second.
    pub fn truncated_to_seconds(self) -> Self {
        Self::from_unix_seconds(self.unix_seconds())
    }

    pub fn as_datetime(self) -> DateTime<Utc> {
        self.0
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        let never = NaiveDate::from_ymd_opt(1, 1, 1).and_then(|day| day.and_hms_opt(0, 0, 0));
        Self(never.unwrap_or_default().and_utc())
    }
}
impl From<DateTime<Utc>> for Timestamp {
    fn from(instant: DateTime<Utc>) -> Self {
        Self(instant)
    }
}
impl From<std::time::SystemTime> for Timestamp {
    fn from(instant: std::time::SystemTime) -> Self {
        Self(instant.into())
    }
}
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_rfc3339_opts(SecondsFormat::Nanos, true);
        match text.strip_suffix('Z').map(|text| text.trim_end_matches('0').trim_end_matches('.')) {
            // Only when there is a fraction may zeros go: "…:00" ends in zeros, too, but with nine digits there always is one.
            Some(trimmed) => write!(f, "{trimmed}Z"),
            None => f.write_str(&text),
        }
    }
}
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Omit for Timestamp {
    fn omit(&self) -> bool {
        self.is_zero()
    }
}
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("not an RFC 3339 time: {text:?}")))
    }
}
