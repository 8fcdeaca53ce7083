//! Finds out where the files are that programs watch (inotify, fanotify).
//!
//! The kernel tells their numbers only, and lets nobody open a file of an overlay file system by its number. CRIU would
//! search for them while everything stands still, and only where it is told to. So the container's root is searched here,
//! before anything is stopped, and CRIU is told the places. What is watched on other file systems CRIU opens by number.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criu::irmap::Entry;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};

const OVERLAY_MAGIC: u64 = 0x794c_7630;
/// A search that takes longer is given up: what was not found by then counts as not there.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is watched on a container's root.
#[derive(Debug, Default)]
pub struct Watches {
    /// What was found.
    pub found: Vec<Entry>,
    /// What was not, with a process that watches it.
    pub lost: Vec<(i32, u64)>,
}

impl Watches {
    /// Of these processes.
    pub fn of(init: i32, pids: &[i32]) -> Self {
        let mut watched: Vec<(i32, u32, u64)> = pids.iter().flat_map(|pid| watched_by(*pid)).collect();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (false, Ok(root)) =
            (watched.is_empty(), rustix::fs::open(format!("/proc/{init}/root"), flags, Mode::empty()))
        else {
            return Watches::default();
        };
        let (Ok(system), Ok(facts)) = (rustix::fs::fstatfs(&root), rustix::fs::fstat(&root)) else {
            return Watches::default();
        };
        if system.f_type as u64 != OVERLAY_MAGIC {
            return Watches::default();
        }
        let device = kernel_device(facts.st_dev);
        watched.retain(|(_, there, _)| *there == device);
        let inodes = watched.iter().map(|(_, _, inode)| *inode).collect();
        let found = search(&root, device, facts.st_ino, inodes);
        let lost = watched.into_iter().filter(|(_, _, inode)| !found.iter().any(|entry| entry.inode == *inode));
        let lost = lost.map(|(pid, _, inode)| (pid, inode)).collect();
        Watches { found, lost }
    }
}

/// File system and inode of all that a process watches.
fn watched_by(pid: i32) -> Vec<(i32, u32, u64)> {
    let mut list = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !matches!(target.to_str(), Some("anon_inode:inotify" | "anon_inode:[fanotify]")) {
            continue;
        }
        let number = entry.file_name();
        let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.to_string_lossy())).unwrap_or_default();
        list.extend(text.lines().filter_map(parse).map(|(device, inode)| (pid, device, inode)));
    }
    list
}

/// `inotify wd:1 ino:2b5 sdev:2e mask:…`, all in hexadecimal.
fn parse(line: &str) -> Option<(u32, u64)> {
    if !line.starts_with("inotify ") && !line.starts_with("fanotify ") {
        return None;
    }
    let value = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
    Some((u32::from_str_radix(value("sdev:")?, 16).ok()?, u64::from_str_radix(value("ino:")?, 16).ok()?))
}

/// A device's number as the kernel has it inside.
fn kernel_device(device: u64) -> u32 {
    rustix::fs::major(device) << 20 | rustix::fs::minor(device)
}

/// Directory by directory, those near the root first; nothing that is mounted there is entered.
fn search(root: &OwnedFd, device: u32, root_inode: u64, mut wanted: BTreeSet<u64>) -> Vec<Entry> {
    let started = Instant::now();
    let mut found = Vec::new();
    let mut take = |wanted: &mut BTreeSet<u64>, inode: u64, path: String| {
        if wanted.remove(&inode) {
            found.push(Entry { device, inode, path });
        }
    };
    take(&mut wanted, root_inode, "/.".to_owned());
    let mut ahead = VecDeque::from([PathBuf::from(".")]);
    while let Some(directory) = ahead.pop_front()
        && !wanted.is_empty()
        && started.elapsed() < PATIENCE
    {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let Ok(fd) = rustix::fs::openat2(root, &directory, flags, Mode::empty(), resolve) else { continue };
        for entry in Dir::new(fd).into_iter().flatten().flatten() {
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = directory.join(OsString::from_vec(name.to_vec()));
            // A name that is no text cannot be told to CRIU.
            if let Some(text) = path.to_str() {
                take(&mut wanted, entry.ino(), text.strip_prefix('.').unwrap_or(text).to_owned());
            }
            if entry.file_type() == rustix::fs::FileType::Directory {
                ahead.push_back(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_fdinfo() {
        let line =
            "inotify wd:1 ino:2b5 sdev:80001f mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:b5";
        assert_eq!(parse(line), Some((0x80_001f, 0x2b5)));
        assert_eq!(parse("fanotify ino:1 sdev:2 mflags:0 mask:1 ignored_mask:0"), Some((2, 1)));
        for other in ["pos:\t0", "fanotify flags:0 event-flags:0", "inotify wd:1"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_there_is_found_and_links_are_not_followed() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".a/b")).unwrap();
        fs::write(dir.path().join(".a/b/c"), "").unwrap();
        fs::write(outside.path().join("d"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let wanted = [".a/b", ".a/b/c"].map(|path| inode(dir.path().join(path)));
        let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        let all: BTreeSet<u64> =
            wanted.into_iter().chain([inode(outside.path().join("d")), inode(dir.path().to_owned())]).collect();
        let found = search(&root, 7, inode(dir.path().to_owned()), all);
        let paths: Vec<&str> = found.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["/.", "/.a/b", "/.a/b/c"]);
        assert_eq!((found[1].device, found[1].inode), (7, wanted[0]));
    }
}
