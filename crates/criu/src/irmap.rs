//! Tells CRIU where the files are that programs watch, so that it need not search while everything stands still:
//! `irmap-cache` in its work directory. CRIU looks whether each is still there.
//!
//! ```text
//! u32 0x55105940   a service file
//! u32 0x57004059   a cache of inodes
//! u32 length       of the message
//! …                Entry
//! …
//! ```

use std::path::Path;

use prost::Message;

use crate::error::{Result, io};

const NAME: &str = "irmap-cache";
const SERVICE: u32 = 0x5510_5940;
const IRMAP_CACHE: u32 = 0x5700_4059;

/// A file that is watched.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Entry {
    /// Its file system, as `fdinfo` tells it.
    #[prost(uint32, required, tag = "1")]
    pub device: u32,
    /// Its number there.
    #[prost(uint64, required, tag = "2")]
    pub inode: u64,
    /// Where it is, from the container's root; that itself is `/.`.
    #[prost(string, required, tag = "3")]
    pub path: String,
}

/// Writes the cache to CRIU's work directory.
pub fn write(work: &Path, entries: &[Entry]) -> Result<()> {
    let mut bytes = Vec::new();
    for number in [SERVICE, IRMAP_CACHE] {
        bytes.extend(number.to_le_bytes());
    }
    for entry in entries {
        let message = entry.encode_to_vec();
        bytes.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(message);
    }
    std::fs::write(work.join(NAME), bytes).map_err(io(format!("write {NAME}")))
}

/// Takes it away again: nobody else reads it.
pub fn remove(work: &Path) {
    let _ = std::fs::remove_file(work.join(NAME));
}
