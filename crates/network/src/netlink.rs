//! A blocking rtnetlink socket that sends several requests in one message and reads all answers.
//!
//! Blocking on purpose: a request takes microseconds, and a socket belongs to the network namespace of the thread that
//! opened it, which async tasks cannot promise. It must never be used to delete a link on a path somebody waits on.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Large enough for any datagram the kernel makes of a dump (it caps them at 32 KiB).
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

/// One request of a batch.
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

/// An open rtnetlink socket, bound to the namespace it was opened in.
pub(crate) struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends all requests as one message; the kernel works them off in order. The first refusal is the error, but
    /// later requests have been tried too.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let mut waiting = requests.len();
        let last = self.send(requests, NLM_F_ACK)?;
        let first = last.wrapping_sub(waiting as u32).wrapping_add(1);
        let mut failure = None;
        while waiting > 0 {
            for message in self.receive()? {
                let sequence = message.header.sequence_number;
                if sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue; // an answer to an earlier, abandoned request
                }
                if let NetlinkPayload::Error(answer) = message.payload {
                    waiting -= 1;
                    if answer.code.is_some() && failure.is_none() {
                        failure = Some(answer.to_io());
                    }
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Sends one request and collects what it brings (a dump, or one object).
    pub(crate) fn query(&mut self, message: RouteNetlinkMessage, dump: bool) -> io::Result<Vec<RouteNetlinkMessage>> {
        let extra = if dump { NLM_F_DUMP } else { NLM_F_ACK };
        let sequence = self.send(vec![Request { message, flags: 0 }], extra)?;
        let mut found = Vec::new();
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Error(answer) if answer.code.is_some() => return Err(answer.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, requests: Vec<Request>, extra_flags: u16) -> io::Result<u32> {
        let mut bytes = Vec::with_capacity(512 * requests.len());
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let mut message = NetlinkMessage::from(request.message);
            message.header.flags = NLM_F_REQUEST | request.flags | extra_flags;
            message.header.sequence_number = self.sequence;
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.socket.send(&bytes, 0)?;
        Ok(self.sequence)
    }

    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let mut buffer = vec![0u8; RECEIVE_BUFFER_BYTES];
        let length = loop {
            match self.socket.recv(&mut &mut buffer[..], 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let mut messages = Vec::new();
        let mut rest = &buffer[..length.min(RECEIVE_BUFFER_BYTES)];
        while rest.len() >= 16 {
            let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if size < 16 || size > rest.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "truncated netlink message"));
            }
            messages.push(NetlinkMessage::deserialize(&rest[..size]).map_err(io::Error::other)?);
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
        Ok(messages)
    }

    /// The link of that name.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<LinkMessage>> {
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.query(RouteNetlinkMessage::GetLink(wanted), false) {
            Ok(found) => Ok(found.into_iter().find_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Index of the link of that name; `ENODEV` if there is none.
    pub(crate) fn index(&mut self, name: &str) -> io::Result<u32> {
        self.look(name).map(|(index, _)| index)
    }

    /// Whether a link that has just got its carrier takes packets yet. The kernel sees to that behind the back of who
    /// brought it up; since Linux 6.8 being asked makes it do so at once.
    pub(crate) fn is_running(&mut self, name: &str) -> io::Result<bool> {
        self.look(name).map(|(_, flags)| flags & nix::libc::IFF_RUNNING.cast_unsigned() != 0)
    }

    /// Index and flags of a link. On the way of every start, so only the header of the answer is read: parsing all that a
    /// link has to tell takes longer than the rest of the call.
    fn look(&mut self, name: &str) -> io::Result<(u32, u32)> {
        const NEW_LINK: u16 = 16;
        const NLMSG_ERROR: u16 = 2;
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.to_owned()));
        wanted.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let sequence = self.send(vec![Request { message: RouteNetlinkMessage::GetLink(wanted), flags: 0 }], 0)?;
        let mut buffer = [0u8; 8192];
        loop {
            let length = match self.socket.recv(&mut &mut buffer[..], 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let answer = &buffer[..length.min(buffer.len())];
            let number = |at: usize| {
                answer.get(at..at + 4).map_or(0, |four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
            };
            if number(8) != sequence {
                continue; // an answer to an earlier, abandoned request
            }
            // `struct nlmsghdr`, then the error code or `struct ifinfomsg`: index and flags are its second and third word.
            return match number(4) as u16 {
                NEW_LINK => Ok((number(20), number(24))),
                NLMSG_ERROR => Err(io::Error::from_raw_os_error((number(16) as i32).wrapping_neg())),
                _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
            };
        }
    }

    /// The IPv4 addresses of a link.
    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<Vec<Ipv4Net>> {
        let mut wanted = AddressMessage::default();
        wanted.header.family = AddressFamily::Inet;
        let found = self.query(RouteNetlinkMessage::GetAddress(wanted), true)?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(address) if address.header.index == index => Some(address),
                _ => None,
            })
            .filter_map(|address| {
                let length = address.header.prefix_len;
                address.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(ip)) => Ipv4Net::new(*ip, length).ok(),
                    _ => None,
                })
            })
            .collect())
    }

    /// The IPv4 destinations this host has routes to, the default route left out.
    pub(crate) fn routed(&mut self) -> io::Result<Vec<Ipv4Net>> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = AddressFamily::Inet;
        let found = self.query(RouteNetlinkMessage::GetRoute(wanted), true)?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) if route.header.table == RouteHeader::RT_TABLE_MAIN => Some(route),
                _ => None,
            })
            .filter_map(|route| {
                let length = route.header.destination_prefix_length;
                route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) if length > 0 => Ipv4Net::new(*ip, length).ok(),
                    _ => None,
                })
            })
            .collect())
    }
}

/// `ip link set INDEX up`.
pub(crate) fn link_up(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    set_up(&mut link);
    Request { message: RouteNetlinkMessage::SetLink(link), flags: 0 }
}

/// `ip link delete NAME`: takes a grace period; see the module's rule.
pub(crate) fn link_delete(name: &str) -> Request {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Request { message: RouteNetlinkMessage::DelLink(link), flags: 0 }
}

/// `ip link add NAME address MAC type bridge`, without spanning tree and forwarding delay. Not yet up.
pub(crate) fn bridge_add(name: &str, mac: [u8; 6], mtu: u32) -> Request {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    // A fixed address: an unset one would follow the ports' and confuse every ARP cache.
    link.attributes.push(LinkAttribute::Address(mac.to_vec()));
    if mtu != 0 {
        link.attributes.push(LinkAttribute::Mtu(mtu));
    }
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)])),
    ]));
    Request { message: RouteNetlinkMessage::NewLink(link), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// A veth pair to be born where it belongs.
pub(crate) struct Veth<'a> {
    /// Name on the host.
    pub host_name: &'a str,
    /// Index of the bridge.
    pub bridge_index: u32,
    /// Name in the container.
    pub peer_name: &'a str,
    /// Hardware address in the container.
    pub peer_mac: [u8; 6],
    /// The container's namespace.
    pub peer_netns: RawFd,
    /// Bytes; 0 = default.
    pub mtu: u32,
}

/// Both ends at once: the host's on the bridge and up, the container's in its namespace. (The kernel configures the
/// peer before it has tied the two together, so that one cannot be brought up in the same message.)
pub(crate) fn veth_add(veth: &Veth<'_>) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(veth.peer_name.to_owned()));
    peer.attributes.push(LinkAttribute::Address(veth.peer_mac.to_vec()));
    peer.attributes.push(LinkAttribute::NetNsFd(veth.peer_netns));
    let mut host = LinkMessage::default();
    set_up(&mut host);
    host.attributes.push(LinkAttribute::IfName(veth.host_name.to_owned()));
    host.attributes.push(LinkAttribute::Controller(veth.bridge_index));
    if veth.mtu != 0 {
        host.attributes.push(LinkAttribute::Mtu(veth.mtu));
        peer.attributes.push(LinkAttribute::Mtu(veth.mtu));
    }
    host.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request { message: RouteNetlinkMessage::NewLink(host), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// How a bridge port treats frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortMode {
    /// Does not talk to other isolated ports of its bridge.
    pub isolated: bool,
    /// Frames may go back out where they came in: a container that reaches itself by a published port, where
    /// `bridge-nf-call-iptables` makes the bridge itself carry such packets.
    pub hairpin: bool,
}

/// `bridge link set`.
pub(crate) fn port_mode(index: u32, mode: PortMode) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Isolated(mode.isolated),
            InfoBridgePort::HairpinMode(mode.hairpin),
        ])),
    ]));
    Request { message: RouteNetlinkMessage::NewLink(link), flags: 0 }
}

/// Tells the bridge that `mac` is behind port `index` from now on, wherever it has seen it before. The entry lives as
/// long as the port (a learned one could not be made before the port has a carrier).
pub(crate) fn fdb_replace(index: u32, mac: [u8; 6]) -> Request {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = AddressFamily::Bridge;
    neighbour.header.ifindex = index;
    neighbour.header.state = NeighbourState::Noarp;
    neighbour.header.flags = NeighbourFlags::Controller;
    neighbour.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    Request { message: RouteNetlinkMessage::NewNeighbour(neighbour), flags: NLM_F_CREATE | NLM_F_REPLACE }
}

/// `ip addr add`.
pub(crate) fn address_add(index: u32, address: Ipv4Addr, prefix_len: u8) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address.into()));
    message.attributes.push(AddressAttribute::Address(address.into()));
    if let Ok(net) = Ipv4Net::new(address, prefix_len)
        && prefix_len < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
    }
    Request { message: RouteNetlinkMessage::NewAddress(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
}

/// `ip route replace default via GATEWAY`.
pub(crate) fn default_route(gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    Request { message: RouteNetlinkMessage::NewRoute(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
}

fn set_up(link: &mut LinkMessage) {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
}
