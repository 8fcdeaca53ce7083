//! Paths of the container, while its root file system is still a directory of the host's.
//!
//! The kernel resolves each of them below the container's root, so that no link in an image leads to the host. What has
//! been found is used by descriptor.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Doing, Error, Result};

/// So many links to what is not there are followed for one path.
const MAX_DANGLING_LINKS: u32 = 16;

/// The container's root.
#[derive(Debug)]
pub struct Inside {
    root: archive::Root,
}

impl Inside {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self> {
        let root = archive::Root::open(path).map_err(|err| Error::Init(format!("{}: {err}", path.display())))?;
        Ok(Inside { root })
    }

    /// What lies at a path, opened as a place only; `None` when there is nothing.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.look(path) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => {
                Err(Error::Io { what: format!("open {} in the container", path.display()), source: errno.into() })
            }
        }
    }

    fn look(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.root.open_path(path.as_os_str().as_bytes(), OFlags::PATH)
    }

    /// A directory; what is missing of it is made.
    pub fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let mut dangling = MAX_DANGLING_LINKS;
        self.make(&normal(path), &mut dangling).doing(|| format!("make {} in the container", path.display()))
    }

    fn make(&self, path: &Path, dangling: &mut u32) -> rustix::io::Result<OwnedFd> {
        match self.look(path) {
            Err(Errno::NOENT) => (),
            other => return other,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT) };
        let parent = self.make(parent, dangling)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => (),
            Err(errno) => return Err(errno),
        }
        match self.look(path) {
            Err(Errno::NOENT) => (),
            other => return other,
        }
        // A link to what is not there: that is made.
        *dangling = dangling.checked_sub(1).ok_or(Errno::LOOP)?;
        let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
        let target = self.place(parent.as_fd())?.join(OsStr::from_bytes(target.as_bytes()));
        self.make(&normal(&target), dangling)
    }

    /// The directory that holds a path, made where it is missing, and the last name of it.
    pub fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| Error::Init(format!("{} has no name", path.display())))?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("/")))?, name))
    }

    /// A place to mount a file on: what lies there, or a new empty file.
    pub fn file(&self, path: &Path) -> Result<OwnedFd> {
        let doing = || format!("make {} in the container", path.display());
        let mut path = normal(path);
        for _ in 0..MAX_DANGLING_LINKS {
            if let Some(fd) = self.find(&path)? {
                return Ok(fd);
            }
            let (parent, name) = self.parent(&path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
                Ok(_) => continue,
                Err(Errno::EXIST) => (),
                Err(errno) => return Err(errno).doing(doing),
            }
            // A link to what is not there: that is made.
            let target = rustix::fs::readlinkat(&parent, name, Vec::new()).doing(doing)?;
            path = normal(&self.place(parent.as_fd()).doing(doing)?.join(OsStr::from_bytes(target.as_bytes())));
        }
        Err(Errno::LOOP).doing(doing)
    }

    /// Where in the container something lies that was found here.
    pub fn place(&self, found: BorrowedFd<'_>) -> rustix::io::Result<PathBuf> {
        let path = |fd: BorrowedFd<'_>| {
            let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
            Ok::<_, Errno>(PathBuf::from(OsStr::from_bytes(link.as_bytes())))
        };
        let found = path(found)?;
        let below = found.strip_prefix(path(self.root.as_fd())?).map_err(|_| Errno::XDEV)?;
        Ok(Path::new("/").join(below))
    }
}

/// Without `.`, and with `..` taken by the letter, as runc does.
pub fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => (),
        }
    }
    clean
}

/// A name for what a descriptor has open, for calls that take only names. Valid while the host's `/proc` is in sight.
pub fn name(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The place where a mount of the host lies that holds this path.
pub fn host_mount_of(path: &Path) -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".into())?;
    let unescape =
        |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let longest = points.filter(|point| path.starts_with(point)).max_by_key(|point| point.as_os_str().len());
    longest.ok_or_else(|| Error::Init(format!("{} lies on no mount", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere_but_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        symlink("/real", root.join("absolute")).unwrap();
        symlink("../../../../real", root.join("climbing")).unwrap();
        symlink("/not/yet", root.join("dangling")).unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let inside = Inside::open(&root).unwrap();
        for (path, found) in [
            ("/absolute/x/y", "/real/x/y"),
            ("climbing/z", "/real/z"),
            ("/dangling/w", "/not/yet/w"),
            ("/../../etc", "/etc"),
        ] {
            let fd = inside.directory(Path::new(path)).unwrap();
            assert_eq!(inside.place(fd.as_fd()).unwrap(), Path::new(found), "{path}");
            assert!(root.join(found.trim_start_matches('/')).is_dir(), "{path}");
        }
        assert!(inside.directory(Path::new("/a/x")).is_err());
        let file = inside.file(Path::new("/absolute/new/file")).unwrap();
        assert_eq!(inside.place(file.as_fd()).unwrap(), Path::new("/real/new/file"));
        symlink("absolute/later", root.join("trailing")).unwrap();
        let file = inside.file(Path::new("/trailing")).unwrap();
        assert_eq!(inside.place(file.as_fd()).unwrap(), Path::new("/real/later"));
        assert!(inside.find(Path::new("/nowhere")).unwrap().is_none());
    }
}
