//! The files of one container's `json-file` log: appending, rotating, and finding them again.
//!
//! ```text
//!   <id>-json.log            generation g      being written
//!   <id>-json.log.1[.gz]     generation g − 1
//!   <id>-json.log.2[.gz]     generation g − 2  … up to max-file − 1
//! ```
//!
//! A *generation* is one file's number from the beginning of this process's knowledge on; it stays the same while the
//! file's name changes with each rotation, which is how a reader finds the file after the one it has read. All renames and all opens
//! by generation happen under the writer's lock, except the compressor's, which is arranged so that a complete copy is
//! there under one of the two names at every instant.
//!
//! Nothing is fsynced: after a crash of the machine the end of the log may be missing or torn, and both are tolerated.

mod gzip;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

pub use gzip::unpack;
use writer::Writer;

use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::options::JsonFileOptions;
use crate::record::StreamKind;

/// Up to where the log is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The newest file.
    pub generation: u64,
    /// Its length in bytes, always at the end of a record while `live`.
    pub len_bytes: u64,
    /// More may come.
    pub live: bool,
}

/// One container's files.
#[derive(Debug)]
pub struct JsonFile {
    path: PathBuf,
    options: JsonFileOptions,
    writer: Mutex<Writer>,
    position: watch::Sender<Position>,
}

/// An opened file of the log.
#[derive(Debug)]
pub struct Opened {
    /// Its generation.
    pub generation: u64,
    /// The file.
    pub file: File,
    /// It is compressed.
    pub gzip: bool,
}

impl JsonFile {
    /// The log at `path`. Creates nothing.
    pub fn new(path: PathBuf, options: JsonFileOptions, attributes: &Attributes) -> Self {
        // Older files may be there from an earlier run: their numbers go below that of the newest.
        let generation = (1..u64::from(options.max_files)).take_while(|index| exists(&path, *index)).count() as u64;
        let position = Position { generation, len_bytes: 0, live: false };
        Self {
            path,
            options,
            writer: Mutex::new(Writer::new(generation, attributes)),
            position: watch::channel(position).0,
        }
    }

    /// The newest file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log for appending. A record that a crash has torn is cut off.
    pub fn begin(&self) -> Result<()> {
        let mut writer = self.lock();
        writer.begin(&self.path)?;
        self.publish(&writer);
        Ok(())
    }

    /// Takes a chunk of output.
    pub fn write(&self, stream: StreamKind, chunk: &[u8]) -> Result<()> {
        let mut writer = self.lock();
        let written = writer.write(&self.path, &self.options, stream, chunk);
        self.publish(&writer);
        written
    }

    /// Writes unfinished lines and closes the file.
    pub fn end(&self) -> Result<()> {
        let mut writer = self.lock();
        let ended = writer.end(&self.path, &self.options);
        self.publish(&writer);
        ended
    }

    /// Follows the position.
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// Up to where the log can be read now.
    pub fn position(&self) -> Result<Position> {
        let writer = self.lock();
        if writer.is_live() {
            return Ok(writer.position());
        }
        let len_bytes = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(Error::file(&self.path)(error)),
        };
        Ok(Position { len_bytes, ..writer.position() })
    }

    /// Opens the file of this generation, or the oldest newer one that is still there.
    pub fn open_generation(&self, generation: u64) -> Result<Option<Opened>> {
        let writer = self.lock();
        let newest = writer.position().generation;
        let oldest = newest.saturating_sub(u64::from(self.options.max_files) - 1);
        for generation in generation.max(oldest)..=newest {
            let index = newest - generation;
            for (path, gzip) in names(&self.path, index) {
                match open(&path) {
                    Ok(file) => return Ok(Some(Opened { generation, file, gzip })),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::file(path)(error)),
                }
            }
        }
        Ok(None)
    }

    /// The directory that holds the files.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// More than this an uncompressed file of this log cannot hold.
    pub fn max_unpacked_bytes(&self) -> u64 {
        // A file is closed after the record that passes the limit.
        self.options.max_size_bytes.unwrap_or(0).saturating_add(16 << 20)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        (0..u64::from(self.options.max_files))
            .map(|index| {
                names(&self.path, index).iter().filter_map(|(path, _)| path.metadata().ok()).map(|m| m.len()).sum()
            })
            .take_while(|bytes: &u64| *bytes > 0)
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic under the lock leaves at worst one batch unwritten: go on.
        self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn publish(&self, writer: &Writer) {
        let now = writer.position();
        self.position.send_if_modified(|position| std::mem::replace(position, now) != now);
    }
}

/// The names that the file `index` rotations ago may have, and whether that one is compressed.
fn names(path: &Path, index: u64) -> Vec<(PathBuf, bool)> {
    match index {
        0 => vec![(path.to_owned(), false)],
        _ => vec![(suffixed(path, &format!(".{index}")), false), (suffixed(path, &format!(".{index}.gz")), true)],
    }
}

fn exists(path: &Path, index: u64) -> bool {
    names(path, index).iter().any(|(path, _)| path.exists())
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens for reading, a regular file only, without following a link.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}
