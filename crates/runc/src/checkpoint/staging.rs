//! The image directory while it is being filled.
//!
//! A directory that holds nothing yet is filled where it is, and emptied again when the dump fails. One that holds a
//! checkpoint already (runc writes over it) is left alone until the new one is whole: that one is written beside it, and
//! the two change places in one step, while every task is still stopped.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::{DESCRIPTORS, OPTIONS, STATS, open_dir};
use crate::error::{Doing, Error, Result};

/// The image directory while it is being filled.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Was not there.
    Made,
    /// Was there, with these names in it.
    Found(HashSet<OsString>),
    /// Holds a checkpoint: the new one is written to `path`, which `fd` keeps locked.
    Beside { path: PathBuf, fd: OwnedFd },
}

impl Staging {
    /// Prepares to write a checkpoint to `image`.
    pub fn open(image: &Path) -> Result<Self> {
        let target = image.to_owned();
        if !image.exists() {
            make(image)?;
            return Ok(Staging { target, kind: Kind::Made });
        }
        let before = names(image);
        if !before.contains(OsStr::new("inventory.img")) {
            return Ok(Staging { target, kind: Kind::Found(before) });
        }
        if let Some(other) = before.iter().find(|name| !is_part_of_a_checkpoint(&image.join(name))) {
            return Err(Error::CannotCheckpoint(format!(
                "{} holds a checkpoint already, and {} beside it, so it cannot be replaced",
                image.display(),
                other.display()
            )));
        }
        let mut name = image.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let path = image.with_file_name(name);
        if !path.exists() {
            make(&path)?;
        }
        let fd = open_dir(&path)?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::CannotCheckpoint(format!("another checkpoint is being written to {}", path.display()))
        })?;
        // Left over by one that was killed.
        for name in names(&path) {
            let path = path.join(name);
            if !is_part_of_a_checkpoint(&path) {
                return Err(Error::CannotCheckpoint(format!("{} is in the way", path.display())));
            }
            fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
        }
        Ok(Staging { target, kind: Kind::Beside { path, fd } })
    }

    /// Where to write. It stays the way to what was written when the directories change places.
    pub fn dir(&self) -> PathBuf {
        match &self.kind {
            Kind::Made | Kind::Found(_) => self.target.clone(),
            Kind::Beside { fd, .. } => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
        }
    }

    /// Everything is written: puts it where it belongs.
    pub fn place(&self) -> Result<()> {
        match &self.kind {
            Kind::Beside { path, .. } => exchange(path, &self.target),
            _ => Ok(()),
        }
    }

    /// The dump has succeeded: what it has replaced goes.
    pub fn keep(self) {
        if let Kind::Beside { path, .. } = self.kind
            && let Err(err) = fs::remove_dir_all(&path)
        {
            tracing::warn!("remove {}: {err}", path.display());
        }
    }

    /// The dump has failed: everything is as before, except for the file `log`, which stays where it can.
    pub fn undo(self, log: &str) {
        match self.kind {
            Kind::Made => {
                let _ = fs::remove_dir_all(&self.target);
            }
            Kind::Found(before) => {
                for name in names(&self.target).difference(&before) {
                    let path = self.target.join(name);
                    if name != log && path.is_file() {
                        let _ = fs::remove_file(path);
                    }
                }
            }
            Kind::Beside { path, fd } => {
                // They may have changed places before it failed.
                let same = |dir: &Path| match (rustix::fs::stat(dir), rustix::fs::fstat(&fd)) {
                    (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
                    _ => false,
                };
                if same(&self.target)
                    && let Err(err) = exchange(&path, &self.target)
                {
                    tracing::error!("{err}");
                    return;
                }
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

fn make(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(|| format!("create {}", dir.display()))
}

fn exchange(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)
        .doing(|| format!("put {} in the place of {}", from.display(), to.display()))?;
    let parent = to.parent().unwrap_or(Path::new("/"));
    open_dir(parent).and_then(|dir| rustix::fs::fsync(&dir).doing(|| format!("sync {}", parent.display())))
}

/// Whether this is a file that a checkpoint consists of, so that a whole directory of them may be replaced.
fn is_part_of_a_checkpoint(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return false };
    let known = [".img", ".log", ".tar"].iter().any(|end| name.ends_with(end))
        || [DESCRIPTORS, OPTIONS, STATS, "stats-dump", "stats-restore", "parent", "lazy-pages.socket"].contains(&name);
    known && fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

fn names(dir: &Path) -> HashSet<OsString> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(dir: &Path, text: &str) {
        fs::write(dir.join("inventory.img"), text).unwrap();
        fs::write(dir.join("dump.log"), text).unwrap();
    }

    #[test]
    fn a_checkpoint_is_replaced_as_a_whole_or_stays() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("checkpoint");
        let first = Staging::open(&image).unwrap();
        filled(&first.dir(), "first");
        fs::write(first.dir().join("pages-1.img"), "first").unwrap();
        first.place().unwrap();
        first.keep();

        for placed in [false, true] {
            let failed = Staging::open(&image).unwrap();
            filled(&failed.dir(), "failed");
            if placed {
                failed.place().unwrap();
            }
            failed.undo("dump.log");
            assert_eq!(fs::read_to_string(image.join("inventory.img")).unwrap(), "first");
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        }

        let second = Staging::open(&image).unwrap();
        filled(&second.dir(), "second");
        assert_eq!(fs::read_to_string(image.join("inventory.img")).unwrap(), "first");
        assert!(Staging::open(&image).unwrap_err().to_string().contains("another checkpoint is being written"));
        second.place().unwrap();
        assert_eq!(fs::read_to_string(second.dir().join("inventory.img")).unwrap(), "second");
        second.keep();
        assert_eq!(fs::read_to_string(image.join("inventory.img")).unwrap(), "second");
        assert!(!image.join("pages-1.img").exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_one_left_is_cleared_away() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("checkpoint");
        for dir in [&image, &root.path().join("checkpoint.new")] {
            fs::create_dir(dir).unwrap();
            filled(dir, "old");
        }
        let staging = Staging::open(&image).unwrap();
        assert_eq!(fs::read_dir(staging.dir()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        filled(root.path(), "old");
        fs::write(root.path().join("config.json"), "{}").unwrap();
        let err = Staging::open(root.path()).unwrap_err().to_string();
        assert!(err.contains("config.json"), "{err}");
        fs::remove_file(root.path().join("config.json")).unwrap();
        fs::create_dir(root.path().join("x.img")).unwrap();
        assert!(Staging::open(root.path()).is_err());
    }

    #[test]
    fn a_failed_dump_empties_what_it_found_empty() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("mine"), "").unwrap();
        let staging = Staging::open(root.path()).unwrap();
        filled(&staging.dir(), "new");
        staging.undo("dump.log");
        assert_eq!(names(root.path()), HashSet::from([OsString::from("mine"), OsString::from("dump.log")]));
    }
}
