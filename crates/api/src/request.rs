//! A request as the routes see it: decoded path, query, version, and a body that is bounded where it is held in memory.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderMap, Method, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio_util::io::StreamReader;

use crate::backend::{Reader, RegistryAuth};
use crate::error::{Error, Result};
use crate::query::Query;
use crate::registry_auth;
use crate::version::ApiVersion;

/// The largest JSON body, in bytes.
const MAX_JSON_BYTES: usize = 4 * 1024 * 1024;

/// A request on its way to a route.
pub(crate) struct Request {
    pub method: Method,
    /// The path without its version, decoded and split at its slashes.
    pub path: Vec<String>,
    pub version: ApiVersion,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Incoming,
}

impl Request {
    /// Whether the answer is to be in version 1.`minor` or a newer one.
    pub fn since(&self, minor: u32) -> bool {
        self.version >= ApiVersion::v1(minor)
    }

    /// Whether the client asks to take over the connection.
    pub fn wants_upgrade(&self) -> bool {
        self.headers.contains_key(header::UPGRADE)
    }

    /// The credentials sent along. What cannot be read counts as none, as in Docker.
    pub fn registry_auth(&self) -> Option<RegistryAuth> {
        let header = self.headers.get("x-registry-auth")?;
        registry_auth::decode(header.as_bytes()).unwrap_or_else(|error| {
            tracing::debug!(%error, "credentials are ignored");
            None
        })
    }

    /// The body as a stream of bytes, of any length.
    pub fn into_reader(self) -> Reader {
        let chunks = TryStreamExt::map_err(self.body.into_data_stream(), std::io::Error::other);
        Box::pin(StreamReader::new(chunks))
    }

    /// The JSON in the body; a request without a body gives the default.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let has_no_body = self.has_no_body();
        self.check_content_type()?;
        if has_no_body {
            return Ok(T::default());
        }
        let body = self.read_body(MAX_JSON_BYTES).await?;
        parse_json(&body)
    }

    /// The JSON in the body, if there is any; old clients write `null` for none.
    pub async fn optional_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        self.check_content_type()?;
        let body = self.read_body(MAX_JSON_BYTES).await?;
        if body.iter().all(u8::is_ascii_whitespace) { Ok(None) } else { parse_json(&body) }
    }

    /// The JSON in the body, which must be there.
    pub async fn required_json<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.check_content_type()?;
        let body = self.read_body(MAX_JSON_BYTES).await?;
        parse_json(&body)
    }

    /// The whole body, if it is not longer than that.
    pub async fn read_body(&mut self, limit_bytes: usize) -> Result<Bytes> {
        let too_large = || Error::new(errors::Kind::TooLarge, "http: request body too large");
        if let Some(length) = self.content_length() {
            if length > limit_bytes as u64 {
                return Err(too_large());
            }
        }
        let mut body = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Error::invalid(format!("cannot read the request's body: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if body.len() + data.len() > limit_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&data);
        }
        Ok(body.freeze())
    }

    /// The length of the body, if it was told.
    pub fn content_length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Whether the body has a length that was not told.
    pub fn is_chunked(&self) -> bool {
        self.headers.contains_key(header::TRANSFER_ENCODING)
    }

    fn has_no_body(&self) -> bool {
        !self.is_chunked() && self.content_length().unwrap_or(0) == 0
    }

    fn check_content_type(&self) -> Result<()> {
        let text = self.headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let text = text.as_deref().unwrap_or_default();
        if text.is_empty() && self.has_no_body() {
            return Ok(());
        }
        let media_type = text.split(';').next().unwrap_or_default().trim();
        if media_type.is_empty() {
            return Err(Error::invalid(format!("malformed Content-Type header ({text}): mime: no media type")));
        }
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Error::invalid(format!(
                "unsupported Content-Type header ({text}): must be 'application/json'"
            )));
        }
        Ok(())
    }
}

pub(crate) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let mut values = serde_json::Deserializer::from_slice(body);
    let value = T::deserialize(&mut values).map_err(|error| {
        Error::invalid(match error.classify() {
            serde_json::error::Category::Eof if body.iter().all(u8::is_ascii_whitespace) => {
                "invalid JSON: got EOF while reading request body".to_owned()
            }
            serde_json::error::Category::Eof => "invalid JSON: unexpected EOF".to_owned(),
            _ => format!("invalid JSON: {error}"),
        })
    })?;
    values.end().map_err(|_| Error::invalid("unexpected content after JSON"))?;
    Ok(value)
}

/// Decodes a path and splits it at its slashes; double slashes count as one. An empty last segment is kept: `/a/` is
/// another path than `/a`.
pub(crate) fn split_path(path: &str) -> Result<Vec<String>> {
    let decoded = percent_decode(path).ok_or_else(|| Error::invalid(format!("invalid URL escape in {path:?}")))?;
    let mut segments: Vec<String> =
        decoded.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
    if decoded.len() > 1 && decoded.ends_with('/') {
        segments.push(String::new());
    }
    Ok(segments)
}

fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_split() {
        assert_eq!(split_path("/v1.50/images/a%2Fb%3A1/json").unwrap(), ["v1.50", "images", "a", "b:1", "json"]);
        assert_eq!(split_path("//containers//json").unwrap(), ["containers", "json"]);
        assert_eq!(split_path("/networks/").unwrap(), ["networks", ""]);
        assert!(split_path("/").unwrap().is_empty());
        for path in ["/%", "/%2", "/%zz", "/%ff"] {
            assert!(split_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn json_errors_are_in_dockers_words() {
        let message = |body: &str| parse_json::<serde_json::Value>(body.as_bytes()).unwrap_err().message;
        assert_eq!(message(""), "invalid JSON: got EOF while reading request body");
        assert_eq!(message("{"), "invalid JSON: unexpected EOF");
        assert!(message("x").starts_with("invalid JSON: "));
        assert_eq!(message("{} {}"), "unexpected content after JSON");
    }
}
