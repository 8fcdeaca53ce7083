//! A tar to a tree on disk.
//!
//! The archive may be hostile; the rules are on the crate's front page. The order for each entry: check its names, find
//! the parent directory inside the root, free the name, create, then owner, extended attributes (a change of owner drops
//! capabilities), mode (it drops set-id bits), time. Directories' times come last: creating things in them moves them.

use std::collections::HashSet;
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::pack::join;
use crate::root::{names_in, remove_at, stat_at};
use crate::xattrs::{self, OPAQUE};
use crate::{Entry, EntryKind, Error, Limits, Result, Root, TarReader, Timestamp, Whiteouts};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// How a tar is unpacked.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// What `.wh.` entries and overlay's attributes mean.
    pub whiteouts: Whiteouts,
    /// What the archive may cost.
    pub limits: Limits,
    /// Whether devices may be made. Off: they are refused.
    pub devices: bool,
    /// Refuse links that name an absolute path or climb out of the directory, although following them here would stay
    /// inside: for archives that have no business with such links.
    pub contained_links: bool,
    /// Set the archive's owners. Off: everything belongs to [`UnpackOptions::owner`].
    pub archive_owners: bool,
    /// The owner when the archive's are not used.
    pub owner: (u32, u32),
    /// Refuse to replace a directory by something else and the other way round.
    pub keep_types: bool,
    /// A directory below the root that the entries go to; it must exist.
    pub subdirectory: Vec<u8>,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            whiteouts: Whiteouts::None,
            limits: Limits::default(),
            devices: true,
            contained_links: false,
            archive_owners: true,
            owner: (0, 0),
            keep_types: false,
            subdirectory: Vec::new(),
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Entries.
    pub entries: u64,
    /// Bytes of content.
    pub content_bytes: u64,
}

/// Read at a time: what is behind `tar` may be a connection or a pipe, and small files come in small pieces.
const READ_BYTES: usize = 256 << 10;

/// Unpacks a plain (not compressed) tar in the directory `dir`, and reads `tar` to its end.
pub fn unpack(tar: impl Read, dir: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    unpack_in(tar, &Root::open(dir)?, options)
}

/// As [`unpack`], in a directory that is open already.
pub fn unpack_in(tar: impl Read, root: &Root, options: &UnpackOptions) -> Result<Unpacked> {
    let mut tar = TarReader::new(BufReader::with_capacity(READ_BYTES, tar), options.limits);
    let mut unpacker = Unpacker {
        root,
        options,
        parent: None,
        times: Vec::new(),
        made: HashSet::new(),
        done: Unpacked::default(),
        buffer: vec![0; 128 << 10],
    };
    while let Some(entry) = tar.next_entry()? {
        unpacker.entry(&entry, &mut tar)?;
        unpacker.done.entries += 1;
        unpacker.done.content_bytes += entry.size;
    }
    tar.drain()?;
    unpacker.directory_times()?;
    Ok(unpacker.done)
}

struct Unpacker<'a> {
    root: &'a Root,
    options: &'a UnpackOptions,
    /// The directory the last entry went to: most archives stay in one for a while.
    parent: Option<(Vec<u8>, OwnedFd)>,
    times: Vec<(Vec<u8>, Timestamp)>,
    /// Paths this archive made, which an opaque marker after them must not delete ([`Whiteouts::Apply`] only).
    made: HashSet<Vec<u8>>,
    done: Unpacked,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> Result<()> {
        let path = clean(&entry.path).ok_or_else(|| escape(entry, "its path has a '..'"))?;
        let Some((parent_path, name)) = split(&path) else { return self.top(entry) };
        let whiteouts = matches!(self.options.whiteouts, Whiteouts::Oci | Whiteouts::Apply);
        if whiteouts && name.starts_with(WHITEOUT) {
            return self.whiteout(entry, parent_path, name);
        }
        if matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) && !self.options.devices {
            return Err(Error::Forbidden { path: entry.display(), what: entry.kind.describe() });
        }
        if self.options.contained_links && !link_is_contained(entry, parent_path) {
            return Err(escape(entry, "it links to outside"));
        }
        let parent = self.take_parent(parent_path)?;
        let replaced = self.free_name(entry, parent.1.as_fd(), name)?;
        match entry.kind {
            EntryKind::Directory => self.directory(entry, parent.1.as_fd(), name, &path, replaced)?,
            EntryKind::File => self.file(entry, parent.1.as_fd(), name, content)?,
            EntryKind::HardLink => self.hard_link(entry, parent.1.as_fd(), name)?,
            _ => self.special(entry, parent.1.as_fd(), name)?,
        }
        if self.options.whiteouts == Whiteouts::Apply {
            self.made.insert(path.clone());
        }
        // A link or a replacement may change what the kept path means.
        if entry.kind != EntryKind::Symlink && replaced != Name::Replaced {
            self.parent = Some(parent);
        }
        Ok(())
    }

    /// The entry for the root itself sets its attributes.
    fn top(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::Invalid(format!("its root is {}", entry.kind.describe())));
        }
        if !self.options.subdirectory.is_empty() {
            return Ok(());
        }
        let root = self.root.open_path(b".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(Error::io("open the root"))?;
        self.directory_attributes(entry, root.as_fd())?;
        self.times.push((Vec::new(), entry.mtime));
        Ok(())
    }

    fn whiteout(&mut self, entry: &Entry, parent_path: &[u8], name: &[u8]) -> Result<()> {
        let apply = self.options.whiteouts == Whiteouts::Apply;
        if name == WHITEOUT_OPAQUE {
            let parent = self.take_parent(parent_path)?;
            if apply {
                self.clear(parent_path, parent.1.as_fd())?;
            } else {
                xattrs::write(parent.1.as_fd(), b".", OPAQUE, b"y")?;
            }
            return Ok(());
        }
        // Bookkeeping of a file system long gone.
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let target = &name[WHITEOUT.len()..];
        if target.is_empty() || target == b"." || target == b".." {
            return Err(escape(entry, "it deletes no name"));
        }
        let parent = self.take_parent(parent_path)?;
        if apply {
            return remove_at(parent.1.as_fd(), target);
        }
        if stat_at(parent.1.as_fd(), target)?.is_some() {
            remove_at(parent.1.as_fd(), target)?;
        }
        let what = || format!("make a whiteout of {:?}", String::from_utf8_lossy(target));
        rustix::fs::mknodat(&parent.1, target, FileType::CharacterDevice, Mode::empty(), 0).map_err(Error::io(what()))
    }

    /// Deletes what was in a directory before this archive.
    fn clear(&self, path: &[u8], dir: BorrowedFd<'_>) -> Result<()> {
        let readable =
            rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let readable = readable.map_err(Error::io("open a directory"))?;
        for name in names_in(readable.as_fd()).map_err(Error::io("read a directory"))? {
            let below = join(path, &name);
            let keep = |made: &Vec<u8>| *made == below || made.starts_with(&join(&below, b""));
            if self.made.iter().any(keep) {
                if !self.made.contains(&below) || self.is_directory(readable.as_fd(), &name)? {
                    let inner = rustix::fs::openat(
                        &readable,
                        &name,
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                    )
                    .map_err(Error::io("open a directory"))?;
                    self.clear(&below, inner.as_fd())?;
                }
            } else {
                remove_at(readable.as_fd(), &name)?;
            }
        }
        Ok(())
    }

    fn is_directory(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
        Ok(stat_at(dir, name)?.is_some_and(|stat| is_dir(&stat)))
    }

    /// Takes the kept parent directory, or opens (and makes) it.
    fn take_parent(&mut self, path: &[u8]) -> Result<(Vec<u8>, OwnedFd)> {
        match self.parent.take() {
            Some(parent) if parent.0 == path => Ok(parent),
            _ => Ok((path.to_vec(), self.root.ensure_dir(&join(&self.options.subdirectory, path))?)),
        }
    }

    /// Makes a name free, but for a directory that a directory entry will be merged with.
    fn free_name(&self, entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Name> {
        let Some(old) = stat_at(parent, name)? else { return Ok(Name::Free) };
        let old_is_dir = is_dir(&old);
        let new_is_dir = entry.kind == EntryKind::Directory;
        if self.options.keep_types && old_is_dir != new_is_dir {
            let (old, new) = if old_is_dir { ("directory", "non-directory") } else { ("non-directory", "directory") };
            return Err(Error::Overwrite { path: entry.display(), old, new });
        }
        if old_is_dir && new_is_dir {
            return Ok(Name::Directory);
        }
        remove_at(parent, name)?;
        Ok(Name::Replaced)
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        replaced: Name,
    ) -> Result<()> {
        let what = || format!("make directory {:?}", entry.display());
        if replaced != Name::Directory {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(Error::io(what()))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io(what()))?;
        self.directory_attributes(entry, dir.as_fd())?;
        self.times.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn directory_attributes(&self, entry: &Entry, dir: BorrowedFd<'_>) -> Result<()> {
        let what = || format!("set attributes of {:?}", entry.display());
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(dir, Some(uid), Some(gid)).map_err(Error::io(what()))?;
        xattrs::write_all(dir, b".", &entry.xattrs, self.options.whiteouts)?;
        rustix::fs::fchmod(dir, Mode::from_raw_mode(entry.mode)).map_err(Error::io(what()))
    }

    fn file(&mut self, entry: &Entry, parent: BorrowedFd<'_>, name: &[u8], content: &mut impl Read) -> Result<()> {
        let what = || format!("write {:?}", entry.display());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(Error::io(what()))?;
        let mut file = std::fs::File::from(file);
        loop {
            let n = content.read(&mut self.buffer)?;
            if n == 0 {
                break;
            }
            file.write_all(&self.buffer[..n]).map_err(|source| Error::Io { what: what(), source })?;
        }
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(Error::io(what()))?;
        if !entry.xattrs.is_empty() {
            xattrs::write_all(parent, name, &entry.xattrs, self.options.whiteouts)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(Error::io(what()))?;
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(Error::io(what()))
    }

    /// The target is an earlier entry's name, found inside the root; a link in its last part is linked, not followed.
    fn hard_link(&mut self, entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let target = clean(&entry.link).ok_or_else(|| escape(entry, "its link has a '..'"))?;
        let (target_parent, target_name) =
            split(&target).ok_or_else(|| escape(entry, "it links to the directory itself"))?;
        let what = || format!("link {:?} to {:?}", entry.display(), String::from_utf8_lossy(&entry.link));
        let dir = self
            .root
            .open_path(&join(&self.options.subdirectory, target_parent), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(Error::io(what()))?;
        rustix::fs::linkat(&dir, target_name, parent, name, AtFlags::empty()).map_err(Error::io(what()))
    }

    /// Links, pipes and devices.
    fn special(&mut self, entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let what = || format!("make {:?}", entry.display());
        let node = |kind, device| rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device);
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        match entry.kind {
            EntryKind::Symlink => rustix::fs::symlinkat(&entry.link[..], parent, name),
            EntryKind::Fifo => node(FileType::Fifo, 0),
            EntryKind::CharDevice => node(FileType::CharacterDevice, device),
            _ => node(FileType::BlockDevice, device),
        }
        .map_err(Error::io(what()))?;
        let (uid, gid) = self.owner(entry);
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io(what()))?;
        xattrs::write_all(parent, name, &entry.xattrs, self.options.whiteouts)?;
        if entry.kind != EntryKind::Symlink {
            // Through a descriptor of the thing itself: chmodat would follow a link that took its place.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io(what()))?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode)).map_err(Error::io(what()))?;
        }
        rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io(what()))
    }

    fn owner(&self, entry: &Entry) -> (Uid, Gid) {
        let (uid, gid) = if self.options.archive_owners { (entry.uid, entry.gid) } else { self.options.owner };
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    fn directory_times(&mut self) -> Result<()> {
        for (path, mtime) in self.times.iter().rev() {
            let below = join(&self.options.subdirectory, path);
            match self.root.open_path(&below, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(dir) => rustix::fs::futimens(&dir, &times(*mtime)).map_err(Error::io("set a directory's time"))?,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(Error::io("open a directory")(errno)),
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Free,
    Directory,
    Replaced,
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Whether a link's target, by its letters, is below the root. Hard links name paths from the root, symbolic ones from
/// where they are.
fn link_is_contained(entry: &Entry, parent: &[u8]) -> bool {
    let mut depth = match entry.kind {
        EntryKind::Symlink => parent.split(|&b| b == b'/').filter(|part| !part.is_empty()).count(),
        EntryKind::HardLink => 0,
        _ => return true,
    };
    for part in entry.link.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return false,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    !entry.link.starts_with(b"/")
}

fn escape(entry: &Entry, why: &'static str) -> Error {
    Error::Escape { path: entry.display(), why }
}

/// A path without empty and `.` components, and without a leading slash; `None` when it has a `..`.
pub(crate) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut cleaned = Vec::with_capacity(path.len());
    for component in path.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return None,
            name => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(name);
            }
        }
    }
    Some(cleaned)
}

/// Parent and last component of a cleaned path; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    })
}

fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}
