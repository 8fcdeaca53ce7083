//! SHA-256 digests as images name them: `sha256:` and 64 hexadecimal digits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result};

const PREFIX: &str = "sha256:";

/// A checked `sha256:…` digest. Other algorithms are refused where a digest is parsed: nothing here could verify them.
///
/// An image's id is the digest of its configuration; a layer's *diff ID* that of its plain tar; a *chain ID* names a
/// layer together with all below it (OCI image configuration, "Layer ChainID").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Digest(String);

impl Digest {
    /// Checks and takes a digest.
    pub fn parse(text: &str) -> Result<Self> {
        match text.strip_prefix(PREFIX) {
            Some(hex) if is_full_hex(hex) => Ok(Self(text.to_owned())),
            _ => Err(Error::Invalid(format!("unsupported digest {text:?}"))),
        }
    }

    /// From the 64 digits alone.
    pub fn from_hex(hex: &str) -> Result<Self> {
        Self::parse(&format!("{PREFIX}{hex}"))
    }

    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(format!("{PREFIX}{}", archive::sha256_hex(data)))
    }

    /// With the algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The chain ID of the layer `diff_id` on top of the chain `parent`.
    pub fn chain(parent: Option<&Digest>, diff_id: &Digest) -> Self {
        match parent {
            None => diff_id.clone(),
            Some(parent) => Self::of(format!("{parent} {diff_id}").as_bytes()),
        }
    }

    /// The chain IDs of a stack of layers, bottom first.
    pub fn chains(diff_ids: &[Digest]) -> Vec<Self> {
        let mut chains: Vec<Self> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            chains.push(Self::chain(chains.last(), diff_id));
        }
        chains
    }
}

/// Whether `text` is 64 lower-case hexadecimal digits.
pub(crate) fn is_full_hex(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether `text` is nothing but lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Digest::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sha256_digests_are_taken() {
        let hex = "a".repeat(64);
        assert_eq!(Digest::from_hex(&hex).unwrap().short(), &hex[..12]);
        for bad in ["", "sha256:", "sha256:abc", &format!("sha512:{hex}"), &format!("sha256:{}", "A".repeat(64))] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
        assert!(Digest::parse(&format!("sha256:../{}", "a".repeat(61))).is_err());
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chains = Digest::chains(&[a.clone(), b.clone()]);
        assert_eq!(chains[0], a);
        assert_eq!(chains[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
