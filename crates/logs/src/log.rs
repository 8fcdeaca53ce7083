//! One container's log, whatever its driver.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use crate::attributes::{self, ContainerInfo};
use crate::error::{Error, Result};
use crate::json_file::JsonFile;
use crate::options::{JsonFileOptions, Settings};
use crate::read::{self, Batches, ReadOptions};
use crate::record::StreamKind;

/// One container's log. Cheap to clone; all clones are the same log.
///
/// Open it once per container: two of one file in the same process would not see each other's rotations.
#[derive(Debug, Clone)]
pub struct Log(Driver);

#[derive(Debug, Clone)]
enum Driver {
    None,
    JsonFile(Arc<JsonFile>),
    /// The same files elsewhere, with bounds from the beginning. What they look like is nobody's business but ours.
    Local(Arc<JsonFile>),
}

impl Log {
    /// The log of the container `info` under `directory` (which is the container's own and exists). Creates no file yet.
    pub fn open(settings: &Settings, directory: &Path, info: &ContainerInfo) -> Self {
        let file = |path, options: &JsonFileOptions| {
            Arc::new(JsonFile::new(path, options.clone(), &attributes::choose(options, info)))
        };
        Self(match settings {
            Settings::None => Driver::None,
            Settings::JsonFile(options) => {
                Driver::JsonFile(file(directory.join(format!("{}-json.log", info.id)), options))
            }
            Settings::Local(options) => Driver::Local(file(directory.join("local-logs/container.log"), options)),
        })
    }

    fn file(&self) -> Option<&Arc<JsonFile>> {
        match &self.0 {
            Driver::None => None,
            Driver::JsonFile(file) | Driver::Local(file) => Some(file),
        }
    }

    /// The file that is written, for `LogPath`; `None` when the driver has none, or none that others may read.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Driver::None | Driver::Local(_) => None,
            Driver::JsonFile(file) => Some(file.path()),
        }
    }

    /// The container has started (or is found running): from here on followers stay.
    pub fn begin(&self) -> Result<()> {
        if let Driver::Local(file) = &self.0 {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(file.directory())
                .map_err(Error::file(file.directory()))?;
        }
        self.file().map_or(Ok(()), |file| file.begin())
    }

    /// Takes a chunk as it was read from the container; lines may be cut anywhere. Costs one `write` into the page cache.
    ///
    /// After an error the log goes on with the next chunk; the complete lines of this one are lost.
    pub fn write(&self, stream: StreamKind, chunk: &[u8]) -> Result<()> {
        self.file().map_or(Ok(()), |file| file.write(stream, chunk))
    }

    /// Both outputs have ended (or this process is about to): writes unfinished lines, lets followers end.
    pub fn end(&self) -> Result<()> {
        self.file().map_or(Ok(()), |file| file.end())
    }

    /// Reads, oldest first, in batches. An error before anything was read is returned; a later one ends the stream.
    pub fn read(&self, options: ReadOptions) -> Result<Batches> {
        self.file().map_or(Err(Error::ReadingNotSupported), |file| read::read(Arc::clone(file), options))
    }

    /// Bytes on disk, rotated files included.
    pub fn disk_bytes(&self) -> u64 {
        self.file().map_or(0, |file| file.disk_bytes())
    }
}
