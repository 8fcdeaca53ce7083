//! Log drivers: what a container writes is kept here, and read back from here.
//!
//! [`validate`] turns a container's log configuration into [`Settings`] or refuses it in Docker's words. A [`Log`] is one
//! container's log for as long as the container exists: [`Log::begin`] when it starts, [`Log::write`] for every chunk of
//! output, [`Log::end`] when its output has ended, [`Log::read`] at any time.
//!
//! ```text
//!   stdout ─┐  Log::write     lines            record           json_file
//!   stderr ─┴─────────────▶ split, carry ──▶ one JSON line ──▶ append, rotate ──▶ <dir>/<id>-json.log[.1[.gz] …]
//!                                                                  │ position (watch channel)
//!   client ◀──── Log::read ◀── batches of entries ◀── record ◀─────┘
//! ```
//!
//! What must never happen here: a reader holding up a writer, a reader's memory growing with the log, a wait that polls, or
//! a half-written line being shown to anybody.
#![forbid(unsafe_code)]

mod attributes;
mod error;
mod json_file;
mod lines;
mod log;
mod options;
mod read;
mod record;
mod sizes;
mod time;

pub use attributes::{Attributes, ContainerInfo};
pub use error::{Error, Result};
pub use log::Log;
pub use options::{JsonFileOptions, Settings, validate};
pub use read::{Batches, ReadOptions};
pub use record::{Entry, StreamKind};
pub use time::{rfc3339_nano, rfc3339_nano_fixed};

/// Entry points for fuzzing: each takes what somebody else wrote and must neither panic nor allocate without bound.
pub mod fuzz {
    /// A whole log file's content, as the reader decodes it.
    pub fn json_lines(data: &[u8]) {
        let mut decoder = crate::record::Decoder::default();
        for line in data.split(|byte| *byte == b'\n') {
            decoder.decode(line);
        }
    }

    /// A container's log options.
    pub fn options(data: &str) {
        let options: std::collections::BTreeMap<String, String> =
            data.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let _ = crate::validate("json-file", &options);
    }
}
