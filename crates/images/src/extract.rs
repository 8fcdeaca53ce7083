//! A layer's tar to a layer: unpacked on disk, its plain digest computed, its compressed bytes kept, in one pass.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use archive::compression::{Compression, decompress, sniff_stream};
use archive::{DigestReader, UnpackOptions, Whiteouts, unpack};

use crate::content::StagedBlob;
use crate::shared::{Layer, Lease, Shared};
use crate::{Digest, Error, Result};

/// Media types of layers, by what they are compressed with.
pub(crate) const LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const LAYER_OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const LAYER_OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const LAYER_OCI_PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where a layer's tar comes from.
pub(crate) enum Source<'a> {
    /// A stream, compressed or not.
    Stream(Box<dyn Read + Send + 'a>),
    /// A downloaded, verified blob, and a reader of it (which may tell progress).
    Blob(StagedBlob, Box<dyn Read + Send + 'a>),
    /// A file of an archive that was unpacked in the data root and will not be written any more, and a reader of it: the
    /// store gets the file itself, not a copy.
    File(&'a File, Box<dyn Read + Send + 'a>),
}

/// Makes the layer on top of `parent`. With `expected`, the plain tar must have that digest.
pub(crate) fn extract(
    shared: &Shared,
    lease: &mut Lease,
    parent: Option<&Digest>,
    source: Source<'_>,
    expected: Option<&Digest>,
) -> Result<Layer> {
    let staging = shared.staging()?;
    let diff = staging.path().join("diff");
    std::fs::create_dir(&diff).map_err(Error::io(format!("make {}", diff.display())))?;
    let (blob, media_type, diff_id, bytes) = match source {
        Source::Blob(blob, stream) => {
            let (compression, stream) = sniff_stream(stream).map_err(Error::io("read a layer"))?;
            let media_type = media_type(compression)?;
            let mut plain = DigestReader::new(decompress(stream)?);
            let bytes = unpack_layer(&mut plain, &diff)?;
            let (hex, _) = plain.finish().map_err(archive::Error::from)?;
            (blob, media_type, Digest::from_hex(&hex)?, bytes)
        }
        Source::File(file, stream) => {
            let (compression, stream) = sniff_stream(stream).map_err(archive::Error::from)?;
            match compression {
                Compression::None => {
                    let mut plain = DigestReader::new(stream);
                    let bytes = unpack_layer(&mut plain, &diff)?;
                    let (hex, blob_bytes) = plain.finish().map_err(archive::Error::from)?;
                    let diff_id = Digest::from_hex(&hex)?;
                    (shared.content.adopt(file, diff_id.clone(), blob_bytes)?, LAYER_OCI_PLAIN, diff_id, bytes)
                }
                Compression::Gzip | Compression::Zstd => {
                    let mut raw = DigestReader::new(stream);
                    let mut plain = DigestReader::new(decompress(&mut raw)?);
                    let bytes = unpack_layer(&mut plain, &diff)?;
                    let (hex, _) = plain.finish().map_err(archive::Error::from)?;
                    let (raw_hex, blob_bytes) = raw.finish().map_err(archive::Error::from)?;
                    let blob = shared.content.adopt(file, Digest::from_hex(&raw_hex)?, blob_bytes)?;
                    (blob, media_type(compression)?, Digest::from_hex(&hex)?, bytes)
                }
                Compression::Bzip2 | Compression::Xz => extract_plain(shared, decompress(stream)?, &diff)?,
            }
        }
        Source::Stream(stream) => {
            let (compression, stream) = sniff_stream(stream).map_err(archive::Error::from)?;
            match compression {
                Compression::Gzip | Compression::Zstd => {
                    let mut raw = Tee { inner: stream, copy: shared.content.writer()? };
                    let mut plain = DigestReader::new(decompress(&mut raw)?);
                    let bytes = unpack_layer(&mut plain, &diff)?;
                    let (hex, _) = plain.finish().map_err(archive::Error::from)?;
                    std::io::copy(&mut raw, &mut std::io::sink()).map_err(archive::Error::from)?;
                    (raw.copy.finish()?, media_type(compression)?, Digest::from_hex(&hex)?, bytes)
                }
                _ => extract_plain(shared, decompress(stream)?, &diff)?,
            }
        }
    };
    if let Some(expected) = expected.filter(|expected| **expected != diff_id) {
        return Err(Error::Invalid(format!("invalid diffID for layer: expected {expected:?}, got {diff_id:?}")));
    }
    let layer = Layer {
        chain_id: Digest::chain(parent, &diff_id),
        diff_id,
        parent: parent.cloned(),
        blob: blob.digest.clone(),
        blob_bytes: blob.bytes,
        media_type: media_type.to_owned(),
        bytes,
        recorded: false,
    };
    lease.add_layer(layer, blob, staging)
}

/// A layer whose tar comes plain is kept plain: whoever pushes it pays for compressing it (`compress.rs`), nobody else.
fn extract_plain(shared: &Shared, plain: impl Read, diff: &Path) -> Result<(StagedBlob, &'static str, Digest, u64)> {
    let mut plain = Tee { inner: plain, copy: shared.content.writer()? };
    let bytes = unpack_layer(&mut plain, diff)?;
    let blob = plain.copy.finish()?;
    let diff_id = blob.digest.clone();
    Ok((blob, LAYER_OCI_PLAIN, diff_id, bytes))
}

/// Unpacks a plain tar, to its end; returns the bytes of its files.
pub(crate) fn unpack_layer(plain: &mut impl Read, diff: &Path) -> Result<u64> {
    let options = UnpackOptions { whiteouts: Whiteouts::Oci, ..UnpackOptions::default() };
    Ok(unpack(plain, diff, &options)?.content_bytes)
}

fn media_type(compression: Compression) -> Result<&'static str> {
    match compression {
        Compression::Gzip => Ok(LAYER_GZIP),
        Compression::Zstd => Ok(LAYER_OCI_ZSTD),
        Compression::None => Ok(LAYER_OCI_PLAIN),
        Compression::Bzip2 | Compression::Xz => {
            Err(Error::Invalid("a registry's layer is compressed neither with gzip nor with zstd".into()))
        }
    }
}

/// Passes reads on and writes them elsewhere as well.
struct Tee<R, W> {
    inner: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.copy.write_all(&buf[..n])?;
        Ok(n)
    }
}
