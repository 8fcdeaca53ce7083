//! Where the images of a container that goes on are put while it stands still, if its label asks for it: memory.
//!
//! On a busy disk a gigabyte may take ten seconds; memory is copied to memory in less than one. When the container runs
//! again, the images are moved to where they belong, which is a second copy: on a disk with nothing else to do it gains
//! nothing and doubles the time of the call, so it is not the default. A container that does *not* go on has its images
//! written to the disk at once: nothing waits for it, and nothing but the images is left of it if this process is killed.
//!
//! The file system is mounted nowhere and goes with this process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::{Doing, Error, Result};
use crate::state::Container;

/// The label that asks for it.
const LABEL: &str = "dormouse.checkpoint.in-memory";
/// For what is written besides memory: CRIU's other images and the packed trees.
const BESIDES_BYTES: u64 = 256 << 20;
/// Less free space than this is the reason why writing failed.
const FULL_BELOW_BYTES: u64 = 4 << 20;

/// A directory in memory.
#[derive(Debug)]
pub struct Shelf(OwnedFd);

impl Shelf {
    /// Makes one that is large enough for a container that asks for it; `None` where that would take more than half of the
    /// memory there is to have, for the host or for this process's cgroups.
    pub fn for_memory_of(container: &Container) -> Option<Self> {
        if !matches!(container.record.annotations.get(LABEL).map(String::as_str), Some("true" | "1" | "yes")) {
            return None;
        }
        let pids = container.cgroups().and_then(|cgroups| cgroups.pids()).ok()?;
        let memory: u64 = pids.into_iter().map(memory_bytes).sum();
        let needed = memory.saturating_add(BESIDES_BYTES);
        let free = free_bytes()?;
        if needed > free / 2 {
            tracing::debug!("{needed} bytes do not fit into memory twice, {free} are free");
            return None;
        }
        make(free / 2).inspect_err(|err| tracing::debug!("no file system in memory: {err}")).ok().map(Shelf)
    }

    /// A name for it, in this process.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Whether it was too small.
    pub fn is_full(&self) -> bool {
        rustix::fs::fstatvfs(&self.0).is_ok_and(|fs| fs.f_bavail * fs.f_frsize < FULL_BELOW_BYTES)
    }

    /// Moves everything to `image`; last what makes a directory a checkpoint.
    pub fn clear_into(&self, image: &Path) -> Result<()> {
        let doing = || format!("move the images to {}", image.display());
        let mut files: Vec<_> = fs::read_dir(self.path()).doing(doing)?.collect::<io::Result<Vec<_>>>().doing(doing)?;
        files.sort_by_key(|entry| (entry.file_name() == "inventory.img", entry.file_name()));
        for entry in files {
            if !entry.file_type().doing(doing)?.is_file() {
                return Err(Error::CannotCheckpoint(format!("{} is no file", entry.file_name().to_string_lossy())));
            }
            let (from, to) = (entry.path(), image.join(entry.file_name()));
            let doing = || format!("write {}", to.display());
            let mut source = fs::File::open(&from).doing(doing)?;
            let mode = source.metadata().doing(doing)?.mode() & 0o777;
            let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&to).doing(doing)?;
            io::copy(&mut source, &mut target).doing(doing)?;
            // Not twice longer than needed.
            fs::remove_file(&from).doing(doing)?;
        }
        Ok(())
    }
}

fn make(limit_bytes: u64) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "0700")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "size", limit_bytes.to_string().as_str())?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// What a process has in memory that is in no file: the most that CRIU writes of it.
fn memory_bytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |line: &str| {
        let rest = line.strip_prefix("RssAnon:").or_else(|| line.strip_prefix("RssShmem:"));
        rest.or_else(|| line.strip_prefix("VmSwap:")).and_then(kilobytes)
    };
    status.lines().filter_map(of).sum()
}

fn kilobytes(text: &str) -> Option<u64> {
    text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the host can give, and every group of this process that counts memory.
fn free_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let host = text.lines().find_map(|line| line.strip_prefix("MemAvailable:").and_then(kilobytes))?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => Some(free_in("/sys/fs/cgroup", path, "memory.max", "memory.current")),
            list if list.split(',').any(|name| name == "memory") => {
                Some(free_in("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes"))
            }
            _ => None,
        }
    });
    Some(own.min().unwrap_or(u64::MAX).min(host))
}

/// What a group and those above it leave. A limit that is none ("max", or larger than any memory) cannot be the least.
fn free_in(mount: &str, path: &str, limit: &str, usage: &str) -> u64 {
    let number = |path: PathBuf| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let groups = Path::new(path.trim_start_matches('/')).ancestors().map(|group| Path::new(mount).join(group));
    let free = |dir: PathBuf| Some(number(dir.join(limit))?.saturating_sub(number(dir.join(usage))?));
    groups.filter_map(free).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_and_free_memory_are_known() {
        assert!(memory_bytes(std::process::id() as i32) > 0);
        assert!(free_bytes().unwrap() > 0);
        assert_eq!(memory_bytes(-1), 0);
    }

    #[test]
    fn a_group_leaves_what_the_tightest_above_it_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("limit"), "max\n").unwrap();
        fs::write(group.join("usage"), "10\n").unwrap();
        fs::write(dir.path().join("a/limit"), "100\n").unwrap();
        fs::write(dir.path().join("a/usage"), "30\n").unwrap();
        assert_eq!(free_in(dir.path().to_str().unwrap(), "/a/b", "limit", "usage"), 70);
        assert_eq!(free_in(dir.path().to_str().unwrap(), "/", "limit", "usage"), u64::MAX);
    }

    /// Needs root.
    #[test]
    fn everything_is_moved_and_nothing_replaced() {
        let shelf = Shelf(make(1 << 20).unwrap());
        for name in ["inventory.img", "pages-1.img"] {
            fs::write(shelf.path().join(name), name).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        shelf.clear_into(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("pages-1.img")).unwrap(), "pages-1.img");
        assert_eq!(fs::read_dir(shelf.path()).unwrap().count(), 0);
        fs::write(shelf.path().join("pages-1.img"), "other").unwrap();
        assert!(shelf.clear_into(dir.path()).is_err());
    }
}
