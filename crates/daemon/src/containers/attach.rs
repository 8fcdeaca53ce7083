//! `attach`: a client on a process's stdio, and the keys that take it off again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::backend::{AttachOptions, Attached, BoxStream, LogOptions, Output, Writer};
use futures::StreamExt;
use tokio::io::AsyncWrite;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::stdio::Hub;
use crate::Daemon;
use crate::containerd::INIT;
use crate::error::{Error, Result};

impl Daemon {
    /// Connects a client to a container's stdio.
    pub(crate) async fn container_attach(self: &Arc<Self>, name: &str, options: AttachOptions) -> Result<Attached> {
        let container = self.container(name)?;
        let keys = detach_keys(options.detach_keys.as_deref())?;
        let record = container.record();
        if record.state.running().is_some_and(|r| r.paused) {
            return Err(Error::Conflict(format!("container {name} is paused, unpause the container before attach")));
        }
        let detached = CancellationToken::new();
        let mut output: BoxStream<Output> = Box::pin(futures::stream::empty());
        // The live stream first: what comes between the two is in both rather than in none.
        if options.stream {
            output = live(&container.hub, options.stdout, options.stderr);
        }
        if options.logs {
            let logs = LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
            let (_, past) = self.container_logs(name, logs)?;
            output = Box::pin(past.chain(output));
        }
        let stdin = (options.stdin && options.stream && record.config.open_stdin).then(|| {
            let (daemon, container) = (self.clone(), container.clone());
            let close = record.config.stdin_once && !record.tty();
            let writer = container.clone().hub.stdin(async move {
                if close {
                    container.hub.close_stdin();
                    if let Err(e) = daemon.containerd.close_stdin(&container.id, INIT).await {
                        tracing::debug!("closing stdin of {}: {e}", container.id);
                    }
                }
            });
            if record.tty() { with_detach_keys(writer, keys, detached.clone()) } else { writer }
        });
        self.container_event(&record, "attach", &[]);
        let daemon = self.clone();
        let told = detached.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = told.cancelled() => daemon.container_event(&record, "detach", &[]),
                () = container.removed.cancelled() => {}
            }
        });
        Ok(Attached {
            tty: container_tty(self, name)?,
            stdin,
            output: Box::pin(output.take_until(detached.cancelled_owned())),
        })
    }
}

fn container_tty(daemon: &Daemon, name: &str) -> Result<bool> {
    Ok(daemon.container(name)?.record().tty())
}

/// What a hub's process writes from now on.
pub fn live(hub: &Hub, stdout: bool, stderr: bool) -> BoxStream<Output> {
    Box::pin(ReceiverStream::new(hub.subscribe(stdout, stderr)).map(Ok))
}

/// Docker's notation: `ctrl-` and a letter or one of `@[\]^_`, or any single character, joined by commas.
pub fn detach_keys(text: Option<&str>) -> Result<Vec<u8>> {
    let text = text.filter(|t| !t.is_empty()).unwrap_or("ctrl-p,ctrl-q");
    text.split(',')
        .map(|key| match (key.strip_prefix("ctrl-").map(str::as_bytes), key.as_bytes()) {
            (Some(&[c @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => Ok(c & 0x1f),
            (None, &[c]) => Ok(c),
            _ => Err(Error::InvalidParameter(format!("Invalid detach keys (Unknown character: '{key}') provided"))),
        })
        .collect()
}

/// A writer that watches for the keys: they are swallowed, and `detached` is told.
pub fn with_detach_keys(inner: Writer, keys: Vec<u8>, detached: CancellationToken) -> Writer {
    Box::pin(DetachWriter { inner, keys, matched: 0, pending: Vec::new(), detached })
}

struct DetachWriter {
    inner: Writer,
    keys: Vec<u8>,
    /// How many of the keys were pressed so far.
    matched: usize,
    /// What was taken from the client and not yet handed on.
    pending: Vec<u8>,
    detached: CancellationToken,
}

impl DetachWriter {
    fn flush_pending(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.pending.is_empty() {
            let written = futures::ready!(self.inner.as_mut().poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DetachWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        futures::ready!(self.flush_pending(cx))?;
        for &byte in bytes {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    self.detached.cancel();
                    return Poll::Ready(Ok(bytes.len()));
                }
                continue;
            }
            // The keys begun were not meant: they go to the process after all.
            let begun = self.keys[..self.matched].to_vec();
            self.pending.extend_from_slice(&begun);
            self.matched = usize::from(self.keys.first() == Some(&byte));
            if self.matched == 0 {
                self.pending.push(byte);
            }
        }
        // Handed on as far as it goes now, the rest with the next call.
        if let Poll::Ready(Err(e)) = self.flush_pending(cx) {
            return Poll::Ready(Err(e));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        futures::ready!(self.flush_pending(cx))?;
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        futures::ready!(self.flush_pending(cx))?;
        self.inner.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn keys_are_parsed() {
        assert_eq!(detach_keys(None).unwrap(), [0x10, 0x11]);
        assert_eq!(detach_keys(Some("ctrl-a,x")).unwrap(), [1, b'x']);
        assert!(detach_keys(Some("ctrl-ab")).is_err() && detach_keys(Some("alt-a")).is_err());
    }

    #[tokio::test]
    async fn keys_detach_and_everything_else_passes() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let detached = CancellationToken::new();
        let mut writer = with_detach_keys(Box::pin(ours), vec![0x10, 0x11], detached.clone());
        writer.write_all(b"a\x10b\x10").await.unwrap();
        assert!(!detached.is_cancelled());
        writer.write_all(b"\x11").await.unwrap();
        assert!(detached.is_cancelled());
        drop(writer);
        let mut text = Vec::new();
        theirs.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"a\x10b");
    }
}
