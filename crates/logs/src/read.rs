//! Reading a log: from the beginning or the last n lines, between two instants, and on as it grows.
//!
//! The reader pulls: one block of the file at a time, on a blocking thread, when the client has taken the batch before. So
//! a slow client holds one block of memory, no thread and no lock. Following waits on the writer's position, in process.

use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::json_file::{JsonFile, Opened, Position, unpack};
use crate::record::{Decoder, Entry, StreamKind};
use crate::time;

/// Read at a time.
const BLOCK_BYTES: usize = 256 * 1024;
/// A longer line is not a record of ours (the longest has 16 KiB of text, each byte escaped, and attributes) and is skipped.
const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// What to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Stay for what comes, until the container's output ends.
    pub follow: bool,
    /// Only the last n records; `None` is all.
    pub tail: Option<usize>,
    /// Not before this instant, nanoseconds since the epoch.
    pub since_ns: Option<i128>,
    /// Not after this instant, nanoseconds since the epoch.
    pub until_ns: Option<i128>,
    /// Include stdout.
    pub stdout: bool,
    /// Include stderr.
    pub stderr: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { follow: false, tail: None, since_ns: None, until_ns: None, stdout: true, stderr: true }
    }
}

/// Entries, oldest first, as many at a time as one block of the file holds; never an empty batch.
pub type Batches = Pin<Box<dyn Stream<Item = Result<Vec<Entry>>> + Send>>;

pub fn read(log: Arc<JsonFile>, options: ReadOptions) -> Result<Batches> {
    // Subscribed before the position is taken, so that nothing falls between the two.
    let watch = log.watch();
    let upto = log.position()?;
    let until_ns = options.until_ns;
    let follow = options.follow;
    let cursor = Cursor { log, options, opened: None, decoder: Decoder::default(), finished: false };
    let state = State { cursor, watch, upto, follow, until_ns };
    Ok(Box::pin(futures::stream::try_unfold(state, State::next)))
}

struct State {
    cursor: Cursor,
    watch: watch::Receiver<Position>,
    upto: Position,
    follow: bool,
    until_ns: Option<i128>,
}

impl State {
    async fn next(mut self) -> Result<Option<(Vec<Entry>, Self)>> {
        loop {
            let mut cursor = self.cursor;
            let upto = self.upto;
            let worker = tokio::task::spawn_blocking(move || {
                let step = cursor.step(upto);
                (cursor, step)
            });
            let (cursor, step) = worker.await.map_err(|_| Error::Interrupted)?;
            self.cursor = cursor;
            match step? {
                Step::Entries(entries) if entries.is_empty() => {}
                Step::Entries(entries) => return Ok(Some((entries, self))),
                Step::Finished => return Ok(None),
                // A position that is not live is final: what was written before the end has been read with it.
                Step::CaughtUp if !self.follow || !self.upto.live => return Ok(None),
                Step::CaughtUp => {
                    if *self.watch.borrow_and_update() == self.upto && !self.changed().await {
                        return Ok(None);
                    }
                    self.upto = *self.watch.borrow_and_update();
                }
            }
        }
    }

    /// Waits for the position to change; false when `until` comes first or nobody can change it any more.
    async fn changed(&mut self) -> bool {
        let changed = self.watch.changed();
        match self.until_ns {
            None => changed.await.is_ok(),
            Some(until_ns) => {
                let left_ns = (until_ns - i128::from(time::now_ns())).max(0);
                // The longest sleep that a timer takes is far away, and then it is asked again by nobody.
                let left = Duration::from_nanos(u64::try_from(left_ns).unwrap_or(u64::MAX / 2));
                matches!(tokio::time::timeout(left, changed).await, Ok(Ok(())))
            }
        }
    }
}

enum Step {
    /// What the next block held after filtering; may be empty.
    Entries(Vec<Entry>),
    /// Everything up to the position has been read.
    CaughtUp,
    /// `until` has passed.
    Finished,
}

/// Where a reader is. All its methods block.
struct Cursor {
    log: Arc<JsonFile>,
    options: ReadOptions,
    opened: Option<Source>,
    decoder: Decoder,
    finished: bool,
}

/// A file of the log, uncompressed, being read.
struct Source {
    generation: u64,
    file: std::fs::File,
    offset: u64,
    /// The beginning of a record whose end has not been read yet.
    rest: Vec<u8>,
    /// Within a line that is too long.
    skipping: bool,
}

impl Cursor {
    /// Reads one block, no further than `upto`.
    fn step(&mut self, upto: Position) -> Result<Step> {
        if self.finished {
            return Ok(Step::Finished);
        }
        loop {
            let Some(source) = &mut self.opened else {
                self.opened = self.open_first(upto)?;
                match self.opened {
                    Some(_) => continue,
                    None => return Ok(Step::CaughtUp),
                }
            };
            let limit = if source.generation == upto.generation { upto.len_bytes } else { u64::MAX };
            if source.offset > limit {
                // Somebody emptied the file: begin again with what came after.
                (source.offset, source.rest) = (0, Vec::new());
            }
            let mut block = std::mem::take(&mut source.rest);
            if source.fill(&mut block, limit).map_err(Error::file(self.log.path()))? > 0 {
                let entries = self.decode(block);
                return Ok(Step::Entries(entries));
            }
            source.rest = block;
            if source.generation >= upto.generation {
                return Ok(Step::CaughtUp);
            }
            let next = source.generation + 1;
            match self.log.open_generation(next)? {
                Some(opened) if opened.generation <= upto.generation => {
                    self.opened = Some(Source::new(&self.log, opened)?);
                }
                // Rotated out of existence while this reader slept; a follower finds the newer ones next time.
                _ => return Ok(Step::CaughtUp),
            }
        }
    }

    /// Decodes the complete lines of a block, filters them, keeps the rest for the next time.
    fn decode(&mut self, mut block: Vec<u8>) -> Vec<Entry> {
        let Some(source) = &mut self.opened else { return Vec::new() };
        let end = memchr::memrchr(b'\n', &block).map_or(0, |at| at + 1);
        source.rest = block.split_off(end);
        let mut lines = &block[..];
        if source.skipping && end > 0 {
            let first = memchr::memchr(b'\n', lines).map_or(end, |at| at + 1);
            lines = &lines[first..];
            source.skipping = false;
        }
        if source.rest.len() > MAX_RECORD_BYTES {
            source.rest = Vec::new();
            source.skipping = true;
        }
        let mut entries = Vec::with_capacity(lines.len() / 160);
        self.decoder.reserve(lines.len());
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', lines) {
            let record = &lines[from..at];
            from = at + 1;
            let Some(entry) = self.decoder.decode(record) else { continue };
            let time_ns = i128::from(entry.time_ns);
            if self.options.until_ns.is_some_and(|until_ns| time_ns > until_ns) {
                self.finished = true;
                break;
            }
            let wanted = match entry.stream {
                StreamKind::Stdout => self.options.stdout,
                StreamKind::Stderr => self.options.stderr,
            };
            if wanted && self.options.since_ns.is_none_or(|since_ns| time_ns >= since_ns) {
                entries.push(entry);
            }
        }
        entries
    }

    /// Opens the file that the first wanted record is in, at that record.
    fn open_first(&self, upto: Position) -> Result<Option<Source>> {
        let Some(tail) = self.options.tail else {
            return self.log.open_generation(0)?.map(|opened| Source::new(&self.log, opened)).transpose();
        };
        let mut missing = tail;
        let mut earliest = None;
        for generation in (0..=upto.generation).rev() {
            let Some(opened) = self.log.open_generation(generation)? else { break };
            if opened.generation != generation {
                // That one and all before it are gone.
                break;
            }
            let mut source = Source::new(&self.log, opened)?;
            let limit = if generation == upto.generation { upto.len_bytes } else { u64::MAX };
            let found = source.seek_back(limit, missing).map_err(Error::file(self.log.path()))?;
            missing -= found;
            earliest = Some(source);
            if missing == 0 {
                break;
            }
        }
        Ok(earliest)
    }
}

impl Source {
    fn new(log: &JsonFile, opened: Opened) -> Result<Self> {
        let file = if opened.gzip {
            unpack(opened.file, log.directory(), log.max_unpacked_bytes()).map_err(Error::file(log.path()))?
        } else {
            opened.file
        };
        Ok(Self { generation: opened.generation, file, offset: 0, rest: Vec::new(), skipping: false })
    }

    /// Appends the next bytes to `block`, not beyond `limit`; 0 at the end.
    fn fill(&mut self, block: &mut Vec<u8>, limit: u64) -> io::Result<usize> {
        let want = limit.saturating_sub(self.offset).min(BLOCK_BYTES as u64) as usize;
        let kept = block.len();
        block.resize(kept + want, 0);
        let mut filled = 0;
        while filled < want {
            match self.file.read_at(&mut block[kept + filled..], self.offset) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        block.truncate(kept + filled);
        Ok(filled)
    }

    /// Goes to the `wanted`-th last record that ends before `limit`; returns how many are there (at most `wanted`).
    fn seek_back(&mut self, limit: u64, wanted: usize) -> io::Result<usize> {
        let mut end = self.file.metadata()?.len().min(limit);
        if wanted == 0 {
            self.offset = end;
            return Ok(0);
        }
        let mut block = vec![0; BLOCK_BYTES / 4];
        let mut feeds = 0;
        while end > 0 {
            let from = end.saturating_sub(block.len() as u64);
            let part = &mut block[..(end - from) as usize];
            self.file.read_exact_at(part, from)?;
            for at in memchr::memrchr_iter(b'\n', part) {
                // The first line feed from the end closes the last record, the next one the record before it …
                if feeds == wanted {
                    self.offset = from + at as u64 + 1;
                    return Ok(wanted);
                }
                feeds += 1;
            }
            end = from;
        }
        self.offset = 0;
        Ok(feeds)
    }
}
