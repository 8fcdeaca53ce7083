//! A process that may or may not be our child: waited for and signalled by pidfd, never by a pid that may have been given out again.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::launch;
use crate::pidfile;

/// How long a connect to a living socket takes at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A process.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    child: Option<Child>,
}

impl Process {
    /// One that we have started.
    pub fn child(mut child: Child) -> io::Result<Self> {
        match open(child.id()) {
            Ok(pidfd) => Ok(Self { pid: child.id(), pidfd, child: Some(child) }),
            Err(error) => {
                // Without a pidfd it cannot be looked after.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The living docker-containerd behind a socket, or named by a pid file; `None` when there is none.
    pub async fn living(socket: &Path, pid_file: &Path) -> Option<Self> {
        let behind = match tokio::time::timeout(CONNECT_LIMIT, UnixStream::connect(socket)).await {
            Ok(Ok(stream)) => stream.peer_cred().ok().and_then(|credentials| credentials.pid()),
            _ => None,
        };
        let named = pidfile::read(pid_file).ok().flatten().filter(|pid| launch::is_ours(*pid, socket));
        let pid = behind.and_then(|pid| u32::try_from(pid).ok()).or(named)?;
        let pidfd = open(pid).ok()?;
        // Between the look and the open the pid may have changed hands.
        let still = behind.is_some() || launch::is_ours(pid, socket);
        still.then_some(Self { pid, pidfd, child: None })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end; what is known of it, in words. May be cancelled.
    pub async fn ended(&mut self) -> String {
        // An error of epoll would be a reason to look at once.
        let _ = self.pidfd.readable().await;
        match &mut self.child {
            Some(child) => child.wait().map_or_else(|error| error.to_string(), |status| status.to_string()),
            None => "not our child".to_owned(),
        }
    }

    /// Sends a signal; one that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.pidfd.get_ref(), signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid, %error, "containerd cannot be signalled");
        }
    }

    /// Kills it and, when it is our child, waits as long as the kernel takes for that. Blocks.
    pub fn kill_now(&mut self) {
        self.signal(Signal::KILL);
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }

    /// Kills it and waits.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }
}

#[expect(deprecated, reason = "unsound only for types whose descriptor may change under it; an OwnedFd's does not")]
fn open(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::empty())?, tokio::io::Interest::READABLE)
}
