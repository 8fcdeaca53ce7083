//! Trees to tar and back.
//!
//! Everything that reads or writes a tar of a container's, image's or checkpoint's files goes through here, so that the
//! rules against hostile archives exist once:
//!
//! - a path is resolved by the kernel inside one root directory (`openat2`, `RESOLVE_IN_ROOT`), never by string joining;
//!   a `..` component is refused, a leading `/` means the root;
//! - an entry is created under a name that was made free first, never opened through a link that is in its place;
//! - what an archive may cost (entries, bytes, length of a name) is bounded by [`Limits`];
//! - a damaged or forbidden archive is an error for the whole, and it is the caller's part to throw away what was made
//!   until then: unpack into a staging directory and rename.
//!
//! The crate is synchronous and knows neither images nor checkpoints, and must stay so.
#![forbid(unsafe_code)]

pub mod compression;
mod copy;
pub mod digest;
mod entry;
mod error;
mod pack;
mod reader;
mod root;
mod unpack;
mod writer;
mod xattrs;

#[cfg(test)]
mod tests;

pub use copy::{PathStat, copy_out, stat_path};
pub use digest::{DigestReader, DigestWriter, sha256_hex};
pub use entry::{Entry, EntryKind, Timestamp};
pub use error::{Error, Result};
pub use pack::{PackOptions, Packed, pack};
pub use reader::{Limits, TarReader};
pub use root::Root;
pub use unpack::{UnpackOptions, Unpacked, unpack, unpack_in};
pub use writer::TarWriter;

/// How deletions in a writable overlay layer are written in a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whiteouts {
    /// There are none: `.wh.` has no meaning, overlay's own attributes are left out and refused entry.
    #[default]
    None,
    /// Image layers: overlay's markers on disk, `.wh.` files in the tar (the OCI image layer rules).
    Oci,
    /// Checkpoints: overlay's character devices 0/0 and `trusted.overlay.*` attributes are kept as they are.
    Raw,
    /// Only for unpacking: `.wh.` entries delete what is there (a diff applied to a plain tree).
    Apply,
}

/// Reads any bytes as an archive and throws the outcome away: the entry point for a fuzzer.
///
/// Must not panic, hang, or take more memory than [`Limits`] lets it.
pub fn fuzz_read(data: &[u8]) {
    let limits = Limits { max_entries: 10_000, max_bytes: 16 << 20 };
    let Ok(plain) = compression::decompress(data) else { return };
    let mut tar = TarReader::new(plain, limits);
    while let Ok(Some(_)) = tar.next_entry() {
        if std::io::copy(&mut tar, &mut std::io::sink()).is_err() {
            return;
        }
    }
}

/// Unpacks any bytes in `dir` (an empty scratch directory) in every mode: the entry point for a fuzzer that checks that
/// nothing appears outside of it.
pub fn fuzz_unpack(data: &[u8], dir: &std::path::Path) {
    for whiteouts in [Whiteouts::None, Whiteouts::Oci, Whiteouts::Raw, Whiteouts::Apply] {
        let limits = Limits { max_entries: 1_000, max_bytes: 1 << 20 };
        let options = UnpackOptions { whiteouts, limits, ..UnpackOptions::default() };
        let _ = unpack(data, dir, &options);
    }
}
