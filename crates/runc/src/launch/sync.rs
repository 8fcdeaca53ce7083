//! The conversation between docker-runc and the process it makes, over a `SOCK_SEQPACKET` pair.
//!
//! One message a packet: a letter and, for a failure, its text. Whoever finds the other end closed gives up, so that a
//! docker-runc that was killed leaves no half-made container process behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Doing, Error, Result};

/// No message is longer; a longer failure text is cut.
const MAX_MESSAGE: usize = 16 << 10;

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Parent to child: user and group ids are mapped.
    Mapped,
    /// Parent to child: you are in your cgroups, limits are set.
    InCgroups,
    /// Child to parent: namespaces and mounts are there; run the hooks that come before the root is changed.
    RunHooks,
    /// Parent to child: the hooks have run.
    HooksDone,
    /// Child to parent: my seccomp filter asks over this descriptor of mine; hand it to the agent.
    Listener(i32),
    /// Parent to child: the agent has it.
    ListenerSent,
    /// Child to parent: all is set up.
    Ready,
    /// Child to parent: it failed, and the process ends.
    Failed(String),
}

/// One end.
pub struct Channel(OwnedFd);

impl Channel {
    /// Makes both ends, close-on-exec.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .doing(|| "make a socket pair".into())?;
        Ok((Channel(a), Channel(b)))
    }

    /// Its descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Says something.
    pub fn send(&self, message: &Message) -> Result<()> {
        let packet = match message {
            Message::Mapped => b"m".to_vec(),
            Message::InCgroups => b"c".to_vec(),
            Message::RunHooks => b"h".to_vec(),
            Message::HooksDone => b"d".to_vec(),
            Message::Listener(fd) => [b"l", fd.to_string().as_bytes()].concat(),
            Message::ListenerSent => b"s".to_vec(),
            Message::Ready => b"r".to_vec(),
            Message::Failed(text) => {
                let mut packet = b"f".to_vec();
                packet.extend(text.bytes().take(MAX_MESSAGE - 1));
                packet
            }
        };
        let sent = match message {
            // The filter is at work already, and nobody answers yet: no other call than this is sure to go through.
            Message::Listener(_) => rustix::io::write(self.0.as_fd(), &packet),
            _ => rustix::net::send(self.0.as_fd(), &packet, SendFlags::NOSIGNAL),
        };
        sent.map(|_| ()).doing(|| "send to the other process".into())
    }

    /// Hears something; `None` when the other end is closed.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = vec![0u8; MAX_MESSAGE];
        let length = loop {
            match rustix::net::recv(self.0.as_fd(), buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => break length,
                // The kernel says once, before anything else, that the other end has gone without hearing all that it was
                // told. What it said before that comes afterwards, and then the end.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => (),
                Err(errno) => {
                    return Err(Error::Io { what: "receive from the other process".into(), source: errno.into() });
                }
            }
        };
        let Some((kind, text)) = buffer[..length].split_first() else { return Ok(None) };
        Ok(Some(match kind {
            b'm' => Message::Mapped,
            b'c' => Message::InCgroups,
            b'h' => Message::RunHooks,
            b'd' => Message::HooksDone,
            b'l' => match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                Some(fd) => Message::Listener(fd),
                None => return Err(Error::Init("a descriptor that is no number".into())),
            },
            b's' => Message::ListenerSent,
            b'r' => Message::Ready,
            b'f' => Message::Failed(String::from_utf8_lossy(text).into_owned()),
            other => return Err(Error::Init(format!("unknown message {other}"))),
        }))
    }

    /// Waits for one particular message.
    pub fn expect(&self, wanted: &Message) -> Result<()> {
        match self.receive()? {
            Some(message) if message == *wanted => Ok(()),
            Some(Message::Failed(text)) => Err(Error::Init(text)),
            Some(other) => Err(Error::Init(format!("expected {wanted:?}, got {other:?}"))),
            None => Err(Error::Init("the other process has gone".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_and_a_closed_end_is_noticed() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::InCgroups).unwrap();
        a.send(&Message::Failed("x".repeat(MAX_MESSAGE * 2))).unwrap();
        b.expect(&Message::InCgroups).unwrap();
        assert!(matches!(b.receive().unwrap(), Some(Message::Failed(text)) if text.len() == MAX_MESSAGE - 1));
        a.send(&Message::Listener(17)).unwrap();
        b.expect(&Message::Listener(17)).unwrap();
        // Whoever fails has often not heard what was said meanwhile; why it failed must be heard all the same.
        b.send(&Message::InCgroups).unwrap();
        a.send(&Message::Failed("why".into())).unwrap();
        drop(a);
        assert_eq!(b.receive().unwrap(), Some(Message::Failed("why".into())));
        assert_eq!(b.receive().unwrap(), None);
    }
}
