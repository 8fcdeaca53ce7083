//! Rotated files, compressed and back.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{open, suffixed};

/// Makes `<path>.gz` of `path` and removes `path`. At every instant one of the two is there and complete.
pub fn pack(path: &Path) -> io::Result<()> {
    let mut source = open(path)?;
    let temporary = suffixed(path, ".gz.tmp");
    let mut options = OpenOptions::new();
    let target = options.write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
    let packed = pack_into(&mut source, target).and_then(|()| std::fs::rename(&temporary, suffixed(path, ".gz")));
    if packed.is_err() {
        // The error that counts is the first one.
        let _ = std::fs::remove_file(&temporary);
        return packed;
    }
    std::fs::remove_file(path)
}

fn pack_into(source: &mut File, target: File) -> io::Result<()> {
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(source, &mut encoder)?;
    // The original is removed next: this one has to be on disk.
    encoder.finish()?.sync_all()
}

/// Unpacks into a nameless file in `directory`, at most `max_bytes`; a damaged end is cut off.
pub fn unpack(packed: File, directory: &Path, max_bytes: u64) -> io::Result<File> {
    let mut target = tempfile::tempfile_in(directory)?;
    let mut source = MultiGzDecoder::new(packed).take(max_bytes);
    let mut block = vec![0; 64 * 1024];
    loop {
        match source.read(&mut block) {
            Ok(0) => break,
            Ok(count) => io::Write::write_all(&mut target, &block[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "a compressed log is damaged; what comes before is shown");
                break;
            }
        }
    }
    target.rewind()?;
    Ok(target)
}
