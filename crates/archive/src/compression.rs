//! What a stream is compressed with, told by its first bytes, and its plain content.
//!
//! Decompression has no bound of its own: whoever reads the result bounds it (as [`crate::TarReader`] does).

use std::io::{self, BufReader, Chain, Cursor, Read};

use crate::{Error, Result};

/// A compression that is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed, as far as can be told.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

const LONGEST_MAGIC_BYTES: usize = 6;

/// Tells the compression from a stream's first bytes.
pub fn sniff(head: &[u8]) -> Compression {
    let skippable_zstd = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
    match head {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ if skippable_zstd => Compression::Zstd,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        _ => Compression::None,
    }
}

/// A stream whose first bytes were looked at and put back.
pub type Sniffed<R> = Chain<Cursor<Vec<u8>>, R>;

/// Looks at the first bytes of `stream`, which may be empty.
pub fn sniff_stream<R: Read>(mut stream: R) -> io::Result<(Compression, Sniffed<R>)> {
    let mut head = Vec::with_capacity(LONGEST_MAGIC_BYTES);
    stream.by_ref().take(LONGEST_MAGIC_BYTES as u64).read_to_end(&mut head)?;
    Ok((sniff(&head), Cursor::new(head).chain(stream)))
}

/// The plain content of `stream`, whatever it is compressed with.
pub fn decompress<'a, R: Read + Send + 'a>(stream: R) -> Result<Box<dyn Read + Send + 'a>> {
    let (compression, stream) = sniff_stream(stream)?;
    Ok(match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(64 << 10, stream))),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(stream).map_err(Error::Stream)?),
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(stream)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(BufReader::with_capacity(64 << 10, stream), true)),
    })
}
