//! What registries answer, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::failure::Failure;
use super::{auth, pull};
use crate::Reference;

/// A `WWW-Authenticate` header.
pub fn challenge(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.append(WWW_AUTHENTICATE, value);
    let _ = auth::challenge(&headers);
}

/// An error's document; the first byte decides the status.
pub fn failure(data: &[u8]) {
    let Some((status, body)) = data.split_first() else { return };
    let failure = Failure::parse(400 + u16::from(*status), body);
    assert!(!failure.words().contains(char::is_control), "a registry writes to the terminal");
    let _ = (failure.is_temporary(), failure.error());
    if let Ok(reference) = Reference::parse("registry.example/a/b:c") {
        let _ = failure.of_pull(&reference);
    }
}

/// A `Link` header.
pub fn link(data: &[u8]) {
    if let Some(next) = std::str::from_utf8(data).ok().and_then(pull::next_page) {
        assert!(!next.contains('>'));
    }
}
