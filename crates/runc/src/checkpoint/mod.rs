//! Checkpoint and restore through CRIU.
//!
//! ```text
//! <image>/*.img                   CRIU's
//! <image>/descriptors.json        where descriptors 0 to 2 pointed (runc's file, read by runc as well)
//! <image>/dormouse-options.json   the options that were chosen; used again by restore
//! <image>/dormouse-stats.json     how long it took
//! <image>/<name>.tar              trees captured while everything stood still
//! <image>/dormouse-tmpfs-<n>.tar  the container's temporary file systems
//! ```
//!
//! What dies when:
//! - docker-runc killed: CRIU sees the end of its socket, undoes what it did and lets the container go on (a dump), or
//!   kills what it made so far (a restore); its mounts lie in a namespace of its own and go with it.
//! - CRIU killed during a dump: the kernel releases every traced task, and docker-runc thaws the cgroup. A task into which
//!   CRIU had just injected code is lost with it: CRIU has no protection against that.
//! - traffic is blocked by rules with a timeout, so that a container whose docker-runc was killed is heard again.

pub mod dump;
mod inspect;
mod mounts;
mod netfilter;
mod network;
pub mod options;
pub mod preflight;
pub mod restore;
mod shelf;
mod staging;
mod tmpfs;
mod unix_peers;
mod waits;
mod watches;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::error::{Doing, Result};

/// How long CRIU may take for one dump or restore.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The file with the stdio of the first process.
const DESCRIPTORS: &str = "descriptors.json";
/// What the options file is called.
pub const OPTIONS: &str = "dormouse-options.json";
/// What the statistics are called.
const STATS: &str = "dormouse-stats.json";
/// No file of ours in an image directory is larger.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The annotation that names a file with options for CRIU, which come before ours. runc has it, too.
fn criu_configuration(annotations: &HashMap<String, String>) -> Option<String> {
    annotations.get("org.criu.config").filter(|path| !path.is_empty()).cloned()
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {}", path.display()))
}

/// Reads a small regular file of an image directory, following no link.
fn read_small(dir: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    use std::io::Read;
    let path = dir.join(name);
    let fd = match rustix::fs::open(
        &path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => {
            return Err(crate::Error::Io { what: format!("open {}", path.display()), source: errno.into() });
        }
    };
    let file = File::from(fd);
    let doing = || format!("read {}", path.display());
    let metadata = file.metadata().doing(doing)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(crate::Error::CannotRestore(format!("{} is no small regular file", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).doing(doing)?;
    Ok(Some(text))
}

/// How much CRIU writes into its log, a system call a line: errors and warnings, or everything with `--debug`.
fn criu_log_level() -> i32 {
    if tracing::enabled!(tracing::Level::DEBUG) { 4 } else { 2 }
}

/// Where CRIU's kernel-feature cache lives: one for each boot.
pub(crate) fn cache_file(root: &Path) -> Option<std::path::PathBuf> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(root.join(format!(".criu-{}.kdat", boot.trim())))
}
