//! A directory that paths are resolved in and cannot leave.
//!
//! The kernel does the resolving (`openat2` with `RESOLVE_IN_ROOT`): links, absolute ones and `..` in them included, end
//! inside the root even while somebody else renames things in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::{Error, Result};

/// How often a resolution that raced with a rename is tried.
const RACE_TRIES: usize = 64;

/// A directory that paths are resolved in and cannot leave.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens the directory `path` (links in `path` itself are followed: it is the engine's own).
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io(format!("open {}", path.display())))?;
        Ok(Self { fd })
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The directory itself.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens `path`, relative to the root whether it begins with `/` or not, following links inside the root.
    pub fn open_path(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens `path` without following any link.
    pub(crate) fn open_strict(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        self.resolve(path, flags, resolve)
    }

    fn resolve(&self, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RACE_TRIES => tries += 1,
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Opens the directory `path`, making what is missing of it with mode 0755, owned by root.
    pub fn ensure_dir(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let what = || format!("open directory {:?}", String::from_utf8_lossy(path));
        match self.open_path(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(Error::io(what())),
        }
        let mut dir = self.open_path(b".", flags).map_err(Error::io(what()))?;
        let mut done = Vec::new();
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if !done.is_empty() {
                done.push(b'/');
            }
            done.extend_from_slice(name);
            dir = match self.open_path(&done, flags) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(Error::io(what())(errno)),
                    }
                    self.open_path(&done, flags).map_err(Error::io(what()))?
                }
                other => other.map_err(Error::io(what()))?,
            };
        }
        Ok(dir)
    }
}

/// What is called `name` in `dir`, or `None`.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io(format!("stat {:?}", String::from_utf8_lossy(name)))(errno)),
    }
}

/// Removes `name` in `dir` with everything below it; never what a link points to.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let what = || format!("remove {:?}", String::from_utf8_lossy(name));
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(Error::io(what())(errno)),
    }
    use std::os::unix::ffi::OsStringExt;
    let path = std::ffi::OsString::from_vec(crate::xattrs::path_below(dir, name));
    std::fs::remove_dir_all(path).map_err(|source| Error::Io { what: what(), source })
}

/// The names in the directory `dir`, sorted, without `.` and `..`.
pub(crate) fn names_in(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
