//! What a container changed against its image (`docker diff`), read off its writable layer.
//!
//! A directory counts as changed when something in it did, or when its mode or owner did; a file when its size, time,
//! mode, owner or capabilities did. A removed directory is told once, not with all that was in it.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use archive::Root;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::overlay::View;
use crate::{Error, Images, Result};

/// What happened to a path. The numbers are those of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChangeKind {
    /// Changed.
    Modified = 0,
    /// New.
    Added = 1,
    /// Removed.
    Deleted = 2,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened to it.
    pub kind: ChangeKind,
    /// Absolute, as the container sees it.
    pub path: String,
}

impl Images {
    /// What a container changed, sorted by path.
    pub fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let driver = self.graph_driver(container)?;
        let view = View::new(&self.shared.overlay, &driver.lower)?;
        let mut walk = Walk {
            upper: Root::open(&driver.upper)?,
            upper_path: driver.upper,
            lower_path: view.path().to_owned(),
            lower: Root::open(view.path())?,
            changes: Vec::new(),
        };
        walk.directory(&PathBuf::new(), true)?;
        walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(walk.changes)
    }
}

struct Walk {
    upper: Root,
    upper_path: PathBuf,
    lower: Root,
    lower_path: PathBuf,
    changes: Vec<Change>,
}

impl Walk {
    /// Looks at the directory `path` of the writable layer. `below`: the image has a directory there too.
    fn directory(&mut self, path: &Path, below: bool) -> Result<()> {
        let names = names(&self.upper, path)?;
        if below && self.is_opaque(path) {
            for name in self::names(&self.lower, path)? {
                if !names.contains(&name) {
                    self.push(ChangeKind::Deleted, &path.join(name));
                }
            }
        }
        for name in names {
            let path = path.join(name);
            let Some(new) = lookup(&self.upper, &path)? else { continue };
            let old = if below { lookup(&self.lower, &path)? } else { None };
            if is_whiteout(&new) {
                if old.is_some() {
                    self.push(ChangeKind::Deleted, &path);
                }
                continue;
            }
            let before = self.changes.len();
            if is_dir(&new) {
                self.directory(&path, old.as_ref().is_some_and(is_dir))?;
            }
            match old {
                None => self.push(ChangeKind::Added, &path),
                Some(old) if self.differ(&path, &old, &new) || self.changes.len() > before => {
                    self.push(ChangeKind::Modified, &path);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn differ(&self, path: &Path, old: &Stat, new: &Stat) -> bool {
        let attributes = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
        let content = |s: &Stat| (s.st_size, s.st_mtime, s.st_mtime_nsec);
        attributes(old) != attributes(new)
            || (!is_dir(new) && content(old) != content(new))
            || self.capability(&self.lower_path, path) != self.capability(&self.upper_path, path)
    }

    fn capability(&self, tree: &Path, path: &Path) -> Option<Vec<u8>> {
        xattr::get(tree.join(path), "security.capability").ok().flatten()
    }

    fn is_opaque(&self, path: &Path) -> bool {
        let marker = xattr::get(self.upper_path.join(path), "trusted.overlay.opaque");
        marker.ok().flatten().is_some_and(|value| value == b"y")
    }

    fn push(&mut self, kind: ChangeKind, path: &Path) {
        self.changes.push(Change { kind, path: format!("/{}", path.display()) });
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn lookup(root: &Root, path: &Path) -> Result<Option<Stat>> {
    let what = || format!("look at {}", path.display());
    let parent = path.parent().map_or(&b""[..], |parent| parent.as_os_str().as_bytes());
    let Some(name) = path.file_name() else { return Ok(None) };
    let dir = match root.open_path(parent, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(Error::io(what())(errno)),
    };
    match rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io(what())(errno)),
    }
}

fn names(root: &Root, path: &Path) -> Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStringExt;
    let what = || format!("read {}", path.display());
    let dir = match root.open_path(path.as_os_str().as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(errno) => return Err(Error::io(what())(errno)),
    };
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&dir).map_err(Error::io(what()))? {
        let entry = entry.map_err(Error::io(what()))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}
