//! What is remembered of a container between two calls: `<root>/<id>/`.
//!
//! ```text
//! <root>/<id>/state.json    who it is: pid and start time of its first process, bundle, cgroup path, stdio
//! <root>/<id>/config.json   the configuration it was started with, made to fit the host
//! <root>/<id>/exec.fifo     there as long as the container is created and not started
//! ```
//!
//! The status is never stored: it follows from the process (pid *and* start time, so that a reused pid is not taken for
//! the container), the FIFO and the freezer. Files are written to a temporary name and renamed; they are not fsynced,
//! because a reboot ends the container as well.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::error::{Doing, Error, Result};

/// Where the first process of a created container waits.
pub const EXEC_FIFO: &str = "exec.fifo";
const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
/// How the names of directories begin that are being removed; the remover's pid and the id follow.
const GONE: &str = ".gone-";

/// The state of a container, as the OCI specification and runc name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Its first process waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Version of the OCI specification of the configuration.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Host pid of its first process; 0 while there is none.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot, so that a reused pid is noticed.
    pub start_ticks: u64,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// Its place in every cgroup hierarchy.
    pub cgroup_path: PathBuf,
    /// The user who made it.
    pub owner: String,
    /// Whether its first process has a terminal.
    pub terminal: bool,
    /// Where descriptors 0 to 2 of the first process pointed when it was started or restored: `pipe:[123]`, a path.
    /// A restore gives the new pipes under the old names.
    pub descriptors: Vec<String>,
    /// Annotations of the configuration.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    /// An empty directory that covers the masked directories, when they are binds of it.
    #[serde(default)]
    pub mask_directory: Option<PathBuf>,
}

/// A container on disk.
#[derive(Debug, Clone)]
pub struct Container {
    /// `<root>/<id>`.
    pub dir: PathBuf,
    /// Its `state.json`.
    pub record: Record,
}

/// Checks an id as runc does, and refuses those that could leave the directory or hide in it.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > 255 || id == "." || id == ".." || id.starts_with(GONE) || !id.chars().all(allowed) {
        return Err(Error::InvalidId(id.to_owned()));
    }
    Ok(())
}

impl Container {
    /// Makes the directory of a new container.
    pub fn make(root: &Path, record: Record, spec: &Spec) -> Result<Self> {
        let dir = root.join(&record.id);
        // Root of a user namespace goes through both directories; nobody else may see who is in them.
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(root);
        made.doing(|| format!("create {}", root.display()))?;
        match rustix::fs::mkdir(&dir, rustix::fs::Mode::from_raw_mode(0o711)) {
            Ok(()) => (),
            Err(rustix::io::Errno::EXIST) => return Err(Error::ContainerExists),
            Err(errno) => {
                return Err(Error::Io { what: format!("create {}", dir.display()), source: errno.into() });
            }
        }
        let container = Container { dir, record };
        let config = serde_json::to_vec(spec).doing(|| "encode the configuration".into())?;
        let written = write_secret(&container.dir.join(CONFIG), &config).and_then(|()| container.save());
        if let Err(err) = written {
            let _ = remove_directory(&container.dir);
            return Err(err);
        }
        Ok(container)
    }

    /// The directory of all containers.
    pub fn root(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new("/"))
    }

    /// Opens a container by id.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let dir = root.join(id);
        let path = dir.join(STATE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(Error::NoContainer),
            Err(source) => return Err(Error::Io { what: format!("read {}", path.display()), source }),
        };
        let record = serde_json::from_slice(&text).doing(|| format!("parse {}", path.display()))?;
        Ok(Container { dir, record })
    }

    /// All containers below `root`; what cannot be read is reported and left out.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::Io { what: format!("read {}", root.display()), source }),
        };
        let mut containers = Vec::new();
        for entry in entries {
            let entry = entry.doing(|| format!("read {}", root.display()))?;
            // Files beside the containers' directories are none of them (CRIU's cache is one).
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let Some(id) = entry.file_name().to_str().map(str::to_owned) else { continue };
            // What is kept for all of them.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match Container::open(root, &id) {
                Ok(container) => containers.push(container),
                Err(Error::NoContainer | Error::InvalidId(_)) => (),
                Err(err) => tracing::error!("load container {id}: {err}"),
            }
        }
        containers.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(containers)
    }

    /// Writes `state.json`.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record).doing(|| "encode the state".into())?;
        write_secret(&self.dir.join(STATE), &text)
    }

    /// The configuration it was started with.
    pub fn spec(&self) -> Result<Spec> {
        let path = self.dir.join(CONFIG);
        let text = fs::read(&path).doing(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).doing(|| format!("parse {}", path.display()))
    }

    /// Its cgroups.
    pub fn cgroups(&self) -> Result<Cgroups> {
        Cgroups::at(&self.record.cgroup_path)
    }

    /// Whether its first process is there and has not ended.
    pub fn is_alive(&self) -> bool {
        is_alive(self.record.pid, self.record.start_ticks)
    }

    /// What it is doing now.
    pub fn status(&self) -> Result<Status> {
        if self.record.pid == 0 {
            return Ok(Status::Creating);
        }
        if !self.is_alive() {
            return Ok(Status::Stopped);
        }
        if self.dir.join(EXEC_FIFO).exists() {
            return Ok(Status::Created);
        }
        Ok(if self.cgroups()?.is_frozen()? { Status::Paused } else { Status::Running })
    }

    /// Notes a new first process.
    pub fn set_process(&mut self, pid: i32) -> Result<()> {
        self.record.pid = pid;
        self.record.start_ticks =
            process_stat(pid).doing(|| format!("read the start time of process {pid}"))?.start_ticks;
        Ok(())
    }

    /// Notes where descriptors 0 to 2 of its first process point.
    pub fn note_descriptors(&mut self) -> Result<()> {
        self.record.descriptors = (0..3)
            .map(|fd| {
                let path = format!("/proc/{}/fd/{fd}", self.record.pid);
                match fs::read_link(&path) {
                    Ok(target) => Ok(target.to_string_lossy().into_owned()),
                    Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                    Err(source) => Err(Error::Io { what: format!("read {path}"), source }),
                }
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Removes its directory. Its id is free at once, or not at all: whoever is killed meanwhile leaves a directory that is
    /// nobody's, for the next one to remove.
    pub fn forget(&self) -> Result<()> {
        let doing = || format!("remove {}", self.dir.display());
        let gone = self.root().join(format!("{GONE}{}-{}", std::process::id(), self.record.id));
        match fs::rename(&self.dir, &gone) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.doing(doing)?,
        }
        if let Err(err) = remove_directory(&gone) {
            fs::rename(&gone, &self.dir).doing(doing)?;
            return Err(err);
        }
        sweep(self.root());
        Ok(())
    }
}

/// Removes what those have left who were killed while they removed a container.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(GONE)?.split_once('-')?.0.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = remove_directory(&entry.path());
        }
    }
}

/// Removes a container's directory: the files in it, and directories that are empty. Never goes further down, because
/// a root file system may be mounted there while a restore is under way.
pub fn remove_directory(dir: &Path) -> Result<()> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(dir)
    };
    match remove() {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { what: format!("remove {}", dir.display()), source: err })
        }
        _ => Ok(()),
    }
}

/// Writes a file whole: temporary name, then rename.
pub fn write_file(path: &Path, text: &[u8]) -> Result<()> {
    write_whole(path, text, 0o666)
}

/// The same for what only its owner may read: there are passwords in environments.
fn write_secret(path: &Path, text: &[u8]) -> Result<()> {
    write_whole(path, text, 0o600)
}

fn write_whole(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(text)?;
        fs::rename(&temporary, path)
    };
    write().doing(|| format!("write {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// The fields of `/proc/<pid>/stat` that are needed here (`man 5 proc_pid_stat`).
#[derive(Debug, Clone, Copy)]
pub struct ProcessStat {
    /// One letter, `R`, `S`, `Z`, …
    pub state: char,
    /// The parent.
    pub parent: i32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
}

/// Reads `/proc/<pid>/stat`.
pub fn process_stat(pid: i32) -> io::Result<ProcessStat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(crate) fn parse_stat(text: &str) -> Option<ProcessStat> {
    // The name is in parentheses and may hold anything, parentheses included.
    let rest = text.get(text.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(ProcessStat { state, parent, start_ticks })
}

/// Whether the process that started then is there and is not a zombie.
pub fn is_alive(pid: i32, start_ticks: u64) -> bool {
    pid > 0
        && process_stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && !matches!(stat.state, 'Z' | 'X' | 'x'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_hostile_name() {
        let stat = parse_stat("7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 1 0 4711 1000 10 0\n").unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 1, 4711));
    }

    #[test]
    fn own_process_is_alive_and_a_reused_pid_is_not() {
        let pid = std::process::id() as i32;
        let ticks = process_stat(pid).unwrap().start_ticks;
        assert!(is_alive(pid, ticks));
        assert!(!is_alive(pid, ticks + 1));
    }

    #[test]
    fn removal_never_descends() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("c");
        fs::create_dir_all(dir.join("criu-root/bin")).unwrap();
        fs::write(dir.join("state.json"), "{}").unwrap();
        assert!(remove_directory(&dir).is_err());
        assert!(dir.join("criu-root/bin").is_dir());
        fs::remove_dir(dir.join("criu-root/bin")).unwrap();
        remove_directory(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn an_id_is_free_when_its_remover_was_killed_and_the_next_one_clears_up() {
        let root = tempfile::tempdir().unwrap();
        let spec = Spec::default();
        let record: Record = serde_json::from_value(serde_json::json!({
            "oci_version": "1.0.2", "id": "c", "pid": 0, "start_ticks": 0, "created": "", "bundle": "/", "rootfs": "/",
            "cgroup_path": "/c", "owner": "root", "terminal": false, "descriptors": []
        }))
        .unwrap();
        // No process has this number.
        let left = root.path().join(".gone-4194305-c");
        let ours = root.path().join(".gone-1-c");
        for dir in [&left, &ours] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join(STATE), "").unwrap();
        }
        let container = Container::make(root.path(), record, &spec).unwrap();
        assert_eq!(Container::all(root.path()).unwrap().len(), 1);
        fs::create_dir_all(container.dir.join("criu-root/busy")).unwrap();
        assert!(container.forget().is_err());
        assert!(container.dir.exists(), "it is still there when it cannot be removed");
        fs::remove_dir_all(container.dir.join("criu-root")).unwrap();
        container.forget().unwrap();
        assert!(!left.exists() && ours.exists() && !container.dir.exists());
        container.forget().unwrap();
    }

    #[test]
    fn ids_stay_inside_the_root() {
        for bad in ["", ".", "..", ".gone-1-a", "a/b", "../x", "a b", "ä"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        for good in ["a", "web_1", "a.b", "0123abc", "a+b-c"] {
            check_id(good).unwrap();
        }
    }
}
