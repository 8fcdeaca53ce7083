//! The socket that docker-containerd connects to, and what is owed to whoever is connected.
//!
//! A client is never waited for: what it does not take is queued, and one that lets too much pile up, or that says
//! what is no message at all, is dropped; it can connect again.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Context, Error};
use crate::protocol::{MAX_MESSAGE, Message, SOCKET_NAME};

/// More than these at once are turned away.
const MAX_CLIENTS: usize = 16;

/// More messages than these waiting for one client end its connection.
const MAX_QUEUED: usize = 256;

/// The socket and its connections.
#[derive(Debug)]
pub(crate) struct Clients {
    /// Gone once nobody is to come any more.
    listener: Option<OwnedFd>,
    connections: Vec<Connection>,
    next_id: u64,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    socket: OwnedFd,
    queue: VecDeque<Vec<u8>>,
    broken: bool,
}

/// What to poll for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Listener,
    Connection(u64),
}

impl Clients {
    /// Listens in the working directory, for our own user only.
    pub(crate) fn listen() -> Result<Self, Error> {
        let path = Path::new(SOCKET_NAME);
        let _ = std::fs::remove_file(path);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).during("socket")?;
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = rustix::net::bind(&listener, &SocketAddrUnix::new(path).at("bind", path)?);
        rustix::process::umask(before);
        bound.at("bind", path)?;
        rustix::net::listen(&listener, 16).at("listen", path)?;
        Ok(Self { listener: Some(listener), connections: Vec::new(), next_id: 0 })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Ends every connection and takes no more.
    pub(crate) fn close(&mut self) {
        self.listener = None;
        self.connections.clear();
    }

    /// Nobody is owed anything.
    pub(crate) fn all_told(&self) -> bool {
        self.connections.iter().all(|connection| connection.queue.is_empty())
    }

    /// What to poll for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let connections = self.connections.iter().map(|connection| {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !connection.queue.is_empty());
            (Source::Connection(connection.id), connection.socket.as_fd(), flags)
        });
        let listener = self.listener.iter().map(|listener| (Source::Listener, listener.as_fd(), PollFlags::IN));
        listener.chain(connections)
    }

    /// Takes whoever has called.
    pub(crate) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Some(listener) = &self.listener else { return };
        while let Ok(socket) = rustix::net::accept_with(listener, flags) {
            if self.connections.len() < MAX_CLIENTS {
                let id = self.next_id;
                self.next_id += 1;
                self.connections.push(Connection { id, socket, queue: VecDeque::new(), broken: false });
            }
        }
    }

    /// The next packet of a client, if there is one. A client that has gone or that sent too long a packet is
    /// forgotten.
    pub(crate) fn receive(&mut self, id: u64) -> Option<Vec<u8>> {
        let connection = self.connections.iter_mut().find(|connection| connection.id == id)?;
        match receive_packet(connection.socket.as_fd()) {
            Ok(Some(packet)) => Some(packet),
            Ok(None) => None,
            Err(_) => {
                self.drop_client(id);
                None
            }
        }
    }

    /// Ends a connection.
    pub(crate) fn drop_client(&mut self, id: u64) {
        self.connections.retain(|connection| connection.id != id);
    }

    /// Tells one client, which may have gone.
    pub(crate) fn tell(&mut self, id: u64, message: &Message) {
        let Ok(packet) = serde_json::to_vec(message) else { return };
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.push(packet);
        }
        self.connections.retain(|connection| !connection.broken);
    }

    /// Tells everybody.
    pub(crate) fn tell_all(&mut self, message: &Message) {
        let Ok(packet) = serde_json::to_vec(message) else { return };
        for connection in &mut self.connections {
            connection.push(packet.clone());
        }
        self.connections.retain(|connection| !connection.broken);
    }

    /// Sends what was waiting for room.
    pub(crate) fn flush(&mut self, id: u64) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.flush();
        }
        self.connections.retain(|connection| !connection.broken);
    }
}

impl Connection {
    fn push(&mut self, packet: Vec<u8>) {
        if self.queue.len() >= MAX_QUEUED {
            self.broken = true;
            return;
        }
        self.queue.push_back(packet);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(packet) = self.queue.front() {
            match rustix::net::send(&self.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => {
                    self.queue.pop_front();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.broken = true;
                    self.queue.clear();
                    return;
                }
            }
        }
    }
}

/// `None` when there is nothing now; an error when there will never be anything again.
fn receive_packet(socket: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    // The length first, so that no large buffer is ever held for small messages.
    let mut first = [0_u8; 1];
    let look = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let length = match rustix::net::recv(socket, &mut first[..], look) {
        Ok((_, length)) => length,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if length == 0 || length > MAX_MESSAGE {
        return Err(Errno::MSGSIZE);
    }
    let mut packet = vec![0_u8; length];
    match rustix::net::recv(socket, &mut packet[..], RecvFlags::DONTWAIT) {
        Ok((count, _)) => {
            packet.truncate(count);
            Ok(Some(packet))
        }
        Err(errno) => Err(errno),
    }
}
