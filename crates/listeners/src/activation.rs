//! Sockets passed by systemd (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`; sd_listen_fds(3)).

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::address::FdSelector;
use crate::error::{Error, Result};
use crate::listener::Socket;

/// The first descriptor that systemd passes.
const FIRST_FD: usize = 3;

/// What systemd has passed to this process and has not been taken yet.
pub struct Activated {
    fds: ListenFd,
    names: Vec<String>,
}

impl Activated {
    /// Reads the environment, and takes the variables out of it so that no child believes they are its own. Call it once,
    /// before any thread is started.
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let fds = ListenFd::from_env();
        Self { fds, names: names.split(':').map(str::to_owned).collect() }
    }

    /// Nothing was passed.
    pub fn none() -> Self {
        Self { fds: ListenFd::empty(), names: Vec::new() }
    }

    /// Whether nothing was passed.
    pub fn is_empty(&self) -> bool {
        self.fds.len() == 0
    }

    /// Takes the selected sockets.
    pub(crate) fn take(&mut self, which: &FdSelector) -> Result<Vec<(usize, Socket)>> {
        if self.is_empty() {
            return Err(Error::NoActivatedSockets);
        }
        let indexes: Vec<usize> = match which {
            FdSelector::All => (0..self.fds.len()).collect(),
            FdSelector::Number(number) => match (*number as usize).checked_sub(FIRST_FD) {
                Some(index) if index < self.fds.len() => vec![index],
                _ => return Err(Error::TooFewActivatedSockets),
            },
            FdSelector::Name(name) => {
                let named: Vec<usize> =
                    (0..self.fds.len()).filter(|index| self.names.get(*index) == Some(name)).collect();
                if named.is_empty() {
                    return Err(Error::NoSuchActivatedSocket(name.clone()));
                }
                named
            }
        };
        indexes.into_iter().map(|index| Ok((FIRST_FD + index, self.take_one(index)?))).collect()
    }

    /// Closes what nobody wanted: a socket that is open and not served would swallow its clients.
    pub(crate) fn close_rest(&mut self) {
        for index in 0..self.fds.len() {
            if self.take_one(index).is_ok() {
                tracing::info!(fd = FIRST_FD + index, "closed a socket from systemd that no address asks for");
            }
        }
    }

    fn take_one(&mut self, index: usize) -> Result<Socket> {
        let bad = |reason: String| Error::BadActivatedSocket { fd: FIRST_FD + index, reason };
        let io = |error: std::io::Error| bad(error.to_string());
        if let Ok(socket) = self.fds.take_unix_listener(index) {
            let socket = socket.ok_or_else(|| bad("already in use".to_owned()))?;
            socket.set_nonblocking(true).map_err(io)?;
            return UnixListener::from_std(socket).map(Socket::Unix).map_err(io);
        }
        let socket = self.fds.take_tcp_listener(index).map_err(io)?.ok_or_else(|| bad("already in use".to_owned()))?;
        socket.set_nonblocking(true).map_err(io)?;
        TcpListener::from_std(socket).map(Socket::Tcp).map_err(io)
    }
}
