//! What callers ask for and get: plain data, no behaviour.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// How the engine wants its networks; see `dockerd --help` for the flags of the same names.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds `dormouse.db`.
    pub data_root: PathBuf,
    /// Holds `netns/`.
    pub exec_root: PathBuf,
    /// The default bridge's device name; created when missing. `none` means: no default bridge network.
    pub bridge: String,
    /// Address and prefix of the default bridge; else the first free default pool.
    pub bip: Option<Ipv4Net>,
    /// Containers on the default bridge get addresses from this part of its subnet only.
    pub fixed_cidr: Option<Ipv4Net>,
    /// Where networks without a given subnet get theirs: a base and the prefix length of each subnet cut from it.
    pub address_pools: Vec<(Ipv4Net, u8)>,
    /// MTU of bridges and interfaces, bytes. 0 = the kernel's default (1500).
    pub mtu: u32,
    /// Switch on `net.ipv4.ip_forward`.
    pub ip_forward: bool,
    /// Masquerade what leaves the default bridge.
    pub ip_masq: bool,
    /// Manage firewall rules at all (`--iptables`).
    pub iptables: bool,
    /// Serve published ports also in this process, for traffic that the firewall rules do not catch.
    pub userland_proxy: bool,
    /// Containers on the default bridge may talk to each other.
    pub icc: bool,
    /// Where ports are published when no host address is given (`--ip`).
    pub default_publish_ip: Option<IpAddr>,
    /// Name servers for containers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains for containers instead of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options for containers instead of the host's.
    pub dns_options: Vec<String>,
    /// What `host-gateway` in `--add-host` stands for; else the default bridge's address.
    pub host_gateway: Option<IpAddr>,
    /// The host's resolver configuration.
    pub host_resolv_conf: PathBuf,
}

impl Config {
    /// Docker's defaults in the given places.
    pub fn new(data_root: impl Into<PathBuf>, exec_root: impl Into<PathBuf>, bridge: impl Into<String>) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            bridge: bridge.into(),
            bip: None,
            fixed_cidr: None,
            address_pools: crate::ipam::default_pools(),
            mtu: 0,
            ip_forward: true,
            ip_masq: true,
            iptables: true,
            userland_proxy: true,
            icc: true,
            default_publish_ip: None,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            host_gateway: None,
            host_resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

/// One `IPAM.Config` entry as asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamRequest {
    /// `--subnet`.
    pub subnet: Option<String>,
    /// `--ip-range`.
    pub ip_range: Option<String>,
    /// `--gateway`.
    pub gateway: Option<String>,
    /// `--aux-address`: names to addresses that are never given out.
    pub aux_addresses: BTreeMap<String, String>,
}

/// `docker network create`.
#[derive(Debug, Clone, Default)]
pub struct CreateNetwork {
    /// The name; unique.
    pub name: String,
    /// Empty = `bridge`.
    pub driver: String,
    /// Empty = a subnet from the default pools. One IPv4 entry is supported.
    pub ipam: Vec<IpamRequest>,
    /// `IPAM.Driver`; empty = `default`.
    pub ipam_driver: String,
    /// `IPAM.Options`, echoed: none at all is not the same as an empty set.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Driver options (`com.docker.network.bridge.name`, `….enable_icc`, `….enable_ip_masquerade`,
    /// `….host_binding_ipv4`, `com.docker.network.driver.mtu`).
    pub options: BTreeMap<String, String>,
    /// Labels, echoed.
    pub labels: BTreeMap<String, String>,
    /// No way out and in.
    pub internal: bool,
    /// Echoed.
    pub attachable: bool,
    /// `--ipv6`.
    pub enable_ipv6: bool,
}

/// Who brings packets from here to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A Linux bridge with a subnet.
    Bridge,
    /// The host's own namespace.
    Host,
    /// Nothing but loopback (Docker calls the driver `null`).
    Null,
}

impl Driver {
    /// Docker's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::Null => "null",
        }
    }
}

/// The addresses of a bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// The subnet.
    pub subnet: Ipv4Net,
    /// The bridge's own address, and the containers' gateway.
    pub gateway: Ipv4Addr,
    /// Addresses are given out from here; else from all of the subnet.
    pub ip_range: Option<Ipv4Net>,
    /// Never given out.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
    /// The subnet was asked for, so that containers may ask for addresses.
    pub user_subnet: bool,
    /// `IPAM.Options`, echoed: none at all is not the same as an empty set.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
}

/// A network, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// The driver.
    pub driver: Driver,
    /// RFC 3339 with nanoseconds.
    pub created: chrono::DateTime<chrono::Utc>,
    /// The addresses; none for `host` and `none`.
    pub ipam: Option<Ipam>,
    /// The bridge device; empty for `host` and `none`.
    pub bridge: String,
    /// Driver options as shown by inspect.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// No way out and in.
    pub internal: bool,
    /// Echoed.
    pub attachable: bool,
    /// Always false for now.
    pub enable_ipv6: bool,
    /// `bridge`, `host`, `none`: cannot be removed.
    pub predefined: bool,
}

impl Network {
    /// The default bridge network: no name service, no addresses on request.
    pub fn is_default_bridge(&self) -> bool {
        self.predefined && self.driver == Driver::Bridge
    }

    /// User-defined networks have a name service.
    pub fn has_name_service(&self) -> bool {
        !self.predefined && self.driver == Driver::Bridge
    }
}

/// A transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `tcp`.
    Tcp,
    /// `udp`.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" | "" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Err(crate::Error::NotImplemented("publishing sctp ports".to_owned())),
            other => Err(crate::Error::Invalid(format!("invalid proto: {other}"))),
        }
    }
}

/// A port to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPublish {
    /// Port in the container.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Host address; none = the default (all, IPv4 and IPv6).
    pub host_ip: Option<IpAddr>,
    /// Host port or range to take one from; none = any free one.
    pub host_port: Option<RangeInclusive<u16>>,
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// Port in the container.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Host address.
    pub host_ip: IpAddr,
    /// Host port.
    pub host_port: u16,
}

/// How a container wants to be on a network.
#[derive(Debug, Clone, Default)]
pub struct EndpointRequest {
    /// The container's name without slash: its DNS name, and what errors call it.
    pub container_name: String,
    /// A wanted address.
    pub ipv4: Option<Ipv4Addr>,
    /// Allow `ipv4` also where Docker does not (default bridge, subnets from pools): waking a checkpoint.
    pub restoring: bool,
    /// A wanted hardware address; else one derived from the IPv4 address.
    pub mac: Option<[u8; 6]>,
    /// The container's host name if it was given one: one more DNS name.
    pub hostname: String,
    /// More names, only in this network.
    pub aliases: Vec<String>,
    /// Ports to publish.
    pub ports: Vec<PortPublish>,
    /// What was published before, to be taken again where any free port is wanted.
    pub ports_before: Vec<PortBinding>,
    /// Name of the interface in the container; else the next free `ethN`.
    pub ifname: Option<String>,
    /// `--link`: alias → container name, resolved for this container only.
    pub links: BTreeMap<String, String>,
    /// The networks with the highest value gives the default route.
    pub gateway_priority: i64,
    /// Endpoint options, echoed.
    pub driver_opts: BTreeMap<String, String>,
    /// `--dns` of the container: where its name service asks on; else the engine's, else the host's.
    pub dns_servers: Vec<IpAddr>,
    /// More addresses of the interface, of 169.254/16.
    pub link_local: Vec<Ipv4Addr>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The network's id.
    pub network_id: String,
    /// The network's name.
    pub network_name: String,
    /// The container.
    pub container_id: String,
    /// Its name.
    pub container_name: String,
    /// Gateway of the subnet (unspecified on an internal network, as Docker shows it as empty).
    pub gateway: Option<Ipv4Addr>,
    /// The address; none on `host` and `none`.
    pub ipv4: Option<Ipv4Addr>,
    /// Its prefix length.
    pub prefix_len: u8,
    /// The hardware address; zeros on `host` and `none`.
    pub mac: [u8; 6],
    /// Interface in the container.
    pub ifname: String,
    /// Interface on the host.
    pub host_ifname: String,
    /// See [`EndpointRequest::hostname`].
    #[serde(default)]
    pub hostname: String,
    /// Aliases in this network.
    pub aliases: Vec<String>,
    /// Links.
    pub links: BTreeMap<String, String>,
    /// What is published.
    pub ports: Vec<PortBinding>,
    /// See [`EndpointRequest::gateway_priority`].
    pub gateway_priority: i64,
    /// Echoed.
    pub driver_opts: BTreeMap<String, String>,
    /// See [`EndpointRequest::dns_servers`].
    pub dns_servers: Vec<IpAddr>,
}

impl Endpoint {
    /// `02:42:ac:11:00:02`; empty on `host` and `none`.
    pub fn mac_text(&self) -> String {
        if self.mac == [0; 6] {
            return String::new();
        }
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// The names it answers to in its network, as Docker orders them: name, aliases, short id, host name.
    pub fn dns_names(&self) -> Vec<String> {
        let mut names = vec![self.container_name.clone()];
        names.extend(self.aliases.iter().cloned());
        names.push(self.container_id.chars().take(12).collect());
        names.push(self.hostname.clone());
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
        names
    }
}

/// Counters of one interface, as seen from inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Interface name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Dropped on sending.
    pub tx_dropped: u64,
}

/// What `--dns*` said for one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOptions {
    /// `--dns`.
    pub servers: Vec<IpAddr>,
    /// `--dns-search` (`.` = none at all).
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
}
