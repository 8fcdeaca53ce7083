//! Where a container's control groups are, and what is in them. Read only, except for the registration of OOM notices
//! and for what a killed runtime has left.
//!
//! The runtime made the groups; this finds them again through `/proc/<pid>/cgroup` and the mounts of this program, so it
//! needs no agreement with the runtime about paths, and works on v1, v2 and hybrid hosts.

mod leftover;
mod mounts;
pub mod oom;
mod stats;
mod stats_v1;
mod stats_v2;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use leftover::remove_leftover;
pub use mounts::Mounts;
pub use stats::stats;

/// The groups of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// v1 directories by controller (`memory`, `cpuacct`, …).
    pub v1: HashMap<String, PathBuf>,
    /// The v2 directory, when the container has a group of its own there.
    pub v2: Option<PathBuf>,
}

impl Cgroups {
    /// The groups that the process `pid` is in.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of_process(pid: i32, mounts: &Mounts) -> io::Result<Cgroups> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok(mounts.resolve(&text))
    }

    /// The directory whose processes are the container's: one hierarchy is enough, as all hold the same.
    fn processes_dir(&self) -> Option<&Path> {
        let preferred = ["devices", "pids", "memory", "freezer", "cpu"];
        let v1 = preferred.iter().find_map(|c| self.v1.get(*c)).or_else(|| self.v1.values().next());
        v1.or(self.v2.as_ref()).map(PathBuf::as_path)
    }

    /// Every process of the container, nested groups included, sorted.
    ///
    /// # Errors
    /// When the group cannot be read; one that is gone has no processes.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        if let Some(dir) = self.processes_dir() {
            collect_pids(dir, &mut pids, 0)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }
}

/// Nobody nests groups deeper, and a loop cannot be made of them; this only bounds the stack.
const MAX_DEPTH: u32 = 64;

fn collect_pids(dir: &Path, pids: &mut Vec<u32>, depth: u32) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Err(error) if gone(&error) => return Ok(()),
        other => other?,
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    if depth == MAX_DEPTH {
        return Ok(());
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if gone(&error) => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect_pids(&entry.path(), pids, depth + 1)?;
        }
    }
    Ok(())
}

/// ENOENT, or ENODEV from a group that was removed while its file was open.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_collected_from_nested_groups() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        fs::create_dir_all(&nested).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "30\n7\n").unwrap();
        fs::write(dir.path().join("a/cgroup.procs"), "").unwrap();
        fs::write(nested.join("cgroup.procs"), "8\n").unwrap();
        let groups = Cgroups { v1: HashMap::new(), v2: Some(dir.path().to_path_buf()) };
        assert_eq!(groups.pids().unwrap(), [7, 8, 30]);
        let missing = Cgroups { v1: HashMap::new(), v2: Some(dir.path().join("nope")) };
        assert_eq!(missing.pids().unwrap(), Vec::<u32>::new());
    }
}
