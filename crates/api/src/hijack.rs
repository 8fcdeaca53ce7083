//! A connection that stops being HTTP and becomes a process's stdin and output (`attach`, `exec start`).
//!
//! The client's end of input closes the process's stdin and nothing else: output goes on until the process's ends, and
//! then the connection is closed.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf};

use crate::backend::{Attached, Writer};
use crate::mux::Frames;
use crate::request::Request;
use crate::websocket::Upgrade;

/// Bytes read from a client at once.
const INPUT_BYTES: usize = 32 * 1024;
/// How long a client that still sends is listened to after the output has ended, so that closing does not cut the
/// output's tail off.
const LINGER: Duration = Duration::from_secs(2);

/// A takeover that a route has asked for.
pub(crate) struct Hijack {
    head: String,
    attached: Attached,
    websocket: Option<Upgrade>,
}

impl Hijack {
    /// The takeover that answers this request.
    pub fn new(request: &Request, attached: Attached) -> Self {
        let head = if request.wants_upgrade() {
            let multiplexed = !attached.tty && request.since(42);
            let content_type = content_type(multiplexed);
            format!("HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n")
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Type: {}\r\n", content_type(false))
        };
        Self { head, attached, websocket: None }
    }

    /// The same, for a client that speaks websocket.
    pub fn websocket(upgrade: Upgrade, attached: Attached) -> Self {
        Self { head: upgrade.head(), attached, websocket: Some(upgrade) }
    }

    /// Runs until the output ends or the client is gone. `early` is what the client has sent after its request.
    pub async fn run<S>(self, mut stream: S, early: Bytes, headers: &HeaderMap) -> std::io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Self { mut head, attached, websocket } = self;
        for (name, value) in headers {
            if let Ok(value) = value.to_str() {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        if let Some(websocket) = websocket {
            return websocket.run(stream, early, attached).await;
        }
        let (mut from_client, mut to_client) = tokio::io::split(stream);
        let mut frames = Frames::new(attached.tty, attached.output);
        let output = async {
            while let Some(block) = frames.next().await {
                let block = block.map_err(std::io::Error::other)?;
                to_client.write_all(&block).await?;
                to_client.flush().await?;
            }
            to_client.shutdown().await
        };
        let input = copy_input(&mut from_client, early, attached.stdin);
        tokio::pin!(output, input);
        let input_ended = tokio::select! {
            result = &mut output => { result?; false }
            () = &mut input => true,
        };
        if input_ended {
            output.await?;
        } else {
            // The rest of what the client sends has no reader any more.
            let _ = tokio::time::timeout(LINGER, input).await;
        }
        Ok(())
    }
}

/// The media type of output, with the eight-byte headers or without.
pub(crate) fn content_type(multiplexed: bool) -> &'static str {
    if multiplexed { "application/vnd.docker.multiplexed-stream" } else { "application/vnd.docker.raw-stream" }
}

/// Copies what the client sends to stdin until either end closes. What comes after that is read and thrown away.
async fn copy_input<S: AsyncRead>(from_client: &mut ReadHalf<S>, early: Bytes, mut stdin: Option<Writer>) {
    if !early.is_empty() {
        write_input(&mut stdin, &early).await;
    }
    let mut buffer = vec![0; INPUT_BYTES];
    loop {
        match from_client.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => write_input(&mut stdin, &buffer[..length]).await,
        }
    }
    if let Some(mut stdin) = stdin {
        let _ = stdin.shutdown().await;
    }
}

async fn write_input(stdin: &mut Option<Writer>, data: &[u8]) {
    let Some(writer) = stdin else { return };
    let result = async {
        writer.write_all(data).await?;
        writer.flush().await
    };
    if result.await.is_err() {
        *stdin = None;
    }
}
