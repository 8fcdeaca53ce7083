//! What `docker cp` needs: what is at a path of a container, and a tar of it.
//!
//! The last component of a path is not followed when it is a link, unless the path ends with `/` or `/.`; everything
//! before it is followed inside the container's root.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::pack::pack_root;
use crate::root::stat_at;
use crate::unpack::clean;
use crate::{Entry, EntryKind, Error, PackOptions, Result, Root, TarWriter, Timestamp, xattrs};

/// What is at a path, as the header of an archive answer tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path that was asked for.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `os.FileMode` bits.
    pub mode: u32,
    /// Last modification.
    pub mtime: Timestamp,
    /// Where a symbolic link points to; empty for all else.
    pub link_target: String,
}

struct Found {
    parent: OwnedFd,
    name: Vec<u8>,
    stat: rustix::fs::Stat,
    base: Vec<u8>,
}

/// Describes what is at `path` inside `root`.
pub fn stat_path(root: &Root, path: &str) -> Result<PathStat> {
    let found = find(root, path)?;
    let link_target = match FileType::from_raw_mode(found.stat.st_mode) {
        FileType::Symlink => rustix::fs::readlinkat(&found.parent, &found.name[..], Vec::new())
            .map_err(Error::io(format!("read link {path:?}")))?
            .to_string_lossy()
            .into_owned(),
        _ => String::new(),
    };
    Ok(PathStat {
        name: String::from_utf8_lossy(&found.base).into_owned(),
        size: found.stat.st_size,
        mode: go_file_mode(found.stat.st_mode),
        mtime: mtime(&found.stat),
        link_target,
    })
}

/// Writes a tar of what is at `path` inside `root`, named by the path's last component as Docker does: `foo` for
/// `/etc/foo`, `.` for `/etc/foo/.`, and no prefix but `/` for `/`.
pub fn copy_out<W: Write>(root: &Root, path: &str, out: W) -> Result<W> {
    let found = find(root, path)?;
    let mut tar = TarWriter::new(out);
    if FileType::from_raw_mode(found.stat.st_mode) == FileType::Directory {
        let dir = rustix::fs::openat(
            &found.parent,
            &found.name[..],
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            rustix::fs::Mode::empty(),
        )
        .map_err(Error::io(format!("open {path:?}")))?;
        let options = PackOptions { prefix: found.base, root_entry: true, ..PackOptions::default() };
        pack_root(&Root::from_fd(dir), &mut tar, &options)?;
        return tar.finish();
    }
    one(&mut tar, &found, path)?;
    tar.finish()
}

fn one<W: Write>(tar: &mut TarWriter<W>, found: &Found, path: &str) -> Result<()> {
    let kind = match FileType::from_raw_mode(found.stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Symlink => EntryKind::Symlink,
        FileType::CharacterDevice => EntryKind::CharDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Fifo => EntryKind::Fifo,
        _ => return Err(Error::Unsupported("a socket")),
    };
    let mut entry = Entry {
        uid: found.stat.st_uid,
        gid: found.stat.st_gid,
        mtime: Timestamp { nanoseconds: 0, ..mtime(&found.stat) },
        ..Entry::new(found.base.clone(), kind, found.stat.st_mode & 0o7777)
    };
    let attributes = xattrs::read_all(found.parent.as_fd(), &found.name, &mut Vec::new())?;
    entry.xattrs = attributes.into_iter().filter(|(key, _)| xattrs::carried(key, Default::default())).collect();
    match kind {
        EntryKind::File => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&found.parent, &found.name[..], flags, rustix::fs::Mode::empty())
                .map_err(Error::io(format!("open {path:?}")))?;
            let stat = rustix::fs::fstat(&file).map_err(Error::io(format!("stat {path:?}")))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(Error::NotFound(path.to_owned()));
            }
            entry.size = u64::try_from(stat.st_size).unwrap_or(0);
            tar.append_file(&entry, std::fs::File::from(file)).map(drop)
        }
        EntryKind::Symlink => {
            entry.link = rustix::fs::readlinkat(&found.parent, &found.name[..], Vec::new())
                .map_err(Error::io(format!("read link {path:?}")))?
                .into_bytes();
            tar.append(&entry)
        }
        EntryKind::CharDevice | EntryKind::BlockDevice => {
            entry.device = (rustix::fs::major(found.stat.st_rdev), rustix::fs::minor(found.stat.st_rdev));
            tar.append(&entry)
        }
        _ => tar.append(&entry),
    }
}

fn find(root: &Root, path: &str) -> Result<Found> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR => Error::NotFound(path.to_owned()),
        errno => Error::io(format!("find {path:?}"))(errno),
    };
    let bytes = path.as_bytes();
    if bytes.contains(&0) {
        return Err(Error::Invalid("a path with a NUL byte".into()));
    }
    let here = path.ends_with("/.") || path == "." || path.is_empty();
    // `..` is taken out by its letters, as Docker does, before links are looked at.
    let absolute = lexically_clean(bytes);
    let base = match absolute.iter().rposition(|&b| b == b'/') {
        _ if absolute.is_empty() => b"/".to_vec(),
        _ if here => b".".to_vec(),
        Some(slash) => absolute[slash + 1..].to_vec(),
        None => absolute.clone(),
    };
    let follow = here || path.ends_with('/') || absolute.is_empty();
    let (directory, name) = match crate::unpack::split(&absolute) {
        Some((parent, name)) if !follow => (parent.to_vec(), name.to_vec()),
        _ => (absolute, b".".to_vec()),
    };
    let parent = root.open_path(&directory, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
    let stat = stat_at(parent.as_fd(), &name)?.ok_or_else(|| Error::NotFound(path.to_owned()))?;
    Ok(Found { parent, name, stat, base })
}

/// The path without leading slash, `.`, empty components, and with `..` taking the component before it away.
fn lexically_clean(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    let joined = components.join(&b'/');
    debug_assert_eq!(clean(&joined).as_deref(), Some(&joined[..]));
    joined
}

fn mtime(stat: &rustix::fs::Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Unix mode bits in the order of Go's `os.FileMode`, which is what Docker's API speaks.
fn go_file_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let bit = |unix: u32, go: u32| if mode & unix != 0 { 1 << go } else { 0 };
    mode & 0o777 | kind | bit(0o4000, 23) | bit(0o2000, 22) | bit(0o1000, 20)
}
