//! Making and removing networks, and the bridge devices below them.

use std::net::IpAddr;

use chrono::Utc;

use crate::firewall::BridgeRules;
use crate::ipam::{self, Pool};
use crate::netlink::{self, Rtnl};
use crate::state::{NetworkState, State};
use crate::sys::{lock, random_id, random_mac, sysctl};
use crate::{CreateNetwork, Driver, Error, Inner, Ipam, Network, Result};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const ENABLE_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const MTU: &str = "com.docker.network.driver.mtu";

/// Names nobody may give to a network.
const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];

/// Driver options, read.
pub(crate) struct BridgeOptions {
    pub icc: bool,
    pub masquerade: bool,
    pub host_binding: Option<IpAddr>,
    pub mtu: u32,
}

impl BridgeOptions {
    /// Reads the options of a network; unset ones have Docker's defaults.
    pub(crate) fn of(network: &Network, default_mtu: u32) -> Result<Self> {
        let get = |key: &str| network.options.get(key).filter(|value| !value.is_empty());
        let bad = |key: &str, value: &str| Error::Invalid(format!("invalid value {value:?} for driver option {key}"));
        let flag = |key: &str| {
            get(key).map_or(Ok(true), |value| match value.to_ascii_lowercase().as_str() {
                "1" | "t" | "true" => Ok(true),
                "0" | "f" | "false" => Ok(false),
                _ => Err(bad(key, value)),
            })
        };
        let mtu = get(MTU).map(|value| value.parse::<u32>().map_err(|_| bad(MTU, value))).transpose()?;
        if mtu.is_some_and(|mtu| mtu != 0 && !(68..=65_535).contains(&mtu)) {
            return Err(bad(MTU, get(MTU).map_or("", String::as_str)));
        }
        let host_binding = get(HOST_BINDING).map(|value| value.parse::<IpAddr>().map_err(|_| bad(HOST_BINDING, value)));
        let host_binding = host_binding.transpose()?.filter(|ip| !ip.is_unspecified());
        Ok(Self {
            icc: flag(ENABLE_ICC)?,
            masquerade: flag(ENABLE_MASQUERADE)?,
            host_binding,
            mtu: mtu.unwrap_or(default_mtu),
        })
    }
}

impl Inner {
    /// Makes a user-defined network.
    pub(crate) fn create_network(&self, request: CreateNetwork) -> Result<Network> {
        check_name(&request.name)?;
        check_driver(&request)?;
        if request.enable_ipv6 {
            return Err(Error::NotImplemented("IPv6 in networks".to_owned()));
        }
        if !matches!(request.ipam_driver.as_str(), "" | "default") {
            return Err(Error::NotImplemented(format!("IPAM driver {:?}", request.ipam_driver)));
        }
        let routed = lock(&self.host).routed().map_err(Error::io("list routes"))?;
        let network = {
            let mut state = lock(&self.state);
            let network = plan(&state, &self.config, request, &routed)?;
            let pool = network.ipam.as_ref().map(Pool::new);
            state.networks.insert(network.id.clone(), NetworkState { record: network.clone(), pool });
            network
        };
        let made = self.bring_up(&network).and_then(|()| self.records.put_network(&network));
        if let Err(error) = made.and_then(|()| self.firewall.sync()) {
            let mut state = lock(&self.state);
            state.networks.remove(&network.id);
            drop(state);
            self.take_down(&network);
            self.records.delete_network(&network.id)?;
            return Err(error);
        }
        Ok(network)
    }

    /// Removes a network nobody is on.
    pub(crate) fn remove_network(&self, term: &str) -> Result<Network> {
        let network = {
            let mut state = lock(&self.state);
            let network = state.find(term)?.record.clone();
            if network.predefined {
                return Err(Error::Predefined(network.name));
            }
            let active: Vec<String> = state
                .on_network(&network.id)
                .map(|on| format!("name:{:?} id:{:?}", on.endpoint.container_name, short(&on.endpoint.id)))
                .collect();
            if !active.is_empty() {
                return Err(Error::ActiveEndpoints { network: network.name, endpoints: active.join(", ") });
            }
            state.networks.remove(&network.id);
            state.reserved.retain(|(id, _), _| *id != network.id);
            network
        };
        self.records.delete_network(&network.id)?;
        self.take_down(&network);
        Ok(network)
    }

    /// The bridge device is there, and the firewall knows of it (but is not synced).
    pub(crate) fn bring_up(&self, network: &Network) -> Result<()> {
        let Some(ipam) = &network.ipam else { return Ok(()) };
        let options = BridgeOptions::of(network, self.config.mtu)?;
        ensure_bridge(&mut lock(&self.host), network, ipam, options.mtu)?;
        self.firewall.set_bridge(
            &network.bridge,
            BridgeRules {
                subnet: ipam.subnet,
                masquerade: options.masquerade,
                internal: network.internal,
                icc: options.icc,
            },
        );
        Ok(())
    }

    /// Undoes [`Self::bring_up`]. Waits until the device is gone, so that its name can be taken again.
    fn take_down(&self, network: &Network) {
        let bridge = &network.bridge;
        self.firewall.remove_bridge(bridge);
        if let Err(error) = self.firewall.sync() {
            tracing::warn!(%error, bridge, "cannot remove the firewall rules of a bridge");
        }
        // A socket of its own: starting containers need not wait for this one.
        let deleted = Rtnl::open().and_then(|mut rtnl| rtnl.batch(vec![netlink::link_delete(bridge)]));
        if let Err(error) = deleted
            && error.raw_os_error() != Some(nix::libc::ENODEV)
        {
            tracing::warn!(%error, bridge, "cannot delete a bridge");
        }
    }

    /// Takes all bridges and rules off the host.
    pub(crate) fn teardown(&self) -> Result<()> {
        self.firewall.delete()?;
        let bridges: Vec<String> =
            lock(&self.state).networks.values().map(|network| network.record.bridge.clone()).collect();
        let mut host = lock(&self.host);
        for bridge in bridges.iter().filter(|bridge| !bridge.is_empty()) {
            let deleted = host.batch(vec![netlink::link_delete(bridge)]);
            if let Err(error) = deleted
                && error.raw_os_error() != Some(nix::libc::ENODEV)
            {
                return Err(Error::Netlink { what: format!("delete bridge {bridge}"), source: error });
            }
        }
        Ok(())
    }

    /// Makes sure that `bridge`, `host` and `none` exist and match the configuration.
    pub(crate) fn ensure_predefined(&self) -> Result<()> {
        for (name, driver) in [("host", Driver::Host), ("none", Driver::Null)] {
            if lock(&self.state).find(name).is_err() {
                let network = bare(name, driver);
                self.records.put_network(&network)?;
                lock(&self.state).networks.insert(network.id.clone(), NetworkState { record: network, pool: None });
            }
        }
        self.ensure_default_bridge()
    }

    fn ensure_default_bridge(&self) -> Result<()> {
        let before = lock(&self.state).find("bridge").ok().map(|found| found.record.clone());
        if self.config.bridge == "none" {
            if let Some(network) = before {
                lock(&self.state).networks.remove(&network.id);
                self.records.delete_network(&network.id)?;
            }
            return Ok(());
        }
        let mut network = before.clone().unwrap_or_else(|| bare("bridge", Driver::Bridge));
        let config = &self.config;
        network.bridge.clone_from(&config.bridge);
        network.options = [
            (DEFAULT_BRIDGE, "true".to_owned()),
            (ENABLE_ICC, config.icc.to_string()),
            (ENABLE_MASQUERADE, config.ip_masq.to_string()),
            (HOST_BINDING, config.default_publish_ip.map_or("0.0.0.0".to_owned(), |ip| ip.to_string())),
            (BRIDGE_NAME, config.bridge.clone()),
            (MTU, if config.mtu == 0 { "1500".to_owned() } else { config.mtu.to_string() }),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        network.ipam = Some(self.default_bridge_addresses(before.as_ref().and_then(|network| network.ipam.as_ref()))?);
        if before.as_ref() != Some(&network) {
            self.records.put_network(&network)?;
        }
        let pool = network.ipam.as_ref().map(Pool::new);
        lock(&self.state).networks.insert(network.id.clone(), NetworkState { record: network, pool });
        Ok(())
    }

    /// `--bip`; else what the device has; else what it had; else a free pool.
    fn default_bridge_addresses(&self, before: Option<&Ipam>) -> Result<Ipam> {
        let mut host = lock(&self.host);
        let found = host.link(&self.config.bridge).map_err(Error::io("look for the bridge"))?;
        let present = match &found {
            Some(link) => {
                host.addresses(link.header.index).map_err(Error::io("addresses of the bridge"))?.first().copied()
            }
            None => None,
        };
        let address = self.config.bip.or(present);
        let (subnet, gateway) = match (address, before) {
            (Some(address), _) if address.prefix_len() <= 30 => (address.trunc(), address.addr()),
            (Some(address), _) => return Err(Error::Invalid(format!("invalid bridge address {address}"))),
            (None, Some(before)) => (before.subnet, before.gateway),
            (None, None) => {
                let mut taken = host.routed().map_err(Error::io("list routes"))?;
                let state = lock(&self.state);
                taken.extend(state.networks.values().filter_map(|network| Some(network.record.ipam.as_ref()?.subnet)));
                let subnet = ipam::free_subnet(&self.config.address_pools, &taken)?;
                let gateway = subnet.hosts().next().ok_or_else(|| Error::NoAddress(subnet.to_string()))?;
                (subnet, gateway)
            }
        };
        if let Some(range) = self.config.fixed_cidr
            && !subnet.contains(&range)
        {
            return Err(Error::Invalid(format!("invalid fixed-cidr {range}: not within {subnet}")));
        }
        Ok(Ipam {
            subnet,
            gateway,
            ip_range: self.config.fixed_cidr,
            aux_addresses: Default::default(),
            user_subnet: false,
            options: Default::default(),
        })
    }
}

/// The device with its address, up; gives its index.
pub(crate) fn ensure_bridge(host: &mut Rtnl, network: &Network, ipam: &Ipam, mtu: u32) -> Result<u32> {
    let name = &network.bridge;
    let failed = |what: &str| {
        let what = format!("{what} bridge {name}");
        move |source| Error::Netlink { what, source }
    };
    if let Some(link) = host.link(name).map_err(failed("look for"))? {
        let index = link.header.index;
        let addresses = host.addresses(index).map_err(failed("addresses of"))?;
        if !addresses.iter().any(|address| address.addr() == ipam.gateway) {
            let address = netlink::address_add(index, ipam.gateway, ipam.subnet.prefix_len());
            host.batch(vec![address, netlink::link_up(index)]).map_err(failed("configure"))?;
        }
        bridge_sysctls(name)?;
        return Ok(index);
    }
    host.batch(vec![netlink::bridge_add(name, random_mac(), mtu)]).map_err(failed("create"))?;
    bridge_sysctls(name)?;
    let index = host.index(name).map_err(failed("look for"))?;
    let address = netlink::address_add(index, ipam.gateway, ipam.subnet.prefix_len());
    host.batch(vec![address, netlink::link_up(index)]).map_err(failed("configure"))?;
    Ok(index)
}

fn bridge_sysctls(bridge: &str) -> Result<()> {
    // `127.0.0.1:port` of the host reaches containers through the firewall's output rules.
    sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    let ipv6 = format!("net/ipv6/conf/{bridge}/disable_ipv6");
    if std::path::Path::new("/proc/sys").join(&ipv6).exists() {
        sysctl(&ipv6, "1")?;
    }
    Ok(())
}

fn plan(state: &State, config: &crate::Config, request: CreateNetwork, routed: &[ipnet::Ipv4Net]) -> Result<Network> {
    if state.networks.values().any(|network| network.record.name == request.name) {
        return Err(Error::Exists(request.name));
    }
    let taken: Vec<_> =
        state.networks.values().filter_map(|network| Some(network.record.ipam.as_ref()?.subnet)).collect();
    let mut ipam = ipam::plan(&request.ipam, &config.address_pools, &taken, routed)?;
    ipam.options = request.ipam_options;
    let id = random_id();
    let bridge = match request.options.get(BRIDGE_NAME).filter(|name| !name.is_empty()) {
        Some(name) => name.clone(),
        None => format!("br-{}", short(&id)),
    };
    check_device_name(&bridge)?;
    if let Some(other) = state.networks.values().find(|network| network.record.bridge == bridge) {
        return Err(Error::Forbidden(format!(
            "cannot create network {id} ({bridge}): conflicts with network {} ({bridge}): networks have same bridge name",
            other.record.id
        )));
    }
    let network = Network {
        id,
        name: request.name,
        driver: Driver::Bridge,
        created: Utc::now(),
        ipam: Some(ipam),
        bridge,
        options: request.options,
        labels: request.labels,
        internal: request.internal,
        attachable: request.attachable,
        enable_ipv6: false,
        predefined: false,
    };
    BridgeOptions::of(&network, config.mtu)?;
    Ok(network)
}

fn bare(name: &str, driver: Driver) -> Network {
    Network {
        id: random_id(),
        name: name.to_owned(),
        driver,
        created: Utc::now(),
        ipam: None,
        bridge: String::new(),
        options: Default::default(),
        labels: Default::default(),
        internal: false,
        attachable: false,
        enable_ipv6: false,
        predefined: true,
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::Invalid("invalid network name: name cannot be empty".to_owned()));
    }
    if name.len() > 255 || name.chars().any(|c| c.is_control()) {
        return Err(Error::Invalid(format!("invalid network name {name:?}")));
    }
    if PREDEFINED.contains(&name) {
        return Err(Error::PredefinedCreate(name.to_owned()));
    }
    Ok(())
}

fn check_driver(request: &CreateNetwork) -> Result<()> {
    match request.driver.as_str() {
        "" | "default" | "bridge" => Ok(()),
        "host" => Err(Error::Forbidden("only one instance of \"host\" network is allowed".to_owned())),
        "null" => Err(Error::Forbidden("only one instance of \"null\" network is allowed".to_owned())),
        known @ ("macvlan" | "ipvlan" | "overlay") => Err(Error::NotImplemented(format!("network driver {known:?}"))),
        other => Err(Error::NoDriver(other.to_owned())),
    }
}

/// What the kernel takes as an interface name and a path or rule cannot misread.
pub(crate) fn check_device_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 15
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fine { Ok(()) } else { Err(Error::Invalid(format!("invalid interface name {name:?}"))) }
}

/// The first twelve digits of an id.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
