//! One container's log, whatever its driver.

use std::path::Path;
use std::sync::Arc;

use crate::attributes::{self, ContainerInfo};
use crate::error::{Error, Result};
use crate::json_file::JsonFile;
use crate::options::Settings;
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
}

impl Log {
    /// The log of the container `info` under `directory` (which is the container's own and exists). Creates no file yet.
    pub fn open(settings: &Settings, directory: &Path, info: &ContainerInfo) -> Self {
        Self(match settings {
            Settings::None => Driver::None,
            Settings::JsonFile(options) => {
                let path = directory.join(format!("{}-json.log", info.id));
                let chosen = attributes::choose(options, info);
                Driver::JsonFile(Arc::new(JsonFile::new(path, options.clone(), &chosen)))
            }
        })
    }

    /// The file that is written, for `LogPath`; `None` when the driver has none.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Driver::None => None,
            Driver::JsonFile(file) => Some(file.path()),
        }
    }

    /// The container has started (or is found running): from here on followers stay.
    pub fn begin(&self) -> Result<()> {
        match &self.0 {
            Driver::None => Ok(()),
            Driver::JsonFile(file) => file.begin(),
        }
    }

    /// Takes a chunk as it was read from the container; lines may be cut anywhere. Costs one `write` into the page cache.
    ///
    /// After an error the log goes on with the next chunk; the complete lines of this one are lost.
    pub fn write(&self, stream: StreamKind, chunk: &[u8]) -> Result<()> {
        match &self.0 {
            Driver::None => Ok(()),
            Driver::JsonFile(file) => file.write(stream, chunk),
        }
    }

    /// Both outputs have ended (or this process is about to): writes unfinished lines, lets followers end.
    pub fn end(&self) -> Result<()> {
        match &self.0 {
            Driver::None => Ok(()),
            Driver::JsonFile(file) => file.end(),
        }
    }

    /// Reads, oldest first, in batches. An error before anything was read is returned; a later one ends the stream.
    pub fn read(&self, options: ReadOptions) -> Result<Batches> {
        match &self.0 {
            Driver::None => Err(Error::ReadingNotSupported),
            Driver::JsonFile(file) => read::read(Arc::clone(file), options),
        }
    }

    /// Bytes on disk, rotated files included.
    pub fn disk_bytes(&self) -> u64 {
        match &self.0 {
            Driver::None => 0,
            Driver::JsonFile(file) => file.disk_bytes(),
        }
    }
}
