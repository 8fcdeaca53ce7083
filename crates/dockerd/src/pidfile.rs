//! The pid file: one dockerd per file, and none that a dead one has left in the way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A written pid file; removed when dropped.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes our pid, unless a dockerd lives whose pid is in it.
    pub fn write(path: &Path) -> anyhow::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).context("failed to create pidfile directory")?;
        }
        if let Some(pid) = read(path)?
            && pid != std::process::id()
            && is_same_program(pid)
        {
            bail!(
                "failed to start daemon, ensure docker is not running or delete {}: process with PID {pid} is still running",
                path.display()
            );
        }
        fs::write(path, std::process::id().to_string()).with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Not somebody else's who took over.
        if matches!(read(&self.0), Ok(Some(pid)) if pid == std::process::id()) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// The pid in a file; `None` when there is no such file, or no number in it.
pub fn read(path: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a process with this pid lives and runs a program of our name: pids are given out again.
fn is_same_program(pid: u32) -> bool {
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm"));
    matches!((name(&pid.to_string()), name("self")), (Ok(other), Ok(ours)) if other == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_twin_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/dockerd.pid");
        let ours = PidFile::write(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Some(std::process::id()));
        drop(ours);
        assert!(!path.exists());
        for stale in ["garbage", "1", "4194303"] {
            fs::write(&path, stale).unwrap();
            assert!(PidFile::write(&path).is_ok(), "{stale}");
        }
        // A copy of this program under the same name, living.
        let twin = dir.path().join(std::env::current_exe().unwrap().file_name().unwrap());
        fs::copy("/bin/sleep", &twin).unwrap();
        let mut child = std::process::Command::new(&twin).arg("60").spawn().unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        let named = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            fs::read_to_string(&comm).unwrap() == fs::read_to_string("/proc/self/comm").unwrap()
        });
        fs::write(&path, child.id().to_string()).unwrap();
        let refused = PidFile::write(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        // The test's thread has another name than its process in some runners: then there is no twin to make.
        if named {
            assert!(
                refused.unwrap_err().to_string().contains(&format!("process with PID {} is still running", child.id()))
            );
        }
    }
}
