//! Control groups that a killed runtime has left behind: made already, and noted nowhere yet.
//!
//! Only called for a container that is being removed, after its runtime has removed what it knows of.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use tracing::warn;

use super::{Mounts, collect_pids};
use crate::process::HostProcess;

/// How often, and how far apart, a group is tried to be removed.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Removes the groups of container `id`, whose configuration names them `cgroups_path`. Blocks.
pub fn remove_leftover(id: &str, cgroups_path: Option<&Path>) {
    let Ok(mounts) = Mounts::read() else { return };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for dir in mounts.directories(&own, cgroups_path.unwrap_or(Path::new(id))) {
        // A path that does not speak of this container may be others', too: only what is empty goes.
        let is_its_own = dir.file_name().is_some_and(|name| name.to_string_lossy().contains(id));
        if is_its_own {
            remove_with_processes(&dir);
        } else if dir.is_dir() {
            remove(&dir);
        }
    }
}

/// A group is in use for a moment longer than its processes are to be seen.
fn remove_with_processes(dir: &Path) {
    for _ in 0..ATTEMPTS {
        if !dir.is_dir() {
            return;
        }
        kill(dir);
        remove(dir);
        if dir.is_dir() {
            sleep(PAUSE);
        }
    }
    warn!(dir = %dir.display(), "a control group does not become empty");
}

fn kill(dir: &Path) {
    let mut pids = Vec::new();
    if collect_pids(dir, &mut pids, 0).is_err() || pids.is_empty() {
        return;
    }
    // A frozen process does not die (v1).
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    for pid in pids.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
        let _ = HostProcess::of(pid).and_then(|process| process.signal(Signal::KILL));
    }
}

fn remove(dir: &Path) {
    let nested = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in nested.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    // Others may be in it.
    let _ = fs::remove_dir(dir);
}

impl Mounts {
    /// Where a runtime started by a process in the groups `own` (lines of `/proc/<pid>/cgroup`) puts a container whose
    /// configuration says `path`.
    fn directories(&self, own: &str, path: &Path) -> Vec<PathBuf> {
        // systemd's notation.
        if path.to_string_lossy().contains(':') {
            return Vec::new();
        }
        let lines = own.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
            Some((controllers, Path::new(group).join(path)))
        });
        let mut found = Vec::new();
        for (controllers, group) in lines {
            let mount = match controllers {
                "" => self.v2.as_ref(),
                several => several.split(',').find_map(|controller| self.v1.get(controller)),
            };
            found.extend(mount.and_then(|mount| mount.resolve(&group.to_string_lossy())));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_absolute_and_relative_paths() {
        let mounts = Mounts::parse(
            "27 25 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             29 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let own = "3:memory:/me\n2:pids:/me\n0::/me2\n";
        let paths = |path: &str| {
            let found = mounts.directories(own, Path::new(path));
            found.iter().map(|p| p.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(paths("/docker/x"), ["/sys/fs/cgroup/memory/docker/x", "/sys/fs/cgroup/unified/docker/x"]);
        assert_eq!(paths("x"), ["/sys/fs/cgroup/memory/me/x", "/sys/fs/cgroup/unified/me2/x"]);
        assert_eq!(paths("system.slice:docker:x"), Vec::<String>::new());
        assert_eq!(paths("/../x"), Vec::<String>::new());
        assert_eq!(paths("/"), Vec::<String>::new());
    }

    #[test]
    fn nested_directories_go_and_files_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("x/a/b")).unwrap();
        fs::create_dir_all(dir.path().join("y")).unwrap();
        fs::write(dir.path().join("y/file"), "").unwrap();
        remove(&dir.path().join("x"));
        remove(&dir.path().join("y"));
        assert!(!dir.path().join("x").exists());
        assert!(dir.path().join("y/file").exists());
    }
}
