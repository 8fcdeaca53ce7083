//! A bound socket, and accepting on it.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::stream::{Peer, Stream};
use crate::unix::SocketFile;

/// A client that has not finished its TLS handshake by then is dropped.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries when this process has no descriptor left: nobody tells us when it has one again.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A listening stream socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A bound address. Dropping it closes it; a unix socket that it made is unlinked then.
pub struct Listener {
    name: String,
    socket: Socket,
    tls: Option<TlsAcceptor>,
    gate: Gate,
    _file: Option<SocketFile>,
}

impl Listener {
    pub(crate) fn new(
        name: String,
        socket: Socket,
        tls: Option<TlsAcceptor>,
        gate: Gate,
        file: Option<SocketFile>,
    ) -> Self {
        Self { name, socket, tls, gate, _file: file }
    }

    /// The address, as `proto://addr`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of a TCP socket.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Waits for the gate, then for a connection. An error is final: what is the client's fault, and a lack of descriptors, are
    /// got over in here. May be cancelled at any time without losing a connection.
    pub async fn accept(&self) -> Result<Incoming> {
        self.gate.wait().await;
        loop {
            match self.accept_once().await {
                Ok(incoming) => return Ok(incoming),
                Err(error) if is_exhausted(&error) => {
                    tracing::error!(listener = self.name, %error, "cannot accept a connection now");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                Err(error) if is_clients_fault(&error) => tracing::debug!(listener = self.name, %error, "accept"),
                Err(error) => return Err(Error::Accept(error)),
            }
        }
    }

    async fn accept_once(&self) -> io::Result<Incoming> {
        match &self.socket {
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let peer = stream.peer_cred().map_or(Peer::Unknown, |credentials| Peer::Unix {
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                    pid: credentials.pid(),
                });
                Ok(Incoming { peer, stream: Unfinished::Ready(Stream::Unix(stream)) })
            }
            Socket::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                // Requests and answers are small: do not wait for more of them.
                stream.set_nodelay(true)?;
                let stream = match &self.tls {
                    None => Unfinished::Ready(Stream::Tcp(stream)),
                    Some(acceptor) => Unfinished::Handshake(Box::new(acceptor.accept(stream))),
                };
                Ok(Incoming { peer: Peer::Tcp(address), stream })
            }
        }
    }
}

/// A connection that may still have a handshake before it. Finish it in a task of its own.
pub struct Incoming {
    peer: Peer,
    stream: Unfinished,
}

enum Unfinished {
    Ready(Stream),
    Handshake(Box<tokio_rustls::Accept<tokio::net::TcpStream>>),
}

impl Incoming {
    /// Who connects.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Does the handshake, if there is one.
    pub async fn establish(self) -> io::Result<Stream> {
        match self.stream {
            Unfinished::Ready(stream) => Ok(stream),
            Unfinished::Handshake(handshake) => match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
                Ok(stream) => Ok(Stream::Tls(Box::new(stream?))),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timeout")),
            },
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Errors that accept(2) passes on from the new connection, and signals.
fn is_clients_fault(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::NOTCONN
                | Errno::INTR
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::HOSTDOWN
                | Errno::PERM
                | Errno::INVAL
        )
    )
}
