//! What CRIU measured: the files `stats-dump` and `stats-restore` of its work directory.
//!
//! ```text
//! u32 0x55105940   a service image
//! u32 0x57093306   statistics
//! u32 length       of the message
//! …                StatsEntry
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;

use prost::Message;

/// No statistics file is larger.
const MAX_BYTES: u64 = 64 << 10;
const SERVICE: u32 = 0x5510_5940;
const STATS: u32 = 0x5709_3306;

#[allow(missing_docs)]
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    dump: Option<Dump>,
    #[prost(message, optional, tag = "2")]
    restore: Option<Restore>,
}

/// Of a dump; times in microseconds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dump {
    /// Until every task stood still.
    #[prost(uint32, tag = "1")]
    pub freezing_time: u32,
    /// How long they stood still.
    #[prost(uint32, tag = "2")]
    pub frozen_time: u32,
    /// Of that, copying memory.
    #[prost(uint32, tag = "3")]
    pub memdump_time: u32,
    /// Of that, writing it.
    #[prost(uint32, tag = "4")]
    pub memwrite_time: u32,
    /// Pages looked at.
    #[prost(uint64, tag = "5")]
    pub pages_scanned: u64,
    /// Pages that the parent image has.
    #[prost(uint64, tag = "6")]
    pub pages_skipped_parent: u64,
    /// Pages written.
    #[prost(uint64, tag = "7")]
    pub pages_written: u64,
}

/// Of a restore; times in microseconds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Restore {
    /// Pages compared with a parent's.
    #[prost(uint64, tag = "1")]
    pub pages_compared: u64,
    /// Pages shared with a parent.
    #[prost(uint64, tag = "2")]
    pub pages_skipped_cow: u64,
    /// Making the tasks.
    #[prost(uint32, tag = "3")]
    pub forking_time: u32,
    /// Filling them.
    #[prost(uint32, tag = "4")]
    pub restore_time: u32,
    /// Pages read.
    #[prost(uint64, tag = "5")]
    pub pages_restored: u64,
}

/// Reads `stats-dump`; `None` when it is not there or cannot be understood.
pub fn dump(dir: &Path) -> Option<Dump> {
    read(&dir.join("stats-dump"))?.dump
}

/// Reads `stats-restore`; `None` when it is not there or cannot be understood.
pub fn restore(dir: &Path) -> Option<Restore> {
    read(&dir.join("stats-restore"))?.restore
}

fn read(path: &Path) -> Option<Entry> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Entry> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != SERVICE || word(4)? != STATS {
        return None;
    }
    let length = word(8)? as usize;
    Entry::decode(bytes.get(12..12usize.checked_add(length)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_round_trips_and_a_cut_one_is_refused() {
        let entry =
            Entry { dump: Some(Dump { frozen_time: 3000, pages_written: 77, ..Default::default() }), restore: None };
        let message = entry.encode_to_vec();
        let mut bytes = Vec::new();
        for word in [SERVICE, STATS, message.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&message);
        assert_eq!(parse(&bytes).unwrap(), entry);
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_none());
        }
    }
}
