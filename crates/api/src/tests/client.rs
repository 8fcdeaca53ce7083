//! The smallest HTTP client that sees what is on the wire.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::fake::{self, Fake};
use crate::server::{Options, Server};

/// A connection to a server of its own.
pub struct Client {
    pub stream: UnixStream,
    pub fake: Fake,
    buffer: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Client {
    pub fn new() -> Self {
        Self::with_options(Options::default())
    }

    pub fn with_options(options: Options) -> Self {
        let fake = Fake::default();
        let server = Server::new(fake::backends(&fake), options);
        let (stream, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move { server.serve_connection(theirs, CancellationToken::new()).await });
        Self { stream, fake, buffer: Vec::new() }
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    /// A request without a body.
    pub async fn get(&mut self, request_line: &str) -> Answer {
        self.send(format!("{request_line} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        self.answer(request_line.starts_with("HEAD")).await
    }

    /// A request with JSON.
    pub async fn json(&mut self, request_line: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(format!(
            "{request_line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        self.answer(false).await
    }

    async fn fill(&mut self) -> usize {
        let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read_buf(&mut self.buffer));
        read.await.expect("no answer in time").unwrap_or(0)
    }

    /// Status and headers, as soon as they are there.
    pub async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            assert_ne!(self.fill().await, 0, "connection closed before the headers");
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Answer { status, headers, body: String::new() }
    }

    /// Exactly so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert_ne!(self.fill().await, 0, "connection closed early, after {:?}", self.buffer);
        }
        self.buffer.drain(..count).collect()
    }

    /// All until the connection is closed.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await != 0 {}
        std::mem::take(&mut self.buffer)
    }

    /// One chunk of a chunked body; `None` at its end.
    pub async fn chunk(&mut self) -> Option<String> {
        let end = loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                break end;
            }
            assert_ne!(self.fill().await, 0, "connection closed inside a chunked body");
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let chunk = self.bytes(length + 2).await;
        (length != 0).then(|| String::from_utf8_lossy(&chunk[..length]).into_owned())
    }

    /// A whole answer.
    pub async fn answer(&mut self, has_no_body: bool) -> Answer {
        let mut answer = self.head().await;
        if has_no_body || matches!(answer.status, 204 | 304) {
            return answer;
        }
        if let Some(length) = answer.headers.get("content-length") {
            let length = length.parse().unwrap();
            answer.body = String::from_utf8(self.bytes(length).await).unwrap();
        } else {
            while let Some(chunk) = self.chunk().await {
                answer.body.push_str(&chunk);
            }
        }
        answer
    }
}
