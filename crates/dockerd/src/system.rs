//! What the process needs of the system before it does anything: root, directories, limits, and that it is alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, Mode};
use rustix::process::{Resource, Rlimit};

/// Refuses to run as somebody who could not do anything.
pub fn require_root() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("dockerd needs to be started with root privileges");
    }
    Ok(())
}

/// Files are made with the mode that they are asked for with, less what only their owner should have.
pub fn set_umask() {
    rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// Makes a directory and what is above it; the directory itself gets the mode when it is new.
pub fn make_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("mkdir {}", path.display()))
}

/// Locks the data root for this process: two daemons on one would destroy it. Held until the file is dropped.
pub fn lock(data_root: &Path) -> anyhow::Result<File> {
    let path = data_root.join("dockerd.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("failed to start daemon: another dockerd uses the data root {}", data_root.display())
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// As many open files as the system lets us have: every container costs some.
pub fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_per_data_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/data");
        make_directory(&root, 0o710).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o710);
        let lock_of_one = lock(&root).unwrap();
        assert!(lock(&root).unwrap_err().to_string().contains("another dockerd uses the data root"));
        drop(lock_of_one);
        lock(&root).unwrap();
    }
}
