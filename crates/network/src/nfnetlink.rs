//! The few nftables messages that are on the way of a starting container, sent without executing `nft` (which costs
//! several milliseconds, the message itself a tenth of one): elements of existing maps, and the small table that leads
//! a container to its name service. Everything larger is text for `nft`, in `firewall`.
//!
//! No library does this without linking C code; the format is attributes within attributes, `linux/netfilter/
//! nf_tables.h` has the numbers. The kernel checks every length: a mistake here is refused, not obeyed.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::Protocol;

const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_EXCLUSIVE: u16 = 0x200;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;

const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;

/// Bytes of attributes, each padded to four.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Nothing here comes near 64 KiB; a truncated length would be refused by the kernel.
        let length = (value.len() + 4) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    fn data(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, Attributes::default().bytes(DATA_VALUE, value))
    }
}

/// Messages that the kernel takes all or none.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self { bytes: Vec::with_capacity(1024), messages: 0 };
        batch.frame(BATCH_BEGIN, FLAG_REQUEST, 0, SUBSYSTEM_NFTABLES, &[]);
        batch
    }

    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        let length = (HEADER_BYTES + 4 + body.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
        self.messages += 1;
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: Attributes) {
        const IPV4: u8 = 2;
        let kind = (SUBSYSTEM_NFTABLES << 8) | kind;
        self.frame(kind, FLAG_REQUEST | FLAG_ACK | flags, IPV4, 0, &attributes.0);
    }

    /// Adds `key : target` to a map.
    pub(crate) fn add_element(&mut self, table: &str, map: &str, key: &[u8], target: (Ipv4Addr, u16)) {
        let mut data = target.0.octets().to_vec();
        data.extend(padded_port(target.1));
        let element = Attributes::default().data(1, key).data(2, &data);
        self.message(NEW_ELEMENT, FLAG_CREATE, element_list(table, map, element));
    }

    /// Takes `key` out of a map.
    pub(crate) fn delete_element(&mut self, table: &str, map: &str, key: &[u8]) {
        self.message(DELETE_ELEMENT, 0, element_list(table, map, Attributes::default().data(1, key)));
    }

    /// Sends everything, in the calling thread's namespace. The first refusal is the error, and then nothing was done.
    pub(crate) fn send(mut self) -> io::Result<()> {
        let expected = self.messages - 1;
        self.frame(BATCH_END, FLAG_REQUEST, 0, SUBSYSTEM_NFTABLES, &[]);
        let (acknowledged, failure) = exchange(&self.bytes)?;
        match failure {
            Some(error) => Err(error),
            None if acknowledged < expected => Err(io::Error::other("nftables batch was not acknowledged")),
            None => Ok(()),
        }
    }
}

/// Sends, and counts the acknowledgements; with the first refusal among them.
fn exchange(bytes: &[u8]) -> io::Result<(u32, Option<io::Error>)> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_cap_ack(true)?;
    socket.send(bytes, 0)?;
    // The kernel has worked everything off within that call: all answers are there.
    socket.set_non_blocking(true)?;
    let mut acknowledged = 0;
    let mut failure = None;
    let mut buffer = vec![0u8; 8192];
    loop {
        let length = match socket.recv(&mut &mut buffer[..], 0) {
            Ok(length) => length.min(buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((acknowledged, failure)),
            Err(error) => return Err(error),
        };
        for code in answers(&buffer[..length]) {
            acknowledged += 1;
            if code != 0 && failure.is_none() {
                failure = Some(io::Error::from_raw_os_error(-code));
            }
        }
    }
}

/// Makes the kernel forget UDP exchanges with a port of a container that has left: they would go on being led to its
/// address for as long as the peer keeps sending. (Exchanges over TCP are kept: a woken container continues them.)
pub(crate) fn forget_udp(address: Ipv4Addr, port: u16) -> io::Result<()> {
    const SUBSYSTEM_CONNTRACK: u16 = 1;
    const DELETE: u16 = 2;
    const TUPLE_REPLY: u16 = 2;
    const FILTER: u16 = 25;
    // Bits of `CTA_FILTER_REPLY_FLAGS`: compare the source address, the protocol, the source port.
    const SOURCE_PROTOCOL_PORT: u32 = 1 << 0 | 1 << 3 | 1 << 4;
    let new = Attributes::default;
    let protocol = new().bytes(1, &[protocol_number(Protocol::Udp)]).bytes(2, &port.to_be_bytes());
    let tuple = new().nested(1, new().bytes(1, &address.octets())).nested(2, protocol);
    let filter = new().bytes(2, &SOURCE_PROTOCOL_PORT.to_ne_bytes());
    let attributes = new().nested(TUPLE_REPLY, tuple).nested(FILTER, filter);
    let mut message = Batch { bytes: Vec::new(), messages: 0 };
    let kind = (SUBSYSTEM_CONNTRACK << 8) | DELETE;
    message.frame(kind, FLAG_REQUEST | FLAG_ACK, 2, 0, &attributes.0);
    match exchange(&message.bytes)?.1 {
        Some(error) if error.raw_os_error() != Some(nix::libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// The codes of all acknowledgements in a datagram.
fn answers(mut rest: &[u8]) -> Vec<i32> {
    let mut codes = Vec::new();
    while rest.len() >= HEADER_BYTES {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if length < HEADER_BYTES || length > rest.len() {
            break;
        }
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        if kind == NLMSG_ERROR && length >= HEADER_BYTES + 4 {
            codes.push(i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]));
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    codes
}

fn element_list(table: &str, map: &str, element: Attributes) -> Attributes {
    let elements = Attributes::default().nested(LIST_ELEMENT, element);
    Attributes::default().text(1, table).text(2, map).nested(3, elements)
}

/// A port as one part of a concatenation: parts begin at multiples of four bytes.
fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// `[address .] protocol . port` as a map key.
pub(crate) fn port_key(address: Option<Ipv4Addr>, protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = address.map(|address| address.octets().to_vec()).unwrap_or_default();
    key.extend([protocol_number(protocol), 0, 0, 0]);
    key.extend(padded_port(port));
    key
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// In the calling thread's namespace: leads `from` (both protocols) to where the name service listens.
pub(crate) fn redirect(table: &str, from: SocketAddrV4, udp: SocketAddrV4, tcp: SocketAddrV4) -> io::Result<()> {
    match redirect_batch(table, from, udp, tcp, false).send() {
        // Left by an earlier run of the engine.
        Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => {
            redirect_batch(table, from, udp, tcp, true).send()
        }
        other => other,
    }
}

/// Deleting costs a grace period, so a table that is not there is not deleted.
fn redirect_batch(table: &str, from: SocketAddrV4, udp: SocketAddrV4, tcp: SocketAddrV4, replace: bool) -> Batch {
    const LOCAL_OUT: u32 = 3;
    const DNAT_PRIORITY: i32 = -100;
    const ACCEPT: u32 = 1;
    let named = || Attributes::default().text(1, table);
    let mut batch = Batch::new();
    if replace {
        batch.message(DELETE_TABLE, 0, named());
    }
    batch.message(NEW_TABLE, FLAG_CREATE | FLAG_EXCLUSIVE, named());
    let hook = Attributes::default().number(1, LOCAL_OUT).bytes(2, &DNAT_PRIORITY.to_be_bytes());
    let chain = named().text(3, "output").nested(4, hook).number(5, ACCEPT).text(7, "nat");
    batch.message(NEW_CHAIN, FLAG_CREATE, chain);
    for (protocol, to) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        let rule = named().text(2, "output").nested(4, dnat_expressions(protocol, from, to));
        batch.message(NEW_RULE, FLAG_CREATE | FLAG_APPEND, rule);
    }
    batch
}

/// `ip daddr FROM <protocol> dport FROM dnat to TO`.
fn dnat_expressions(protocol: Protocol, from: SocketAddrV4, to: SocketAddrV4) -> Attributes {
    const NETWORK_HEADER: u32 = 1;
    const TRANSPORT_HEADER: u32 = 2;
    const META_L4PROTO: u32 = 16;
    const DNAT: u32 = 1;
    const FAMILY_IPV4: u32 = 2;
    let new = Attributes::default;
    let load =
        |base, offset, length| ("payload", new().number(1, 1).number(2, base).number(3, offset).number(4, length));
    let equals = |value: &[u8]| ("cmp", new().number(1, 1).number(2, 0).data(3, value));
    let immediate = |register, value: &[u8]| ("immediate", new().number(1, register).data(2, value));
    let expressions = [
        load(NETWORK_HEADER, 16, 4),
        equals(&from.ip().octets()),
        ("meta", new().number(1, 1).number(2, META_L4PROTO)),
        equals(&[protocol_number(protocol)]),
        load(TRANSPORT_HEADER, 2, 2),
        equals(&from.port().to_be_bytes()),
        immediate(1, &to.ip().octets()),
        immediate(2, &to.port().to_be_bytes()),
        ("nat", new().number(1, DNAT).number(2, FAMILY_IPV4).number(3, 1).number(5, 2)),
    ];
    expressions
        .into_iter()
        .fold(new(), |list, (name, data)| list.nested(LIST_ELEMENT, new().text(1, name).nested(2, data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_padded_concatenations() {
        assert_eq!(port_key(None, Protocol::Tcp, 8080), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(port_key(Some(Ipv4Addr::LOCALHOST), Protocol::Udp, 53), [127, 0, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
    }

    #[test]
    fn attributes_are_padded_and_answers_are_read_within_bounds() {
        let attributes = Attributes::default().text(1, "ab");
        assert_eq!(attributes.0, [7, 0, 1, 0, b'a', b'b', 0, 0]);
        let mut answer = vec![0u8; 36];
        answer[0] = 36;
        answer[4] = 2;
        answer[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(answers(&answer), [-17]);
        for length in 0..36 {
            assert!(answers(&answer[..length]).is_empty());
        }
    }
}
