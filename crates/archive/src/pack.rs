//! A tree on disk to a tar: sorted, so that the same tree gives the same bytes.
//!
//! The tree may be a running container's: nothing is followed out of it, a file that shrinks is filled up with zeros and
//! counted, one that vanishes is left out. Sockets are left out: they mean nothing in an archive.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::root::{names_in, stat_at};
use crate::xattrs::{self, OPAQUE};
use crate::{Entry, EntryKind, Error, Result, Root, TarWriter, Timestamp, Whiteouts};

/// How a tree is packed.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// How an overlay's deletions are written.
    pub whiteouts: Whiteouts,
    /// What is put before every name, such as `etc` for a copy of `/etc`. The tree's own root is an entry by that name
    /// (by `./` when it is empty) if [`PackOptions::root_entry`] is set.
    pub prefix: Vec<u8>,
    /// Whether the tree's own root is the first entry.
    pub root_entry: bool,
    /// Keep nanoseconds. Off: whole seconds, as Docker writes layers.
    pub nanoseconds: bool,
    /// Paths below the root that are left out with all below them (`dev`, `a/b`).
    pub skip: Vec<Vec<u8>>,
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packed {
    /// Entries.
    pub entries: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Files that were shorter when read than when looked at, and were filled up with zeros.
    pub shrunk_files: u64,
}

/// Packs the tree below `dir`; writes everything but the end mark, so that more entries may follow.
pub fn pack<W: Write>(dir: &Path, tar: &mut TarWriter<W>, options: &PackOptions) -> Result<Packed> {
    pack_root(&Root::open(dir)?, tar, options)
}

pub(crate) fn pack_root<W: Write>(root: &Root, tar: &mut TarWriter<W>, options: &PackOptions) -> Result<Packed> {
    let mut packer = Packer { root, tar, options, links: HashMap::new(), done: Packed::default(), buffer: Vec::new() };
    if options.root_entry {
        let dir = root.open_path(b".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(Error::io("open the root"))?;
        let stat = rustix::fs::fstat(&dir).map_err(Error::io("stat the root"))?;
        packer.directory(dir.as_fd(), b".", b"", &stat)?;
    }
    // Directories still to be read, by path below the root; the last is next, so that the order is depth first.
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let mut below = packer.read_directory(&path)?;
        below.reverse();
        pending.append(&mut below);
    }
    Ok(packer.done)
}

struct Packer<'a, W> {
    root: &'a Root,
    tar: &'a mut TarWriter<W>,
    options: &'a PackOptions,
    /// First path of each inode that has more than one name.
    links: HashMap<(u64, u64), Vec<u8>>,
    done: Packed,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    /// Writes what is in the directory `path`; returns the directories in it.
    fn read_directory(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let what = || format!("read directory {:?}", String::from_utf8_lossy(path));
        let dir = match self.root.open_strict(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => dir,
            // Removed or replaced since its entry was written.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_empty() => return Ok(Vec::new()),
            Err(errno) => return Err(Error::io(what())(errno)),
        };
        let mut directories = Vec::new();
        for name in names_in(dir.as_fd()).map_err(Error::io(what()))? {
            let below = join(path, &name);
            if self.options.skip.contains(&below) {
                continue;
            }
            let Some(stat) = stat_at(dir.as_fd(), &name)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.directory(dir.as_fd(), &name, &below, &stat)?;
                directories.push(below);
            } else {
                self.other(dir.as_fd(), &name, &below, &stat)?;
            }
        }
        Ok(directories)
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        let mut entry = self.entry(EntryKind::Directory, path, stat);
        let attributes = xattrs::read_all(dir, name, &mut self.buffer)?;
        let opaque = attributes.iter().any(|(key, value)| key == OPAQUE && value == b"y");
        entry.xattrs = self.carried(attributes);
        self.write(&entry)?;
        if opaque && self.options.whiteouts == Whiteouts::Oci {
            entry.path = join(&entry.path, b".wh..wh..opq");
            entry.kind = EntryKind::File;
            entry.xattrs.clear();
            self.write(&entry)?;
        }
        Ok(())
    }

    fn other(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            FileType::CharacterDevice => EntryKind::CharDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::Fifo => EntryKind::Fifo,
            _ => return Ok(()),
        };
        let mut entry = self.entry(kind, path, stat);
        if self.options.whiteouts == Whiteouts::Oci {
            if kind == EntryKind::CharDevice && stat.st_rdev == 0 {
                let parent = path.len() - name.len();
                let marker = [&path[..parent], b".wh.", name].concat();
                entry = Entry { mode: 0o600, device: (0, 0), ..self.entry(EntryKind::File, &marker, stat) };
                entry.size = 0;
                return self.write(&entry);
            }
            if name.starts_with(b".wh.") {
                tracing::warn!(path = %entry.display(), "left out: its name would mean a deletion in a layer");
                return Ok(());
            }
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                entry.kind = EntryKind::HardLink;
                entry.link = first.clone();
                entry.size = 0;
                return self.write(&entry);
            }
            self.links.insert((stat.st_dev, stat.st_ino), entry.path.clone());
        }
        entry.xattrs = match xattrs::read_all(dir, name, &mut self.buffer) {
            Ok(attributes) => self.carried(attributes),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match kind {
            EntryKind::File => self.file(dir, name, entry, stat),
            EntryKind::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Ok(target) => {
                    entry.link = target.into_bytes();
                    self.write(&entry)
                }
                Err(Errno::NOENT | Errno::INVAL) => Ok(()),
                Err(errno) => Err(Error::io(format!("read link {:?}", entry.display()))(errno)),
            },
            _ => self.write(&entry),
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], mut entry: Entry, seen: &Stat) -> Result<()> {
        let what = || format!("open {:?}", String::from_utf8_lossy(name));
        // O_NONBLOCK: should a pipe have taken the file's place, opening it must not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => {
                self.links.remove(&(seen.st_dev, seen.st_ino));
                return Ok(());
            }
            Err(errno) => return Err(Error::io(what())(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(Error::io(what()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.links.remove(&(seen.st_dev, seen.st_ino));
            return Ok(());
        }
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        let missing = self.tar.append_file(&entry, std::fs::File::from(file))?;
        self.done.entries += 1;
        self.done.content_bytes += entry.size;
        if missing > 0 {
            self.done.shrunk_files += 1;
            tracing::warn!(path = %entry.display(), missing, "a file shrank while it was read; filled up with zeros");
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> Result<()> {
        self.done.entries += 1;
        self.tar.append(entry)
    }

    fn carried(&self, attributes: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
        attributes.into_iter().filter(|(key, _)| xattrs::carried(key, self.options.whiteouts)).collect()
    }

    fn entry(&self, kind: EntryKind, path: &[u8], stat: &Stat) -> Entry {
        let path = match (&self.options.prefix[..], path) {
            (b"", b"") => b".".to_vec(),
            (b"", path) => path.to_vec(),
            (prefix, b"") => prefix.to_vec(),
            (prefix, path) => join(prefix, path),
        };
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            _ => (0, 0),
        };
        Entry {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: self.mtime(stat),
            device,
            ..Entry::new(path, kind, stat.st_mode & 0o7777)
        }
    }

    fn mtime(&self, stat: &Stat) -> Timestamp {
        let nanoseconds = if self.options.nanoseconds { u32::try_from(stat.st_mtime_nsec).unwrap_or(0) } else { 0 };
        Timestamp { seconds: stat.st_mtime, nanoseconds }
    }
}

/// `a` and `b` with one slash between them; `b` alone when `a` is empty.
pub(crate) fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    match a {
        b"" => b.to_vec(),
        a if a.ends_with(b"/") => [a, b].concat(),
        a => [a, b"/", b].concat(),
    }
}
