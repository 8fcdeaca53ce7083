//! The nftables messages that block the traffic of a network namespace, sent without executing `nft`.
//!
//! Attributes within attributes; `linux/netfilter/nf_tables.h` has the numbers. The kernel checks every length: a mistake
//! here is refused, not obeyed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;
const FAMILY_INET: u8 = 1;
/// The table goes with the socket that has made it.
const TABLE_OWNED: u32 = 2;
/// Its elements go by themselves.
const SET_TIMEOUT: u32 = 0x10;
const SET: &str = "on";
const HOOK_IN: u32 = 1;
const HOOK_OUT: u32 = 3;
/// Before everything else.
const PRIORITY: i32 = -400;
const KEY_IIF: u32 = 4;
const KEY_OIF: u32 = 5;
const KEY_PROTOCOL: u32 = 16;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const TCP: u8 = 6;
/// The loopback interface is the first of every namespace.
const LOOPBACK: u32 = 1;

/// How long traffic stays blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// As long as the socket is open: whatever becomes of this process, nothing stays blocked.
    Closed,
    /// So many milliseconds, whatever becomes of this process.
    Milliseconds(u64),
}

/// What becomes of loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// It is left alone.
    Open,
    /// TCP is lost on its way in.
    WithoutTcp,
}

/// A socket that changes the tables of the namespace it was made in.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// In the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        let protocol = Some(netlink::NETFILTER);
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Socket(socket))
    }

    /// Blocks everything that does not go over loopback, by a table of this name.
    pub fn block(&self, table: &str, until: Until, loopback: Loopback) -> io::Result<()> {
        let new = Attributes::default;
        let mut batch = Batch::new();
        let flags = if until == Until::Closed { TABLE_OWNED } else { 0 };
        batch.message(NEW_TABLE, CREATE, &new().text(1, table).number(2, flags));
        if let Until::Milliseconds(milliseconds) = until {
            let set = new().text(1, table).text(2, SET).number(3, SET_TIMEOUT).number(5, 4).number(10, 1);
            batch.message(NEW_SET, CREATE, &set);
            let element = new().data(1, &0u32.to_ne_bytes()).bytes(4, &milliseconds.to_be_bytes());
            let elements = new().nested(1, &element);
            batch.message(NEW_ELEMENT, CREATE, &new().text(1, table).text(2, SET).nested(3, &elements));
        }
        for (chain, hook, key) in [("in", HOOK_IN, KEY_IIF), ("out", HOOK_OUT, KEY_OIF)] {
            let at = new().number(1, hook).bytes(2, &PRIORITY.to_be_bytes());
            batch.message(NEW_CHAIN, CREATE, &new().text(1, table).text(3, chain).nested(4, &at).text(7, "filter"));
            let mut rule = new()
                .expression("meta", &new().number(1, 1).number(2, key))
                .expression("cmp", &new().number(1, 1).number(2, NOT_EQUAL).data(3, &LOOPBACK.to_ne_bytes()));
            if until != Until::Closed {
                rule = rule
                    .expression("immediate", &new().number(1, 1).data(2, &0u32.to_ne_bytes()))
                    .expression("lookup", &new().text(1, SET).number(2, 1).number(4, 1));
            }
            let drop = new().nested(2, &new().number(1, 0));
            rule = rule.expression("immediate", &new().number(1, 0).nested(2, &drop));
            batch.message(NEW_RULE, CREATE, &new().text(1, table).text(2, chain).nested(4, &rule));
            if key == KEY_IIF && loopback == Loopback::WithoutTcp {
                let rule = new()
                    .expression("meta", &new().number(1, 1).number(2, key))
                    .expression("cmp", &new().number(1, 1).number(2, EQUAL).data(3, &LOOPBACK.to_ne_bytes()))
                    .expression("meta", &new().number(1, 1).number(2, KEY_PROTOCOL))
                    .expression("cmp", &new().number(1, 1).number(2, EQUAL).data(3, &[TCP]))
                    .expression("immediate", &new().number(1, 0).nested(2, &drop));
                batch.message(NEW_RULE, CREATE, &new().text(1, table).text(2, chain).nested(4, &rule));
            }
        }
        self.send(batch)
    }

    /// Removes a table; one that is not there is fine.
    pub fn remove(&self, table: &str) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.message(DELETE_TABLE, 0, &Attributes::default().text(1, table));
        match self.send(batch) {
            Err(err) if err.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// The kernel takes all of it or nothing.
    fn send(&self, mut batch: Batch) -> io::Result<()> {
        let expected = batch.messages - 1;
        batch.frame(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]);
        rustix::net::send(&self.0, &batch.bytes, SendFlags::empty())?;
        // The kernel has worked everything off within that call: all answers are there.
        let mut acknowledged = 0;
        let mut buffer = [0u8; 8192];
        loop {
            let length = match rustix::net::recv(self.0.as_fd(), &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) if acknowledged == expected => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => return Err(io::Error::other("nftables has not answered")),
                Err(errno) => return Err(errno.into()),
            };
            for code in answers(&buffer[..length]) {
                acknowledged += 1;
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
            }
        }
    }
}

/// The codes of all acknowledgements in a datagram.
fn answers(mut rest: &[u8]) -> Vec<i32> {
    let mut codes = Vec::new();
    while let Some((head, _)) = rest.split_at_checked(20) {
        let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if u16::from_ne_bytes([head[4], head[5]]) == ERROR {
            codes.push(number(16).cast_signed());
        }
        let length = usize::try_from(number(0)).unwrap_or(usize::MAX).max(20).saturating_add(3) & !3;
        rest = rest.get(length..).unwrap_or_default();
    }
    codes
}

/// Bytes of attributes, each padded to four.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Nothing here comes near 64 KiB; a truncated length would be refused by the kernel.
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn nested(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    fn data(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, &Attributes::default().bytes(1, value))
    }

    fn expression(self, name: &str, data: &Attributes) -> Self {
        self.nested(1, &Attributes::default().text(1, name).nested(2, data))
    }
}

struct Batch {
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Batch { bytes: Vec::with_capacity(2048), messages: 0 };
        batch.frame(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
        batch
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        self.frame((SUBSYSTEM << 8) | kind, REQUEST | ACK | flags, FAMILY_INET, 0, &attributes.0);
    }

    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        self.bytes.extend(((16 + 4 + body.len()) as u32).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
        self.messages += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_any_shape_are_read_within_bounds() {
        let mut answer = Vec::new();
        for code in [0i32, -2] {
            answer.extend(36u32.to_ne_bytes());
            answer.extend(ERROR.to_ne_bytes());
            answer.extend([0; 10]);
            answer.extend(code.to_ne_bytes());
            answer.extend([0; 16]);
        }
        assert_eq!(answers(&answer), [0, -2]);
        for cut in 0..answer.len() {
            answers(&answer[..cut]);
        }
        answer[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(answers(&answer), [0]);
    }
}
