//! Starts a shim, or finds the one that an earlier docker-containerd has started.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, PidfdFlags};
use shim::protocol::{READY_FD, RUNTIME_ARGS_ENV};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::error::{Error, Result};
use crate::runtime::{Runtime, find_program};

/// What a shim is started with.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Name or path of the program.
    pub program: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Its bundle.
    pub bundle: &'a Path,
    /// Its runtime.
    pub runtime: &'a Runtime,
    /// `<state-dir>/<id>`.
    pub dir: &'a Path,
}

/// A shim that was found or started and is connected.
#[derive(Debug)]
pub struct Connected {
    pub(super) dir: PathBuf,
    pub(super) socket: OwnedFd,
    pub(super) pidfd: OwnedFd,
    /// Set when it is our child and has to be reaped.
    pub(super) child: Option<Child>,
}

impl Launch<'_> {
    /// Starts the shim and connects to it. When this future is dropped half way, the shim ends by itself for want of
    /// anybody asking it for anything.
    ///
    /// # Errors
    /// When the program is missing or ends before it listens.
    pub async fn run(self) -> Result<Connected> {
        let path = find_program(self.program).ok_or_else(|| Error::NotInstalled(self.program.to_owned()))?;
        let (ready, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        rustix::io::ioctl_fionbio(&ready, true).map_err(io::Error::from)?;
        let args = serde_json::to_string(&self.runtime.args).map_err(io::Error::from)?;
        let mut command = Command::new(path);
        command
            .args([self.id.as_ref(), self.bundle.as_os_str(), self.runtime.path.as_os_str()])
            .env(RUNTIME_ARGS_ENV, args)
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
            .fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: READY_FD }])
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut child = command.spawn().map_err(|e| Error::Shim(crate::error::words(&e)))?;
        // The command holds our copy of the write end.
        drop(command);
        match connect_when_ready(ready, &child, self.dir).await {
            Ok((socket, pidfd)) => Ok(Connected { dir: self.dir.to_path_buf(), socket, pidfd, child: Some(child) }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

async fn connect_when_ready(ready: OwnedFd, child: &Child, dir: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Error::ShimExited)?;
    // It is our child and not reaped: the number is its own.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from)?;
    let mut ready = pipe::Receiver::from_file(File::from(ready))?;
    let mut byte = [0];
    if ready.read(&mut byte).await? == 0 {
        return Err(first_error(&dir.join("shim-log.json")).map_or(Error::ShimExited, Error::Shim));
    }
    let socket = shim::protocol::connect(dir).map_err(|e| Error::Shim(crate::error::words(&e)))?;
    Ok((socket, pidfd))
}

/// Finds the shim of the container whose directory this is; `None` when it is gone.
pub fn reconnect(dir: &Path) -> Option<Connected> {
    let socket = shim::protocol::connect(dir).ok()?;
    // The kernel remembers who listens; the shim needs no pid file.
    let credentials = rustix::net::sockopt::socket_peercred(&socket).ok()?;
    let pidfd = rustix::process::pidfd_open(credentials.pid, PidfdFlags::NONBLOCK).ok()?;
    // Only if the connection is still open was it the shim's number when the descriptor was opened.
    is_open(&socket).then(|| Connected { dir: dir.to_path_buf(), socket, pidfd, child: None })
}

fn is_open(socket: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP)
}

/// The first `error` entry of a log of JSON objects; broken ones are passed over.
pub fn first_error(log: &Path) -> Option<String> {
    first_error_in(&crate::bundle::read_bounded(log, 1 << 20).ok()?)
}

/// [`first_error`] with the log's content.
pub fn first_error_in(log: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Entry {
        level: String,
        msg: String,
    }
    let entries = serde_json::Deserializer::from_slice(log).into_iter::<Entry>();
    entries.map_while(|entry| entry.ok()).find(|entry| entry.level == "error").map(|entry| entry.msg)
}
