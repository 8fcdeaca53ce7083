//! The writing side: lines in, records out, one write a chunk, and a new file when the old one is full.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread::JoinHandle;

use super::{Position, gzip, names, suffixed};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::lines::Splitter;
use crate::options::JsonFileOptions;
use crate::record::{Encoder, StreamKind};
use crate::time;

/// A thread's encode buffer larger than this is given back after use.
const KEEP_BYTES: usize = 256 * 1024;

/// How often the file's length is compared with what was written.
const LEN_ASKED_EVERY_NS: i64 = 1_000_000_000;

thread_local! {
    /// Encoded records on their way to a file. One a thread, not one a log: most logs are silent most of the time.
    static BATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is behind the lock.
#[derive(Debug)]
pub struct Writer {
    file: Option<File>,
    len_bytes: u64,
    generation: u64,
    stdout: Splitter,
    stderr: Splitter,
    encoder: Encoder,
    last_time_ns: i64,
    len_asked_ns: i64,
    compressor: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn new(generation: u64, attributes: &Attributes) -> Self {
        Self {
            file: None,
            len_bytes: 0,
            generation,
            stdout: Splitter::default(),
            stderr: Splitter::default(),
            encoder: Encoder::new(attributes),
            last_time_ns: 0,
            len_asked_ns: 0,
            compressor: None,
        }
    }

    pub fn is_live(&self) -> bool {
        self.file.is_some()
    }

    pub fn position(&self) -> Position {
        Position { generation: self.generation, len_bytes: self.len_bytes, live: self.is_live() }
    }

    pub fn begin(&mut self, path: &Path) -> Result<()> {
        if self.is_live() {
            return Ok(());
        }
        let file = create(path).map_err(Error::file(path))?;
        self.len_bytes = cut_torn_record(&file).map_err(Error::file(path))?;
        self.file = Some(file);
        Ok(())
    }

    pub fn write(&mut self, path: &Path, options: &JsonFileOptions, stream: StreamKind, chunk: &[u8]) -> Result<()> {
        if !self.is_live() {
            return Err(Error::NotOpen);
        }
        self.splitting(path, options, stream, |splitter, emit| splitter.feed(chunk, emit))
    }

    pub fn end(&mut self, path: &Path, options: &JsonFileOptions) -> Result<()> {
        if !self.is_live() {
            return Ok(());
        }
        let stdout = self.splitting(path, options, StreamKind::Stdout, |splitter, emit| splitter.flush(emit));
        let stderr = self.splitting(path, options, StreamKind::Stderr, |splitter, emit| splitter.flush(emit));
        self.file = None;
        stdout.and(stderr)
    }

    /// Runs `split` on the stream's splitter and writes what it emits, in as few writes as rotation allows.
    fn splitting(
        &mut self,
        path: &Path,
        options: &JsonFileOptions,
        stream: StreamKind,
        split: impl FnOnce(&mut Splitter, &mut dyn FnMut(&[u8], bool)),
    ) -> Result<()> {
        let mut splitter = std::mem::take(self.splitter(stream));
        let mut time_ns = self.next_time_ns();
        self.last_time_ns = time_ns;
        let limit = options.max_size_bytes.unwrap_or(u64::MAX);
        let result = BATCH.with_borrow_mut(|batch| {
            batch.clear();
            let mut result = Ok(());
            split(&mut splitter, &mut |text, complete| {
                self.encoder.append(batch, stream, time_ns, text, complete);
                time_ns += 1;
                if self.len_bytes + batch.len() as u64 >= limit {
                    let written = self.append(path, batch).and_then(|()| self.rotate(path, options));
                    result = std::mem::replace(&mut result, Ok(())).and(written);
                    batch.clear();
                }
            });
            let written = if batch.is_empty() { Ok(()) } else { self.append(path, batch) };
            if batch.capacity() > KEEP_BYTES {
                *batch = Vec::new();
            }
            result.and(written)
        });
        self.last_time_ns = time_ns - 1;
        *self.splitter(stream) = splitter;
        result
    }

    fn splitter(&mut self, stream: StreamKind) -> &mut Splitter {
        match stream {
            StreamKind::Stdout => &mut self.stdout,
            StreamKind::Stderr => &mut self.stderr,
        }
    }

    /// Now, but after the last record's time if the clock has not gone far back: no two records have the same time, so
    /// that `--since` with a time that was seen neither repeats nor skips.
    fn next_time_ns(&self) -> i64 {
        let now = time::now_ns();
        let ahead = self.last_time_ns - now;
        if (0..1_000_000_000).contains(&ahead) { self.last_time_ns + 1 } else { now }
    }

    /// Appends whole records, or leaves the file as it was.
    fn append(&mut self, path: &Path, records: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Err(Error::NotOpen) };
        if let Err(error) = file.write_all(records) {
            // Best effort; what stays torn is skipped by readers and cut at the next begin.
            let _ = file.set_len(self.len_bytes);
            return Err(Error::file(path)(error));
        }
        self.len_bytes += records.len() as u64;
        // People empty log files behind our back: look, but not at every line.
        if !(0..LEN_ASKED_EVERY_NS).contains(&(self.last_time_ns - self.len_asked_ns)) {
            self.len_bytes = file.metadata().map_err(Error::file(path))?.len();
            self.len_asked_ns = self.last_time_ns;
        }
        Ok(())
    }

    /// Puts the present file aside and begins the next one.
    fn rotate(&mut self, path: &Path, options: &JsonFileOptions) -> Result<()> {
        if let Some(compressor) = self.compressor.take() {
            // It reads the file that is about to get another name. A panic of it has been reported already.
            let _ = compressor.join();
        }
        shift(path, options.max_files).map_err(Error::file(path))?;
        self.file = Some(create(path).map_err(Error::file(path))?);
        self.len_bytes = 0;
        self.generation += 1;
        if options.compress && options.max_files > 1 {
            let rotated = suffixed(path, ".1");
            self.compressor = std::thread::Builder::new()
                .name("log-gzip".to_owned())
                .spawn(move || {
                    if let Err(error) = gzip::pack(&rotated) {
                        tracing::warn!(path = %rotated.display(), %error, "compressing a rotated log failed");
                    }
                })
                .inspect_err(|error| tracing::warn!(%error, "no thread to compress a rotated log"))
                .ok();
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(compressor) = self.compressor.take() {
            let _ = compressor.join();
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640).custom_flags(flags.bits() as i32).open(path)
}

/// Renames `.1` to `.2` and so on; the oldest goes, the newest becomes `.1` (or goes, when only one is kept).
fn shift(path: &Path, max_files: u32) -> io::Result<()> {
    let last = u64::from(max_files) - 1;
    for (name, _) in names(path, last) {
        ignore_missing(std::fs::remove_file(name))?;
    }
    for index in (0..last).rev() {
        for ((from, gzip), to) in names(path, index).into_iter().zip(names(path, index + 1)) {
            debug_assert_eq!(gzip, to.1);
            ignore_missing(std::fs::rename(from, to.0))?;
        }
    }
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Cuts what follows the last line feed; returns the length that is left.
fn cut_torn_record(file: &File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let mut end = len;
    let mut block = [0; 8192];
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            end = from + at as u64 + 1;
            break;
        }
        end = from;
    }
    if end < len {
        tracing::warn!(bytes = len - end, "a torn record at the end of a log was cut off");
        file.set_len(end)?;
    }
    Ok(end)
}
