//! The state directory: what a docker-containerd that is started again needs to know of what was running.
//!
//! ```text
//! <state-dir>/events.log
//! <state-dir>/<id>/state.json  shim.sock  shim-log.json  checkpoint.json (while one is made)
//! <state-dir>/<id>/.bundle/    config.json for the runtime, when the bundle's is of the rc2 generation
//! <state-dir>/<id>/<pid>/      pid = init or the exec's id
//!     process.json  pid  starttime  exitStatus  log.json  announced
//! <state-dir>/.gone-<id>-<n>/  a container that has ended and whose exit is being announced
//! ```
//!
//! Every file is written to a temporary name and renamed. Nothing is fsynced: after a power failure no container runs.

mod records;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use records::{ContainerRecord, ProcessRecord};

use crate::error::{Error, Result};
use crate::process::HostProcess;

/// The name of a container's first process.
pub const INIT: &str = "init";
const GONE_PREFIX: &str = ".gone-";
/// Not the name of any process.
const BUNDLE: &str = ".bundle";
/// process.json holds arguments and environment; the kernel's own limit for both is 2 MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// One container's directory.
#[derive(Debug, Clone)]
pub struct ContainerDir(PathBuf);

/// One process's directory.
#[derive(Debug, Clone)]
pub struct ProcessDir(PathBuf);

/// The whole state directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

/// What was found in the state directory.
#[derive(Debug)]
pub enum Found {
    /// A container by its id.
    Container(String, ContainerDir),
    /// A container that had ended, by its id.
    Gone(String, ContainerDir),
}

impl StateDir {
    /// Opens the state directory, and makes it if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<StateDir> {
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::path("mkdir", path))?;
        let path = path.canonicalize().map_err(Error::path("stat", path))?;
        Ok(StateDir(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of the container `id`, whether it exists or not.
    pub fn container(&self, id: &str) -> ContainerDir {
        ContainerDir(self.0.join(id))
    }

    /// Every container that left something here.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(Error::path("open", &self.0))?.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            let dir = ContainerDir(entry.path());
            match name.strip_prefix(GONE_PREFIX).and_then(|rest| rest.rsplit_once('-')) {
                Some((id, _)) => found.push(Found::Gone(id.to_owned(), dir)),
                None if crate::names::container_id(&self.0, &name).is_ok() => {
                    found.push(Found::Container(name, dir));
                }
                None => {}
            }
        }
        Ok(found)
    }
}

impl ContainerDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of the process `pid`, whether it exists or not.
    pub fn process(&self, pid: &str) -> ProcessDir {
        ProcessDir(self.0.join(pid))
    }

    /// Makes the directory and its record.
    ///
    /// # Errors
    /// When the directory exists or cannot be made.
    pub fn create(&self, record: &ContainerRecord) -> Result<()> {
        make_dir(&self.0)?;
        write_json(&self.0.join("state.json"), record)
    }

    /// How the container was asked for.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn record(&self) -> Result<ContainerRecord> {
        read_json(&self.0.join("state.json"))
    }

    /// The names of its processes.
    pub fn processes(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| crate::names::process_id(name).is_ok())
            .collect()
    }

    /// Moves the directory out of the way, so that the id is free again while nothing is forgotten yet.
    ///
    /// # Errors
    /// When the rename failed.
    pub fn retire(&self, created: DateTime<Utc>) -> Result<ContainerDir> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let unique = created.timestamp_nanos_opt().unwrap_or_default();
        let retired = self.0.with_file_name(format!("{GONE_PREFIX}{name}-{unique}"));
        fs::rename(&self.0, &retired).map_err(Error::path("rename", &self.0))?;
        Ok(ContainerDir(retired))
    }

    /// Removes the directory; that it does not exist is fine.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.0)
    }

    /// Makes a bundle of our own, for a runtime that cannot read the container's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create_bundle(&self, config: &[u8]) -> Result<()> {
        let path = self.0.join(BUNDLE);
        make_dir(&path)?;
        write(&path.join("config.json"), config)
    }

    /// The bundle for the runtime: ours, or the container's.
    pub fn runtime_bundle(&self, bundle: &Path) -> PathBuf {
        let ours = self.0.join(BUNDLE);
        if ours.is_dir() { ours } else { bundle.to_path_buf() }
    }

    /// Where a checkpoint is noted for as long as it is being made.
    pub fn checkpoint_note(&self) -> PathBuf {
        self.0.join("checkpoint.json")
    }
}

impl ProcessDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory and its record.
    ///
    /// # Errors
    /// When the directory exists or cannot be made.
    pub fn create(&self, record: &ProcessRecord) -> Result<()> {
        make_dir(&self.0)?;
        write_json(&self.0.join("process.json"), record)
    }

    /// How the process was asked for.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn record(&self) -> Result<ProcessRecord> {
        read_json(&self.0.join("process.json"))
    }

    /// Notes when the process that has this pid started.
    ///
    /// # Errors
    /// When the process is gone or the file cannot be written.
    pub fn note_process(&self, pid: i32) -> Result<HostProcess> {
        let process = HostProcess::of(pid)?;
        write(&self.0.join("starttime"), process.start_time.to_string().as_bytes())?;
        Ok(process)
    }

    /// The process on the host, if the runtime had made it. Without a noted start time, whoever has the pid now.
    pub fn host_process(&self) -> Option<HostProcess> {
        let pid = fs::read_to_string(self.0.join("pid")).ok()?.trim().parse().ok().filter(|pid| *pid > 0)?;
        match fs::read_to_string(self.0.join("starttime")) {
            Ok(text) => Some(HostProcess { pid, start_time: text.trim().parse().ok()? }),
            Err(_) => HostProcess::of(pid).ok(),
        }
    }

    /// The exit status that the shim has written; 255 when what it wrote cannot be read.
    pub fn exit_status(&self) -> Option<u32> {
        let text = fs::read(self.0.join("exitStatus")).ok()?;
        let status = std::str::from_utf8(&text).ok().and_then(|t| t.trim().parse().ok()).filter(|s| *s <= 255);
        Some(status.unwrap_or(255))
    }

    /// Writes the exit status in the place of a shim that could not.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_exit_status(&self, status: u32) -> Result<()> {
        write(&self.0.join("exitStatus"), status.to_string().as_bytes())
    }

    /// Notes that the start of this process was announced.
    pub fn mark_announced(&self) {
        // The journal says so as well; this only outlives the journal's being cut.
        if let Err(error) = fs::write(self.0.join("announced"), b"") {
            tracing::warn!(%error, dir = %self.0.display(), "cannot note that a process was announced");
        }
    }

    /// Whether [`ProcessDir::mark_announced`] was called.
    pub fn is_announced(&self) -> bool {
        self.0.join("announced").exists()
    }

    /// Moves the directory out of the way, so that its name is free again.
    ///
    /// # Errors
    /// When the rename failed.
    pub fn retire(&self) -> Result<ProcessDir> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let unique = Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let retired = self.0.with_file_name(format!("{GONE_PREFIX}{name}-{unique}"));
        fs::rename(&self.0, &retired).map_err(Error::path("rename", &self.0))?;
        Ok(ProcessDir(retired))
    }

    /// Removes the directory; that it does not exist is fine.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.0)
    }
}

/// The retired processes of a container: name and directory.
pub fn retired_processes(container: &ContainerDir) -> Vec<(String, ProcessDir)> {
    let Ok(entries) = fs::read_dir(container.path()) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (process, _) = name.strip_prefix(GONE_PREFIX)?.rsplit_once('-')?;
            Some((process.to_owned(), ProcessDir(entry.path())))
        })
        .collect()
}

fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::path("mkdir", path))
}

/// Removes a directory and everything below it; that it does not exist is fine.
///
/// # Errors
/// When something could not be removed.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::path("remove", path)),
    }
}

/// Writes a file whole or not at all.
///
/// # Errors
/// When it could not be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    fs::write(&temporary, bytes).map_err(Error::path("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::path("rename", path))
}

/// Writes a value as JSON, whole or not at all.
///
/// # Errors
/// When it could not be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes =
        serde_json::to_vec(value).map_err(|e| Error::Path { op: "encode", path: path.into(), source: e.into() })?;
    write(path, &bytes)
}

/// Reads a value from JSON.
///
/// # Errors
/// When the file cannot be read or is not of this shape.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let bytes = crate::bundle::read_bounded(path, MAX_FILE_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::BadBundle { path: path.to_path_buf(), why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_exit_status_is_255() {
        let dir = tempfile::tempdir().unwrap();
        let process = ProcessDir(dir.path().to_path_buf());
        assert_eq!(process.exit_status(), None);
        for (text, status) in [("0", 0), ("137\n", 137), ("%!u(uint32=255)", 255), ("", 255), ("-1", 255), ("999", 255)]
        {
            fs::write(dir.path().join("exitStatus"), text).unwrap();
            assert_eq!(process.exit_status(), Some(status), "{text}");
        }
    }

    #[test]
    fn retired_containers_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for id in ["a", "b-c"] {
            fs::create_dir(state.container(id).path()).unwrap();
        }
        fs::write(dir.path().join("events.log"), "").unwrap();
        state.container("b-c").retire(Utc::now()).unwrap();
        let mut found: Vec<_> = state
            .list()
            .unwrap()
            .into_iter()
            .map(|f| match f {
                Found::Container(id, _) => (id, false),
                Found::Gone(id, _) => (id, true),
            })
            .collect();
        found.sort();
        assert_eq!(found, [("a".to_owned(), false), ("b-c".to_owned(), true)]);
    }
}
