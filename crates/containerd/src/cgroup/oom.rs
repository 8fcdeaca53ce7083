//! Tells when the kernel killed in a container for want of memory.
//!
//! v1: an eventfd that the memory group signals. v2: inotify on `memory.events`, whose `oom_kill` count then has grown.
//! The watch is armed before the container's program starts, so that no kill is missed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use super::Cgroups;

/// An armed watch on one container.
#[derive(Debug)]
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    V1 { control: PathBuf },
    V2 { dir: PathBuf, kills: u64 },
}

impl Watch {
    /// Arms a watch. `None` when the container has no memory group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn arm(groups: &Cgroups) -> io::Result<Option<Watch>> {
        if let Some(dir) = groups.v1.get("memory") {
            return arm_v1(dir).map(Some);
        }
        match &groups.v2 {
            Some(dir) if dir.join("memory.events").exists() => arm_v2(dir).map(Some),
            _ => Ok(None),
        }
    }

    /// Waits for the next kill; `None` when the group is gone.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<()>> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut buffer = [0; 4096];
            let read = match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
                Ok(read) => read?,
                Err(_would_block) => continue,
            };
            match &mut self.source {
                Source::V1 { control } => {
                    // The removal of the group counts as one signal, too.
                    let count = buffer[..read].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
                    if control.exists() || count > 1 {
                        return Ok(Some(()));
                    }
                    return Ok(None);
                }
                Source::V2 { dir, kills } => {
                    let Ok(now) = oom_kills(dir) else { return Ok(None) };
                    if now > *kills {
                        *kills = now;
                        return Ok(Some(()));
                    }
                }
            }
        }
    }
}

fn arm_v1(dir: &Path) -> io::Result<Watch> {
    let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let oom_control = File::open(dir.join("memory.oom_control"))?;
    let control = dir.join("cgroup.event_control");
    fs::write(&control, format!("{} {}", eventfd.as_raw_fd(), oom_control.as_raw_fd()))?;
    Ok(Watch { fd: crate::fd::watch(eventfd)?, source: Source::V1 { control } })
}

fn arm_v2(dir: &Path) -> io::Result<Watch> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, dir.join("memory.events"), inotify::WatchFlags::MODIFY)?;
    let kills = oom_kills(dir)?;
    Ok(Watch { fd: crate::fd::watch(fd)?, source: Source::V2 { dir: dir.to_path_buf(), kills } })
}

fn oom_kills(dir: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(dir.join("memory.events"))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    Ok(count.unwrap_or(0))
}
