//! Host ports: taken by binding a listening socket, so that nobody else can have them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use crate::firewall::HostPort;
use crate::{Error, PortBinding, PortPublish, Protocol, Result};

/// Where free ports begin and end, unless the kernel says otherwise.
const EPHEMERAL: RangeInclusive<u16> = 49153..=65535;

/// The kernel's range of ports for those who do not care: Docker publishes on these, too.
fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) if 0 < first && first < last => first..=last,
        _ => EPHEMERAL,
    }
}

/// A bound host port.
pub(crate) struct Bound {
    pub binding: PortBinding,
    pub socket: OwnedFd,
}

/// Who asks, for error texts.
pub(crate) struct Asker<'a> {
    pub endpoint: &'a str,
    pub endpoint_id: &'a str,
    pub container_ip: Ipv4Addr,
    /// What this engine's containers have published: Docker has other words for a port that is one of these.
    pub ours: &'a [(u16, Protocol)],
    /// Not to be given to who takes any: they are kept for containers that sleep.
    pub kept: &'a HashSet<(u16, Protocol)>,
    /// What the container had when it was put to sleep: for who takes any the first choice.
    pub before: &'a [PortBinding],
}

/// Binds everything or nothing.
pub(crate) fn publish(
    asker: &Asker<'_>,
    wanted: &[PortPublish],
    default_ip: Option<IpAddr>,
    start_at: &mut u16,
) -> Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for port in wanted {
        bound.extend(publish_one(asker, port, default_ip, start_at)?);
    }
    Ok(bound)
}

/// Binds again what was bound before a restart.
pub(crate) fn rebind(binding: &PortBinding) -> std::io::Result<Bound> {
    let socket = bind_one(SocketAddr::new(binding.host_ip, binding.host_port), binding.protocol)?;
    Ok(Bound { binding: binding.clone(), socket })
}

fn publish_one(
    asker: &Asker<'_>,
    wanted: &PortPublish,
    default_ip: Option<IpAddr>,
    start_at: &mut u16,
) -> Result<Vec<Bound>> {
    let addresses: Vec<IpAddr> = match wanted.host_ip.or(default_ip) {
        Some(ip) if ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![ip],
        Some(ip) => vec![ip],
        None if has_ipv6() => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        None => vec![Ipv4Addr::UNSPECIFIED.into()],
    };
    let range = wanted.host_port.clone().filter(|range| *range != (0..=0));
    let fixed = range.as_ref().is_some_and(|range| range.start() == range.end());
    let candidates: Vec<u16> = match range {
        Some(range) => range.filter(|port| *port != 0).collect(),
        None => {
            let all = ephemeral();
            let from = if all.contains(start_at) { *start_at } else { *all.start() };
            let had = |before: &&PortBinding| {
                before.container_port == wanted.container_port && before.protocol == wanted.protocol
            };
            let before = asker.before.iter().filter(had).map(|before| before.host_port);
            let free = |port: &u16| !asker.kept.contains(&(*port, wanted.protocol));
            before.chain(from..=*all.end()).chain(*all.start()..from).filter(free).collect()
        }
    };
    let ephemeral = wanted.host_port.as_ref().is_none_or(|range| *range == (0..=0));
    for port in candidates {
        match bind_all(&addresses, port, wanted) {
            Ok(bound) => {
                if ephemeral {
                    // Past the end is no place to start at: the next one begins anew.
                    *start_at = port.wrapping_add(1);
                }
                return Ok(bound);
            }
            Err((address, error)) => {
                let taken = error.kind() == std::io::ErrorKind::AddrInUse;
                if fixed && taken && asker.ours.contains(&(port, wanted.protocol)) {
                    return Err(Error::PortAllocated {
                        endpoint: asker.endpoint.to_owned(),
                        endpoint_id: asker.endpoint_id.to_owned(),
                        address: SocketAddr::new(address, port),
                    });
                }
                if fixed || !taken {
                    return Err(Error::PortBind {
                        endpoint: asker.endpoint.to_owned(),
                        endpoint_id: asker.endpoint_id.to_owned(),
                        binding: format!(
                            "{}:{}:{}/{}",
                            SocketAddr::new(address, port),
                            asker.container_ip,
                            wanted.container_port,
                            wanted.protocol.name()
                        ),
                        reason: reason(&error),
                    });
                }
            }
        }
    }
    Err(Error::PortsExhausted { endpoint: asker.endpoint.to_owned(), endpoint_id: asker.endpoint_id.to_owned() })
}

/// The system's words as Go, and so Docker, writes them.
fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::EADDRINUSE) => "address already in use".to_owned(),
        Some(nix::libc::EADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
        Some(nix::libc::EACCES) => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn bind_all(
    addresses: &[IpAddr],
    port: u16,
    wanted: &PortPublish,
) -> std::result::Result<Vec<Bound>, (IpAddr, std::io::Error)> {
    let bind = |ip: &IpAddr| {
        let socket = bind_one(SocketAddr::new(*ip, port), wanted.protocol).map_err(|error| (*ip, error))?;
        let binding = PortBinding {
            container_port: wanted.container_port,
            protocol: wanted.protocol,
            host_ip: *ip,
            host_port: port,
        };
        Ok(Bound { binding, socket })
    };
    addresses.iter().map(bind).collect()
}

fn bind_one(address: SocketAddr, protocol: Protocol) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(number))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        // Listening is what makes the port ours: two sockets with SO_REUSEADDR may both bind.
        listen(&socket, 4096)?;
    }
    Ok(socket)
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// The firewall's view of a binding; none for IPv6, which the proxy serves.
pub(crate) fn host_port(binding: &PortBinding) -> Option<HostPort> {
    match binding.host_ip {
        IpAddr::V4(ip) => Some(HostPort {
            address: (!ip.is_unspecified()).then_some(ip),
            protocol: binding.protocol,
            port: binding.host_port,
        }),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn asker() -> Asker<'static> {
        static NOTHING: LazyLock<HashSet<(u16, Protocol)>> = LazyLock::new(HashSet::new);
        let container_ip = Ipv4Addr::new(172, 17, 0, 2);
        Asker { endpoint: "web", endpoint_id: "abc", container_ip, ours: &[], kept: &NOTHING, before: &[] }
    }

    fn wanted(ports: Option<RangeInclusive<u16>>) -> PortPublish {
        PortPublish {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: Some(Ipv4Addr::LOCALHOST.into()),
            host_port: ports,
        }
    }

    #[test]
    fn a_taken_port_is_named_and_a_range_finds_the_next() {
        let mut next = 50000;
        let first = publish(&asker(), &[wanted(None)], None, &mut next).unwrap();
        let port = first[0].binding.host_port;
        assert_eq!(next, port + 1);
        let error = publish(&asker(), &[wanted(Some(port..=port))], None, &mut next).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint \
                 web (abc): failed to bind host port for 127.0.0.1:{port}:172.17.0.2:80/tcp: address already in use"
            )
        );
        let second = publish(&asker(), &[wanted(Some(port..=port + 20))], None, &mut next).unwrap();
        assert!(second[0].binding.host_port > port);
    }

    #[test]
    fn who_takes_any_gets_what_it_had_and_nothing_that_is_kept() {
        let mut next = 51000;
        let first = publish(&asker(), &[wanted(None)], None, &mut next).unwrap().remove(0);
        let (had, port) = (first.binding.clone(), first.binding.host_port);
        let kept = HashSet::from([(port, Protocol::Tcp)]);
        drop(first);
        next = port;
        let other = publish(&Asker { kept: &kept, ..asker() }, &[wanted(None)], None, &mut next).unwrap();
        assert_ne!(other[0].binding.host_port, port);
        let asker = Asker { before: &[had], ..asker() };
        let again = publish(&asker, &[wanted(None)], None, &mut next).unwrap();
        assert_eq!(again[0].binding.host_port, port);
        // Gone to somebody else it is not waited for.
        let another = publish(&asker, &[wanted(None)], None, &mut next).unwrap();
        assert_ne!(another[0].binding.host_port, port);
        // Whoever asks for it by number is meant to have it.
        drop(again);
        let asker = Asker { kept: &kept, ..self::asker() };
        assert!(publish(&asker, &[wanted(Some(port..=port))], None, &mut next).is_ok());
    }
}
