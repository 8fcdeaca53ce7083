//! Waiting for the end of processes that nobody has told us of, found by what `/proc` shows of them.
//!
//! A shim that is killed takes its runtime along, but not at once: a process that has to die finishes the system call it is
//! in, and a CRIU below it goes on until it notices. What they still make would be left behind.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags};
use tokio::time::Instant;

use crate::process::ended;

/// The processes but for ourselves whose folder in `/proc` this is true of.
pub fn find(is_wanted: impl Fn(&Path) -> bool) -> Vec<OwnedFd> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let dir = Path::new("/proc").join(pid.to_string());
            if !is_wanted(&dir) {
                return None;
            }
            let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
            let pidfd = rustix::process::pidfd_open(number, PidfdFlags::NONBLOCK).ok()?;
            // Opened first and checked after: the number cannot have been given to somebody else in between.
            is_wanted(&dir).then_some(pidfd)
        })
        .collect()
}

/// Waits until all of them have ended; false if that takes too long.
pub async fn all_ended(processes: Vec<OwnedFd>, until: Instant) -> bool {
    for pidfd in processes {
        let Ok(pidfd) = crate::fd::watch(pidfd) else { continue };
        if tokio::time::timeout_at(until, ended(&pidfd)).await.is_err() {
            return false;
        }
    }
    true
}
