//! Blobs by digest: `content/blobs/sha256/<hex>`, written in `content/ingest` first.
//!
//! A blob under its digest has been verified. Layer blobs stay as they came from a registry or an archive, compressed or
//! not, so that what is pushed or saved again is the same to the byte; layers made here are compressed when they are
//! pushed. Nothing here is fsynced file by file (`shared/durable.rs` says why that is enough), and what no record names is
//! removed at the next start.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use archive::DigestWriter;

use crate::{Digest, Error, Result};

/// The store's two folders.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    blobs: PathBuf,
    ingest: PathBuf,
}

/// A blob being written. Dropped without [`BlobWriter::finish`] it leaves nothing.
pub(crate) struct BlobWriter {
    out: DigestWriter<BufWriter<tempfile::NamedTempFile>>,
}

/// A blob that is written and known, but not yet in the store.
pub(crate) struct StagedBlob {
    file: tempfile::NamedTempFile,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

impl Content {
    pub(crate) fn open(data_root: &Path) -> Result<Self> {
        let content = data_root.join("content");
        let store = Self { blobs: content.join("blobs/sha256"), ingest: content.join("ingest") };
        for dir in [&store.blobs, &store.ingest] {
            std::fs::create_dir_all(dir).map_err(Error::io(format!("make {}", dir.display())))?;
        }
        Ok(store)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Where downloads that may be resumed are kept until they are whole.
    pub(crate) fn ingest_dir(&self) -> &Path {
        &self.ingest
    }

    pub(crate) fn blobs_dir(&self) -> &Path {
        &self.blobs
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.path(digest)).map_err(Error::io(format!("open blob {digest}")))
    }

    /// A small blob, whole and verified.
    pub(crate) fn read_small(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let read = self.open_blob(digest)?.take(max_bytes + 1).read_to_end(&mut data);
        read.map_err(Error::io(format!("read blob {digest}")))?;
        if data.len() as u64 > max_bytes || Digest::of(&data) != *digest {
            return Err(Error::Corrupt(format!("blob {digest} is damaged on disk")));
        }
        Ok(data)
    }

    pub(crate) fn writer(&self) -> Result<BlobWriter> {
        let file = tempfile::Builder::new().prefix("blob-").tempfile_in(&self.ingest);
        let file = file.map_err(Error::io(format!("make a file in {}", self.ingest.display())))?;
        Ok(BlobWriter { out: DigestWriter::new(BufWriter::with_capacity(128 << 10, file)) })
    }

    pub(crate) fn stage_bytes(&self, data: &[u8]) -> Result<StagedBlob> {
        let mut writer = self.writer()?;
        writer.write_all(data).map_err(Error::io("write a blob"))?;
        writer.finish()
    }

    /// Gives a staged blob its name. What is there under that name has the same bytes.
    pub(crate) fn place(&self, blob: StagedBlob) -> Result<()> {
        let path = self.path(&blob.digest);
        // Temporary files are private to their owner; these are the engine's, as all else in the data root.
        blob.file
            .persist(&path)
            .map(drop)
            .map_err(|error| Error::io(format!("rename to {}", path.display()))(error.error))
    }

    /// Makes a blob of a file that lies in the data root and will not be written any more: another name, no copy.
    pub(crate) fn adopt(&self, file: &File, digest: Digest, bytes: u64) -> Result<StagedBlob> {
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(Error::io("take a file for a blob"))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |to: &Path| {
            rustix::fs::linkat(rustix::fs::CWD, &path, rustix::fs::CWD, to, rustix::fs::AtFlags::SYMLINK_FOLLOW)?;
            File::open(to)
        };
        let file = tempfile::Builder::new().prefix("blob-").make_in(&self.ingest, link);
        let file = file.map_err(Error::io(format!("make a file in {}", self.ingest.display())))?;
        Ok(StagedBlob { file, digest, bytes })
    }

    /// Takes a blob out of the store. What is returned is left to be deleted, which of a large file takes long; it is
    /// deleted at the next start at the latest.
    pub(crate) fn set_apart(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        let apart = tempfile::Builder::new().prefix("removed-").make_in(&self.ingest, |to| std::fs::rename(&path, to));
        match apart.and_then(|apart| apart.into_temp_path().keep().map_err(|error| error.error)) {
            Ok(apart) => Some(apart),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "a blob that is no longer used stays");
                }
                None
            }
        }
    }

    /// Removes what an interrupted program left.
    pub(crate) fn clear_ingest(&self) {
        let Ok(entries) = std::fs::read_dir(&self.ingest) else { return };
        for entry in entries.flatten() {
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(%error, path = %entry.path().display(), "cannot remove a leftover");
            }
        }
    }
}

impl BlobWriter {
    pub(crate) fn finish(self) -> Result<StagedBlob> {
        let (out, hex, bytes) = self.out.finish();
        let file = out.into_inner().map_err(|error| Error::io("write a blob")(error.into_error()))?;
        Ok(StagedBlob { file, digest: Digest::from_hex(&hex)?, bytes })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.out.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl StagedBlob {
    /// Takes a downloaded file that was verified to have this digest and size.
    pub(crate) fn verified(file: tempfile::NamedTempFile, digest: Digest, bytes: u64) -> Self {
        Self { file, digest, bytes }
    }

    /// Makes the content survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.as_file().sync_all().map_err(Error::io("sync a blob"))
    }

    /// The content.
    pub(crate) fn reopen(&self) -> Result<File> {
        self.file.reopen().map_err(Error::io("open a blob"))
    }
}
