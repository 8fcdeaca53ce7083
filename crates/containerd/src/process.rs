//! One process on the host: told apart from a later one with the same number, signalled, waited for.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

/// A process that cannot be mistaken for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostProcess {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl HostProcess {
    /// The process that has this number now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: i32) -> io::Result<HostProcess> {
        Ok(HostProcess { pid, start_time: start_time(pid)? })
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        matches!(stat(self.pid), Ok(stat) if stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X'))
    }

    /// A descriptor of exactly this process.
    ///
    /// # Errors
    /// `ESRCH` when it is gone.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).ok_or_else(no_such_process)?;
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // Opened first and checked after: the number cannot have been reused in between.
        if start_time(self.pid).ok() != Some(self.start_time) {
            return Err(no_such_process());
        }
        Ok(fd)
    }

    /// Sends a signal to this process and nobody else.
    ///
    /// # Errors
    /// `ESRCH` when it is gone, or what the kernel says.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(self.pidfd()?, signal)?)
    }
}

/// Waits until the process behind the descriptor has ended.
pub async fn ended(pidfd: &AsyncFd<OwnedFd>) {
    // An error here means that the runtime is shutting down; then nobody waits any more.
    if let Ok(mut guard) = pidfd.readable().await {
        guard.retain_ready();
    }
}

fn no_such_process() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::ESRCH)
}

struct Stat {
    state: char,
    start_time: u64,
}

/// When the process started: field 22 of `/proc/<pid>/stat`.
///
/// # Errors
/// When there is no such process.
pub fn start_time(pid: i32) -> io::Result<u64> {
    Ok(stat(pid)?.start_time)
}

fn stat(pid: i32) -> io::Result<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat"))?).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether this is a `/proc/<pid>/stat`, for fuzzing.
pub(crate) fn is_stat(text: &[u8]) -> bool {
    parse_stat(text).is_some()
}

/// The second field is the program's name in parentheses and may itself hold blanks and parentheses.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|b| *b == b')')? + 1;
    let rest = std::str::from_utf8(text.get(after_name..)?).ok()?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let text = b"7 (a ) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.start_time), ('S', 4242));
        assert!(parse_stat(b"").is_none());
        assert!(parse_stat(b"7 (a) S 1").is_none());
    }

    #[test]
    fn a_process_is_told_from_its_successor() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = HostProcess::of(pid).unwrap();
        assert!(me.is_alive());
        let other = HostProcess { pid, start_time: me.start_time + 1 };
        assert!(!other.is_alive());
        assert_eq!(other.pidfd().unwrap_err().raw_os_error(), Some(nix::libc::ESRCH));
    }
}
