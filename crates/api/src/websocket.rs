//! A connection that becomes a websocket (RFC 6455): `GET /containers/{id}/attach/ws`, for clients in browsers.
//!
//! Messages of either kind are stdin, output comes back as it is, in binary messages (text before API 1.28). A close is the
//! end of the input, and of the connection.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::backend::Attached;
use crate::error::{Error, Result};
use crate::mux::Frames;
use crate::request::Request;

/// The largest message taken from a client, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// What a websocket needs of the request that asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Upgrade {
    accept: String,
    is_text: bool,
}

impl Upgrade {
    /// Checks the client's half of the handshake.
    pub fn of(request: &Request) -> Result<Self> {
        let has = |name: header::HeaderName, word: &str| {
            let values = request.headers.get_all(name);
            let mut words = values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
            words.any(|w| w.trim().eq_ignore_ascii_case(word))
        };
        let is_upgrade = has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade");
        let key = request.headers.get(header::SEC_WEBSOCKET_KEY);
        match key {
            Some(key) if is_upgrade && has(header::SEC_WEBSOCKET_VERSION, "13") => {
                Ok(Self { accept: derive_accept_key(key.as_bytes()), is_text: !request.since(28) })
            }
            _ => Err(Error::invalid("not a websocket handshake (RFC 6455, version 13)")),
        }
    }

    /// The server's half, without the final empty line.
    pub fn head(&self) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            self.accept
        )
    }

    /// Runs until the output ends or the client is gone.
    pub async fn run<S>(self, stream: S, early: Bytes, attached: Attached) -> std::io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let socket = WebSocketStream::from_partially_read(stream, early.to_vec(), Role::Server, Some(config)).await;
        let (mut to_client, mut from_client) = socket.split();
        let mut stdin = attached.stdin;
        let mut frames = Frames::new(true, attached.output);
        let output = async {
            while let Some(block) = frames.next().await {
                let block = block.map_err(std::io::Error::other)?;
                let message = match self.is_text {
                    true => Message::text(String::from_utf8_lossy(&block).into_owned()),
                    false => Message::binary(block),
                };
                to_client.send(message).await.map_err(ended)?;
            }
            to_client.close().await.map_err(ended)
        };
        let input = async {
            while let Some(Ok(message)) = from_client.next().await {
                let data = match message {
                    Message::Text(text) => Bytes::from(text),
                    Message::Binary(data) => data,
                    Message::Close(_) => break,
                    _ => continue,
                };
                if let Some(writer) = &mut stdin {
                    let written = async {
                        writer.write_all(&data).await?;
                        writer.flush().await
                    };
                    if written.await.is_err() {
                        stdin = None;
                    }
                }
            }
            if let Some(mut stdin) = stdin.take() {
                let _ = stdin.shutdown().await;
            }
        };
        tokio::select! {
            result = output => result,
            () = input => Ok(()),
        }
    }
}

fn ended(error: tungstenite::Error) -> std::io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => std::io::Error::other(other),
    }
}
