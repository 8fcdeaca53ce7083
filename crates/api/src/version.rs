//! API versions: which are spoken, and how a request names one.

use crate::error::{Error, Result};

/// The newest API version that is spoken, and the one of requests that name none.
pub const API_VERSION: &str = "1.51";
/// The oldest.
pub const MIN_API_VERSION: &str = "1.24";

/// The version a request is to be answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(u32, u32);

impl ApiVersion {
    /// The newest.
    pub const CURRENT: Self = Self(1, 51);
    const MIN: Self = Self(1, 24);

    /// Version 1.`minor`.
    pub const fn v1(minor: u32) -> Self {
        Self(1, minor)
    }

    /// Whether this is the first segment of a path, `v1.50` say; then the part after the `v`.
    pub fn of_segment(segment: &str) -> Option<&str> {
        let text = segment.strip_prefix('v')?;
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')).then_some(text)
    }

    /// Reads `1.50` and refuses what is not spoken, in Docker's words.
    pub fn parse(text: &str) -> Result<Self> {
        let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
        let version = Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version < Self::MIN {
            return Err(Error::invalid(format!(
                "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, \
                 please upgrade your client to a newer version"
            )));
        }
        if version > Self::CURRENT {
            return Err(Error::invalid(format!(
                "client version {text} is too new. Maximum supported API version is {API_VERSION}"
            )));
        }
        Ok(version)
    }
}
