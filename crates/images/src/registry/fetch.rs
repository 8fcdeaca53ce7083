//! A file from any web server, for `docker import http://…`.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use reqwest::StatusCode;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use url::Url;

use super::Registry;
use super::failure::MAX_ERROR_BYTES;
use super::session::{authority, body, client_for, describe};
use crate::{Error, Result};

/// A file that is being downloaded.
pub struct Fetched {
    /// Where it comes from, spelled out.
    pub url: String,
    /// How many bytes the server says it has.
    pub bytes_total: Option<u64>,
    body: Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>,
}

impl Fetched {
    /// Its content. A server that stops in the middle is a read error, not an end.
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.body)
    }
}

impl Registry {
    /// Begins to download `source`, a URL or what becomes one with `http://` before it.
    pub async fn fetch(&self, source: &str) -> Result<Fetched> {
        let source = if source.contains("://") { source.to_owned() } else { format!("http://{source}") };
        let url = Url::parse(&source).map_err(|error| Error::Invalid(format!("parse {source:?}: {error}")))?;
        let host = authority(&url).filter(|_| matches!(url.scheme(), "http" | "https"));
        let host = host.ok_or_else(|| {
            Error::Registry(format!("Get \"{url}\": unsupported protocol scheme \"{}\"", url.scheme()))
        })?;
        let client = client_for(&self.options, &host, false)?;
        let response = client.get(url.clone()).send().await.map_err(|error| describe("Get", &url, &error))?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let said = body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
            let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(2000).collect();
            let words = format!("failed to GET {url} with status {status}: {said}");
            return Err(match status {
                StatusCode::NOT_FOUND => Error::NotFound(words),
                StatusCode::BAD_REQUEST => Error::Invalid(words),
                StatusCode::UNAUTHORIZED => Error::Unauthorized(words),
                StatusCode::FORBIDDEN => Error::Forbidden(words),
                _ => Error::Registry(words),
            });
        }
        Ok(Fetched {
            url: url.into(),
            bytes_total: response.content_length(),
            body: Box::pin(response.bytes_stream().map_err(std::io::Error::other)),
        })
    }
}
