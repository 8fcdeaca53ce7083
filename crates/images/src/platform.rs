//! Platforms: which of several images fits, in the names OCI and Docker use.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An operating system and a processor architecture.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// In Go's names: `amd64`, `arm64`, …
    pub architecture: String,
    /// A level of the architecture, such as `v8`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Words that stand for an architecture when they stand alone.
const ARCHITECTURES: &[&str] = &[
    "386", "aarch64", "amd64", "arm", "arm64", "armel", "armhf", "i386", "i686", "loong64", "mips", "mips64",
    "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "x86-64", "x86_64",
];

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: String::new() }
    }

    /// Parses `os`, `architecture`, `os/architecture` or `os/architecture/variant`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("{text:?} is an invalid OS component or architecture in a platform"));
        let word = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(word) {
            return Err(invalid());
        }
        let host = Self::host();
        let platform = match parts[..] {
            ["linux"] => host,
            [os @ ("windows" | "darwin" | "freebsd")] => Self { os: os.into(), ..host },
            [architecture] if ARCHITECTURES.contains(&architecture) => {
                Self { architecture: architecture.into(), ..host }
            }
            [_] => {
                let words = format!("{text:?}: unknown operating system or architecture: invalid argument");
                return Err(Error::Invalid(words));
            }
            [os, architecture] => Self { os: os.into(), architecture: architecture.into(), variant: String::new() },
            [os, architecture, variant] => {
                Self { os: os.into(), architecture: architecture.into(), variant: variant.into() }
            }
            _ => return Err(invalid()),
        };
        Ok(platform.normalised())
    }

    fn normalised(mut self) -> Self {
        self.architecture = match self.architecture.as_str() {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            other => other,
        }
        .to_owned();
        // The base levels are what having no level means.
        if matches!((self.architecture.as_str(), self.variant.as_str()), ("amd64", "v1") | ("arm64", "v8" | "8")) {
            self.variant.clear();
        }
        self
    }

    /// Whether an image for `other` runs where this was asked for, and how well: 0 is exactly.
    pub(crate) fn fit(&self, other: &Platform) -> Option<u32> {
        let (wanted, other) = (self.clone().normalised(), other.clone().normalised());
        let os = if other.os.is_empty() { "linux" } else { &other.os };
        if wanted.os != os || wanted.architecture != other.architecture {
            return None;
        }
        match (level(&wanted), level(&other)) {
            (a, b) if a == b => Some(0),
            (a, b) if b < a => Some(a - b),
            // Without a level asked for, this machine's processor decides, not the lowest.
            (_, b) if wanted.variant.is_empty() && wanted.architecture == "amd64" && b <= host_amd64_level() => Some(0),
            _ => None,
        }
    }

    /// In one string, as messages have it.
    pub(crate) fn spell(&self) -> String {
        let parts = [&self.os, &self.architecture, &self.variant];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
    }
}

fn level(platform: &Platform) -> u32 {
    let default = if platform.architecture == "arm" { 7 } else { 0 };
    platform.variant.trim_start_matches('v').parse().unwrap_or(default)
}

#[cfg(target_arch = "x86_64")]
fn host_amd64_level() -> u32 {
    let v2 = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt");
    let v3 = v2 && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
    let v4 = v3 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
    1 + u32::from(v2) + u32::from(v3) + u32::from(v4)
}

#[cfg(not(target_arch = "x86_64"))]
fn host_amd64_level() -> u32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_parsed_and_compared() {
        let amd64 = Platform::parse("linux/x86_64").unwrap();
        assert_eq!(amd64.spell(), "linux/amd64");
        assert_eq!(amd64.fit(&Platform::parse("linux/amd64/v1").unwrap()), Some(0));
        assert_eq!(amd64.fit(&Platform::parse("linux/arm64").unwrap()), None);
        let v3 = Platform::parse("linux/amd64/v3").unwrap();
        assert_eq!(v3.fit(&Platform::parse("linux/amd64/v2").unwrap()), Some(1));
        assert_eq!(v3.fit(&Platform::parse("linux/amd64/v4").unwrap()), None);
        let arm = Platform::parse("linux/arm/v7").unwrap();
        assert_eq!(arm.fit(&Platform::parse("linux/arm/v6").unwrap()), Some(1));
        assert!(Platform::parse("linux/../x").is_err());
    }
}
