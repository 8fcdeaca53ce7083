//! Writes to the kernel's `/proc`, and to nothing that only looks like it.
//!
//! A mount over a file in `/proc` could send what is written there to another one: `/proc/sys/net/…` to `/proc/sysrq-trigger`,
//! say. So `/proc` must be the root of a procfs, and no other mount is entered on the way.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Doing, Error, Result};
use crate::validate::{swap_separators, with_dots};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// The inode of every procfs' root.
const PROC_ROOT_INODE: u64 = 1;

/// Writes to a file below `/proc`.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("write /proc/{}", path.display());
    let root =
        rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .doing(doing)?;
    let is_proc = rustix::fs::fstatfs(&root).doing(doing)?.f_type as u64 == PROC_SUPER_MAGIC
        && rustix::fs::fstat(&root).doing(doing)?.st_ino == PROC_ROOT_INODE;
    if !is_proc {
        return Err(Error::Init("/proc is not the kernel's".into()));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file =
        rustix::fs::openat2(&root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve).doing(doing)?;
    File::from(file).write_all(text.as_bytes()).doing(doing)
}

/// Sets a kernel parameter. runc takes both spellings: with dots, and with slashes (for interface names that hold dots).
pub fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let path = swap_separators(&with_dots(name));
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::Init(format!("invalid sysctl {name:?}")));
    }
    write(&Path::new("sys").join(path), value)
}
