//! Output of a process as bytes for a client: raw, or with a header of eight bytes before each piece (stream number,
//! three zeros, big-endian length).
//!
//! Small pieces that are there at the same time leave in one block; large ones are handed on without being copied.
//! Nothing waits for more.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;

use crate::backend::{BoxStream, Output, StreamKind};
use crate::error::Result;

/// Blocks are not made longer than this, in bytes.
const BLOCK_BYTES: usize = 64 * 1024;
/// Pieces of at least this many bytes are not copied.
const LARGE_BYTES: usize = 16 * 1024;

/// The bytes of an output stream.
pub(crate) struct Frames {
    output: BoxStream<Output>,
    raw: bool,
    block: BytesMut,
    large: Option<Bytes>,
    ended: bool,
}

impl Frames {
    pub fn new(raw: bool, output: BoxStream<Output>) -> Self {
        Self { output, raw, block: BytesMut::new(), large: None, ended: false }
    }

    fn push(&mut self, stream: StreamKind, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let is_large = data.len() >= LARGE_BYTES;
        if self.block.capacity() == 0 {
            self.block.reserve(if is_large { 8 } else { 4 * 1024 });
        }
        if !self.raw {
            // Pieces come from reads of a bounded size; none gets near four gigabytes.
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            self.block.put_slice(&[stream as u8, 0, 0, 0]);
            self.block.put_u32(length);
        }
        if is_large {
            self.large = Some(data);
        } else {
            self.block.put_slice(&data);
        }
    }

    fn take_block(&mut self) -> Bytes {
        std::mem::take(&mut self.block).freeze()
    }
}

impl Stream for Frames {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            let is_full = self.block.len() >= BLOCK_BYTES || self.large.is_some() || self.ended;
            if is_full {
                if !self.block.is_empty() {
                    return Poll::Ready(Some(Ok(self.take_block())));
                }
                if let Some(large) = self.large.take() {
                    return Poll::Ready(Some(Ok(large)));
                }
                return Poll::Ready(None);
            }
            match self.output.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(Output { stream, data }))) => self.push(stream, data),
                Poll::Ready(Some(Err(error))) => {
                    self.push(StreamKind::Systemerr, format!("Error: {error}\n").into());
                    self.ended = true;
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending if !self.block.is_empty() => return Poll::Ready(Some(Ok(self.take_block()))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use crate::error::Error;

    fn output(stream: StreamKind, data: &[u8]) -> Result<Output> {
        Ok(Output { stream, data: Bytes::copy_from_slice(data) })
    }

    async fn blocks(raw: bool, items: Vec<Result<Output>>) -> Vec<Bytes> {
        Frames::new(raw, Box::pin(futures::stream::iter(items))).map(|block| block.unwrap()).collect().await
    }

    #[tokio::test]
    async fn small_pieces_share_a_block() {
        let items =
            vec![output(StreamKind::Stdout, b"ab"), output(StreamKind::Stderr, b""), output(StreamKind::Stderr, b"c")];
        assert_eq!(blocks(false, items).await, [&b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01c"[..]]);
        let items = vec![output(StreamKind::Stdout, b"ab"), output(StreamKind::Stderr, b"c")];
        assert_eq!(blocks(true, items).await, [&b"abc"[..]]);
    }

    #[tokio::test]
    async fn large_pieces_are_not_copied() {
        let large = Bytes::from(vec![7; LARGE_BYTES]);
        let items = vec![
            output(StreamKind::Stdout, b"a"),
            Ok(Output { stream: StreamKind::Stdout, data: large.clone() }),
            output(StreamKind::Stdout, b"b"),
        ];
        let blocks = blocks(false, items).await;
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[0], &b"\x01\0\0\0\0\0\0\x01a\x01\0\0\0\0\0\x40\0"[..]);
        assert_eq!(blocks[1].as_ptr(), large.as_ptr());
        assert_eq!(blocks[2], &b"\x01\0\0\0\0\0\0\x01b"[..]);
    }

    #[tokio::test]
    async fn many_pieces_make_bounded_blocks() {
        let items = (0..100_000).map(|_| output(StreamKind::Stdout, &[1; 100])).collect();
        let blocks = blocks(false, items).await;
        assert!(blocks.iter().all(|block| block.len() <= BLOCK_BYTES + LARGE_BYTES + 8));
        assert_eq!(blocks.iter().map(Bytes::len).sum::<usize>(), 100_000 * 108);
    }

    #[tokio::test]
    async fn an_error_is_told_on_the_stream() {
        let items = vec![output(StreamKind::Stdout, b"a"), Err(Error::system("disk on fire"))];
        let blocks = blocks(false, items).await;
        assert!(blocks[0].ends_with(b"Error: disk on fire\n"));
        assert_eq!(blocks[0][9], StreamKind::Systemerr as u8);
    }
}
