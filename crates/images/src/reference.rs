//! Image names: Docker's reference grammar, with its defaults (`docker.io`, `library/`, `latest`) and its words.

use std::fmt;

use crate::digest::is_full_hex;
use crate::{Digest, Error, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A checked image name with the registry spelled out.
///
/// With both a tag and a digest only the digest counts, as in Docker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What a user may call an image: a name or an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyReference {
    /// A whole id.
    Id(Digest),
    /// A name.
    Named(Reference),
}

impl AnyReference {
    /// Parses what a user calls an image.
    pub fn parse(text: &str) -> Result<Self> {
        if is_full_hex(text) {
            return Ok(Self::Id(Digest::from_hex(text)?));
        }
        match Digest::parse(text) {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => Ok(Self::Named(Reference::parse(text)?)),
        }
    }
}

impl Reference {
    /// Parses a name as a user writes it.
    pub fn parse(text: &str) -> Result<Self> {
        if is_full_hex(text) {
            return Err(Error::InvalidReference(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (domain, rest) = split_domain(text);
        let name_end = rest.find([':', '@']).unwrap_or(rest.len());
        if rest[..name_end].bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error::InvalidReference(format!(
                "invalid reference format: repository name ({}) must be lowercase",
                &rest[..name_end]
            )));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|_| invalid())?)),
            None => (&*rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_domain(&domain) || !path.split('/').all(is_path_component) || !tag.is_none_or(is_tag) {
            return Err(invalid());
        }
        if domain.len() + 1 + path.len() > MAX_NAME_BYTES {
            return Err(Error::InvalidReference(format!(
                "invalid reference format: repository name must not be more than {MAX_NAME_BYTES} characters"
            )));
        }
        Ok(Self { domain, path: path.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// From the API's two fields: `image` may carry a tag or digest itself; `tag` may be empty, a tag, or a digest.
    pub fn from_parts(image: &str, tag: &str) -> Result<Self> {
        let name = Self::parse(image)?;
        match tag {
            "" => Ok(name),
            tag if tag.contains(':') => Ok(Self { tag: None, ..name }.with_digest(Digest::parse(tag)?)),
            tag => name.with_tag(tag),
        }
    }

    /// The same name with another tag and no digest.
    pub fn with_tag(self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::InvalidReference("invalid tag format".into()));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self })
    }

    /// The same name with a digest instead of a tag.
    pub fn with_digest(self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self }
    }

    /// The same name with neither.
    pub fn name_only(&self) -> Self {
        Self { domain: self.domain.clone(), path: self.path.clone(), tag: None, digest: None }
    }

    /// The same name, with the tag `latest` when it has neither tag nor digest.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// What the local store files it under: by digest if it has one, else by tag.
    pub(crate) fn key(self) -> Self {
        let mut key = self.or_latest();
        if key.digest.is_some() {
            key.tag = None;
        }
        key
    }

    /// The registry's host, with its port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository at the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository, spelled out.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Registry and repository as people write them.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
        name
    }
}

/// The whole reference, spelled out.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

fn invalid() -> Error {
    Error::InvalidReference("invalid reference format".into())
}

fn split_domain(name: &str) -> (String, String) {
    let (mut domain, mut rest) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first.to_owned(), rest.to_owned())
        }
        _ => (DEFAULT_DOMAIN.to_owned(), name.to_owned()),
    };
    if domain == LEGACY_DEFAULT_DOMAIN {
        DEFAULT_DOMAIN.clone_into(&mut domain);
    }
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        rest.insert_str(0, OFFICIAL);
    }
    (domain, rest)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') || address.is_empty() {
                return false;
            }
            return rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        }
        None => domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Letters and digits, with single `.`, one or two `_`, or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|&b| alphanumeric(b)) || !bytes.last().is_some_and(|&b| alphanumeric(b)) {
        return false;
    }
    let separators = bytes.split(|&b| alphanumeric(b)).filter(|run| !run.is_empty());
    separators.into_iter().all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.as_bytes().first().is_some_and(|&b| word(b))
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_defaults_and_lose_them_again() {
        let cases = [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("127.0.0.1:5000/a/b__c-d.e", "127.0.0.1:5000/a/b__c-d.e", "127.0.0.1:5000/a/b__c-d.e"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("Upper.example/a", "Upper.example/a", "Upper.example/a"),
        ];
        for (text, full, familiar) in cases {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
        assert_eq!(Reference::parse("a").unwrap().or_latest().familiar(), "a:latest");
        let digest = Digest::of(b"");
        let both = Reference::parse(&format!("a:t@{digest}")).unwrap();
        assert_eq!(both.key().familiar(), format!("a@{digest}"));
        assert_eq!(Reference::from_parts("a", "t").unwrap().familiar(), "a:t");
        assert_eq!(Reference::from_parts("a", digest.as_str()).unwrap().familiar(), format!("a@{digest}"));
    }

    #[test]
    fn bad_names_are_refused_in_dockers_words() {
        let hex = "a".repeat(64);
        let cases = [
            ("", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("../x", "invalid reference format"),
            ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ];
        for (text, words) in cases {
            assert_eq!(Reference::parse(text).unwrap_err().to_string(), words, "{text}");
        }
        assert!(Reference::parse(&hex).unwrap_err().to_string().contains("cannot specify 64-byte hexadecimal strings"));
        assert!(Reference::parse(&"a".repeat(300)).unwrap_err().to_string().contains("255"));
        assert!(matches!(AnyReference::parse(&hex).unwrap(), AnyReference::Id(_)));
    }
}
