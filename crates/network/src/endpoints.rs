//! A container joins and leaves networks.
//!
//! Joining: an address is taken and recorded, host ports are bound, then link, firewall and name service are made side
//! by side. A failure undoes, in reverse, exactly what was done.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::dns::{NameServer, Sockets, Zone};
use crate::netlink::{self, PortMode, Rtnl, Veth};
use crate::networks::{BridgeOptions, check_device_name, ensure_bridge};
use crate::nfnetlink;
use crate::ports::{self, Asker, Bound};
use crate::proxy::Proxy;
use crate::state::{EndpointState, Held, State};
use crate::sys::{lock, random_id, random_veth_name};
use crate::{Driver, Endpoint, EndpointRequest, Error, Inner, Network, Protocol, Result};

impl Inner {
    /// Checks what can be checked without a sandbox.
    pub(crate) fn validate(&self, network: &str, request: &EndpointRequest) -> Result<Network> {
        let state = lock(&self.state);
        let network = state.find(network)?.record.clone();
        check_request(&network, request)?;
        Ok(network)
    }

    /// Joins.
    pub(crate) fn connect(&self, container_id: &str, network: &str, request: EndpointRequest) -> Result<Endpoint> {
        let (network, mut endpoint) = self.admit(container_id, network, &request)?;
        let joined = match network.driver {
            Driver::Host | Driver::Null => self.records.put_endpoint(&endpoint).map(|()| Vec::new()),
            Driver::Bridge => self.join_bridge(&network, &mut endpoint, &request),
        };
        match joined {
            Ok(held) => {
                let mut state = lock(&self.state);
                let key = (endpoint.container_id.clone(), endpoint.network_id.clone());
                state.endpoints.insert(key, EndpointState { endpoint: endpoint.clone(), held });
                Ok(endpoint)
            }
            Err(error) => {
                lock(&self.state).take_out(&endpoint.container_id, &endpoint.network_id);
                if let Err(error) = self.records.delete_endpoint(&endpoint.id) {
                    tracing::warn!(%error, "cannot delete the record of an endpoint that failed");
                }
                Err(error)
            }
        }
    }

    /// Takes an address and a place in the tables.
    fn admit(&self, container_id: &str, term: &str, request: &EndpointRequest) -> Result<(Network, Endpoint)> {
        let mut state = lock(&self.state);
        let network = state.find(term)?.record.clone();
        check_request(&network, request)?;
        let key = (container_id.to_owned(), network.id.clone());
        if state.endpoints.contains_key(&key) {
            return Err(Error::AlreadyConnected { name: request.container_name.clone(), network: network.name });
        }
        let ifname = free_ifname(&state, container_id, request)?;
        let kept = state.kept(&network.id, container_id);
        let pool = state.networks.get_mut(&network.id).and_then(|found| found.pool.as_mut());
        let ipv4 = match (pool, request.ipv4) {
            (None, _) => None,
            (Some(_), Some(ip)) if kept.contains(&ip) => return Err(Error::AddressInUse),
            (Some(pool), Some(ip)) => {
                pool.claim(ip)?;
                Some(ip)
            }
            (Some(pool), None) => Some(pool.allocate(&kept)?),
        };
        let bridged = network.driver == Driver::Bridge;
        let ipam = network.ipam.as_ref();
        let endpoint = Endpoint {
            id: random_id(),
            network_id: network.id.clone(),
            network_name: network.name.clone(),
            container_id: container_id.to_owned(),
            container_name: request.container_name.clone(),
            gateway: ipam.filter(|_| !network.internal).map(|ipam| ipam.gateway),
            ipv4,
            prefix_len: ipam.map_or(0, |ipam| ipam.subnet.prefix_len()),
            mac: ipv4.map_or([0; 6], |ip| request.mac.unwrap_or_else(|| mac_of(ip))),
            ifname: if bridged { ifname } else { String::new() },
            host_ifname: if bridged { random_veth_name() } else { String::new() },
            hostname: request.hostname.clone(),
            aliases: request.aliases.clone(),
            links: request.links.clone(),
            ports: Vec::new(),
            gateway_priority: request.gateway_priority,
            driver_opts: request.driver_opts.clone(),
            dns_servers: request.dns_servers.clone(),
        };
        state.endpoints.insert(key, EndpointState { endpoint: endpoint.clone(), held: Vec::new() });
        Ok((network, endpoint))
    }

    fn join_bridge(&self, network: &Network, endpoint: &mut Endpoint, request: &EndpointRequest) -> Result<Vec<Held>> {
        let options = BridgeOptions::of(network, self.config.mtu)?;
        let Some(ip) = endpoint.ipv4 else { return Err(Error::NoAddress(network.name.clone())) };
        // First of all, so that a container without sandbox costs nothing.
        let sandbox = self.sandboxes.get(&endpoint.container_id)?;
        let bound = if network.internal {
            Vec::new()
        } else {
            let (ours, kept) = {
                let state = lock(&self.state);
                let bindings = state.endpoints.values().flat_map(|other| &other.endpoint.ports);
                let ours: Vec<_> = bindings.map(|port| (port.host_port, port.protocol)).collect();
                (ours, state.kept_ports(&endpoint.container_id))
            };
            let (name, id) = (&endpoint.container_name, &endpoint.id);
            let before = &request.ports_before;
            let asker = Asker { endpoint: name, endpoint_id: id, container_ip: ip, ours: &ours, kept: &kept, before };
            let default_ip = options.host_binding.or(self.config.default_publish_ip);
            ports::publish(&asker, &request.ports, default_ip, &mut lock(&self.next_port))?
        };
        endpoint.ports = bound.iter().map(|bound| bound.binding.clone()).collect();
        self.records.put_endpoint(endpoint)?;
        self.publish_rules(endpoint);

        let wants_names = network.has_name_service() && !lock(&self.state).servers.contains_key(&endpoint.container_id);
        let netns = lock(&sandbox).file.try_clone().map_err(Error::io("network namespace"))?;
        // Rules and name service each cost an exec: they run beside the link.
        let (linked, names, rules) = std::thread::scope(|scope| {
            let rules = (!endpoint.ports.is_empty()).then(|| scope.spawn(|| self.firewall.sync()));
            let names = wants_names.then(|| scope.spawn(|| Sockets::bind(netns, self.rules_available())));
            let linked = self.link(network, endpoint, &request.link_local, &options, &sandbox);
            let crashed = || Error::Firewall("worker panicked".to_owned());
            let names = names.map(|thread| thread.join().unwrap_or_else(|_| Err(crashed()))).transpose();
            let rules = rules.map(|thread| thread.join().unwrap_or_else(|_| Err(crashed()))).transpose();
            (linked, names, rules)
        });
        let names = match (linked, names, rules) {
            (Ok(()), Ok(names), Ok(_)) => names,
            (linked, names, rules) => {
                if linked.is_ok() {
                    self.unlink_later(endpoint.host_ifname.clone());
                }
                self.unpublish_rules(endpoint);
                drop(bound);
                return Err([linked.err(), names.err(), rules.err()]
                    .into_iter()
                    .flatten()
                    .next()
                    .unwrap_or_else(|| Error::Firewall("unknown failure".to_owned())));
            }
        };
        if let Some(sockets) = names {
            self.serve_names(&endpoint.container_id, sockets);
        }
        Ok(self.hold(bound, ip))
    }

    /// The veth pair, the address, the default route.
    fn link(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        link_local: &[Ipv4Addr],
        options: &BridgeOptions,
        sandbox: &Arc<std::sync::Mutex<crate::sandbox::Netns>>,
    ) -> Result<()> {
        let (Some(ipam), Some(ip)) = (&network.ipam, endpoint.ipv4) else { return Ok(()) };
        let failed = |what: &'static str| {
            move |source| Error::Netlink { what: format!("failed to set up container networking: {what}"), source }
        };
        let mut netns = lock(sandbox);
        {
            let mut host = lock(&self.host);
            let bridge_index = match host.index(&network.bridge) {
                Ok(index) => index,
                // Somebody has deleted it.
                Err(_) => ensure_bridge(&mut host, network, ipam, options.mtu)?,
            };
            let pair = netlink::veth_add(&Veth {
                host_name: &endpoint.host_ifname,
                bridge_index,
                peer_name: &endpoint.ifname,
                peer_mac: endpoint.mac,
                peer_netns: netns.file.as_raw_fd(),
                mtu: options.mtu,
            });
            host.batch(vec![pair]).map_err(failed("create the interface pair"))?;
            let returning = lock(&self.state).has_just_left(endpoint.mac);
            let mode = PortMode { isolated: !options.icc, hairpin: !endpoint.ports.is_empty() };
            if returning || mode != PortMode::default() {
                let index = host.index(&endpoint.host_ifname).map_err(failed("host side interface"))?;
                let mut requests = Vec::new();
                if returning {
                    requests.push(netlink::fdb_replace(index, endpoint.mac));
                }
                if mode != PortMode::default() {
                    requests.push(netlink::port_mode(index, mode));
                }
                host.batch(requests).map_err(failed("bridge port"))?;
            }
        }
        let mut set_up = || -> std::io::Result<()> {
            let index = netns.rtnl.index(&endpoint.ifname)?;
            let mut requests = vec![netlink::address_add(index, ip, endpoint.prefix_len), netlink::link_up(index)];
            requests.extend(link_local.iter().map(|ip| netlink::address_add(index, *ip, 16)));
            let best = lock(&self.state).best_gateway(&endpoint.container_id);
            if let Some(gateway) = best
                && endpoint.gateway == Some(gateway)
            {
                requests.push(netlink::default_route(gateway));
            }
            netns.rtnl.batch(requests)
        };
        let up = set_up().and_then(|()| {
            // In this order: the bridge runs from when its first port does.
            settle(&mut netns.rtnl, &endpoint.ifname)?;
            settle(&mut lock(&self.host), &endpoint.host_ifname)?;
            settle(&mut lock(&self.host), &network.bridge)
        });
        up.map_err(failed("address and route")).inspect_err(|_| self.unlink_later(endpoint.host_ifname.clone()))
    }

    /// Deletes a host-side interface without making anybody wait.
    fn unlink_later(&self, host_ifname: String) {
        self.runtime.spawn_blocking(move || {
            let deleted = Rtnl::open().and_then(|mut rtnl| rtnl.batch(vec![netlink::link_delete(&host_ifname)]));
            if let Err(error) = deleted {
                tracing::debug!(%error, host_ifname, "interface is gone already");
            }
        });
    }

    fn publish_rules(&self, endpoint: &Endpoint) {
        let Some(ip) = endpoint.ipv4 else { return };
        let rules = endpoint
            .ports
            .iter()
            .filter_map(|binding| Some((ports::host_port(binding)?, (ip, binding.container_port))));
        self.firewall.add_ports(rules);
    }

    /// Takes the rules of an endpoint out of what is wanted, and syncs behind the caller's back.
    fn unpublish_rules(&self, endpoint: &Endpoint) {
        let gone: Vec<_> = endpoint.ports.iter().filter_map(ports::host_port).collect();
        if gone.is_empty() {
            return;
        }
        self.firewall.remove_ports(&gone);
        let inner = self.me.clone();
        let address = endpoint.ipv4;
        let udp: Vec<u16> = endpoint
            .ports
            .iter()
            .filter(|binding| binding.protocol == Protocol::Udp && binding.host_ip.is_ipv4())
            .map(|binding| binding.container_port)
            .collect();
        self.runtime.spawn_blocking(move || {
            let Some(inner) = inner.upgrade() else { return };
            if let Err(error) = inner.firewall.sync() {
                tracing::warn!(%error, "cannot remove the firewall rules of published ports");
            }
            for (address, port) in address.iter().flat_map(|address| udp.iter().map(move |port| (*address, *port))) {
                if let Err(error) = nfnetlink::forget_udp(address, port) {
                    tracing::warn!(%error, %address, port, "cannot make the kernel forget UDP exchanges");
                }
            }
        });
    }

    /// Keeps bound ports, served by proxies if those are wanted (or the only way there is).
    fn hold(&self, bound: Vec<Bound>, ip: Ipv4Addr) -> Vec<Held> {
        let serve = self.config.userland_proxy || !self.rules_available();
        let hold = |bound: Bound| {
            if serve {
                let target = SocketAddr::new(ip.into(), bound.binding.container_port);
                Held::Proxy(Proxy::start(&self.runtime, bound, target))
            } else {
                Held::Socket(bound.socket)
            }
        };
        bound.into_iter().map(hold).collect()
    }

    fn serve_names(&self, container_id: &str, sockets: Sockets) {
        let zone = Arc::new(ContainerZone { inner: self.me.clone(), container_id: container_id.to_owned() });
        let server = NameServer::start(&self.runtime, sockets, zone);
        lock(&self.state).servers.insert(container_id.to_owned(), server);
    }

    /// Leaves one network; in a sandbox that lives on, the interface is gone when this returns.
    pub(crate) fn disconnect(&self, container_id: &str, term: &str) -> Result<Endpoint> {
        let (left, best, names_needed) = {
            let mut state = lock(&self.state);
            let network = state.find(term)?.record.clone();
            let Some(left) = state.take_out(container_id, &network.id) else {
                return Err(Error::NotConnected { container: container_id.to_owned(), network: network.name });
            };
            let names_needed = state.of_container(container_id).any(|own| {
                state.networks.get(&own.endpoint.network_id).is_some_and(|found| found.record.has_name_service())
            });
            (left, state.best_gateway(container_id), names_needed)
        };
        self.records.delete_endpoint(&left.endpoint.id)?;
        self.unpublish_rules(&left.endpoint);
        let endpoint = left.endpoint;
        left.held.into_iter().for_each(|held| held.free(&self.runtime));
        if !names_needed {
            lock(&self.state).servers.remove(container_id);
        }
        let sandbox = self.sandboxes.get(container_id);
        if let (Ok(sandbox), false) = (sandbox, endpoint.ifname.is_empty()) {
            let mut netns = lock(&sandbox);
            let mut requests = vec![netlink::link_delete(&endpoint.ifname)];
            requests.extend(best.map(netlink::default_route));
            netns
                .rtnl
                .batch(requests)
                .map_err(|source| Error::Netlink { what: format!("remove interface {}", endpoint.ifname), source })?;
        }
        Ok(endpoint)
    }

    /// Leaves everything; for containers whose processes are gone.
    pub(crate) fn release_all(&self, container_id: &str) -> Result<()> {
        let left: Vec<EndpointState> = {
            let mut state = lock(&self.state);
            state.servers.remove(container_id);
            let ids: Vec<String> =
                state.of_container(container_id).map(|own| own.endpoint.network_id.clone()).collect();
            ids.iter().filter_map(|id| state.take_out(container_id, id)).collect()
        };
        let removed = self.sandboxes.remove(container_id);
        for EndpointState { endpoint, held } in left {
            // First the rules: once a port is free it may be somebody else's, and so may its rule.
            self.unpublish_rules(&endpoint);
            held.into_iter().for_each(|held| held.free(&self.runtime));
            // The end of the namespace would take it along, but that may come late: a connection that nobody holds any more
            // lives on in it until its peer has answered, and with it a second device of this address on the bridge.
            if !endpoint.host_ifname.is_empty() {
                self.unlink_later(endpoint.host_ifname);
            }
        }
        self.records.delete_endpoints_of(container_id)?;
        removed
    }

    /// Keeps what a container has on its networks.
    pub(crate) fn reserve(&self, container_id: &str) -> Result<()> {
        let endpoints: Vec<Endpoint> =
            lock(&self.state).of_container(container_id).map(|own| own.endpoint.clone()).collect();
        for endpoint in endpoints {
            let Some(ipv4) = endpoint.ipv4 else { continue };
            self.records.put_reservation(&endpoint, ipv4)?;
            let mut state = lock(&self.state);
            let ports = endpoint.ports.iter().map(|port| ((port.host_port, port.protocol), container_id.to_owned()));
            state.reserved_ports.extend(ports);
            state.reserved.insert((endpoint.network_id, ipv4), container_id.to_owned());
        }
        Ok(())
    }

    /// Keeps nothing for a container any more.
    pub(crate) fn unreserve(&self, container_id: &str) -> Result<()> {
        match lock(&self.state).unreserve(container_id) {
            true => self.records.delete_reservations(container_id),
            false => Ok(()),
        }
    }

    /// A container's name has changed.
    pub(crate) fn rename(&self, container_id: &str, name: &str) -> Result<()> {
        let renamed: Vec<Endpoint> = {
            let mut state = lock(&self.state);
            let own = state.endpoints.iter_mut().filter(|((container, _), _)| container == container_id);
            own.map(|(_, own)| {
                name.clone_into(&mut own.endpoint.container_name);
                own.endpoint.clone()
            })
            .collect()
        };
        renamed.iter().try_for_each(|endpoint| self.records.put_endpoint(endpoint))
    }

    /// Takes up again what a running container had before this process was restarted.
    pub(crate) fn resume(&self, endpoint: &Endpoint) {
        let Some(ip) = endpoint.ipv4 else { return };
        let mut bound = Vec::new();
        for binding in &endpoint.ports {
            match ports::rebind(binding) {
                Ok(port) => bound.push(port),
                Err(error) => tracing::warn!(
                    %error, container = endpoint.container_id, port = binding.host_port,
                    "a published port is held by somebody else now; only the firewall's rule serves it"
                ),
            }
        }
        let held = self.hold(bound, ip);
        let needs_names = {
            let mut state = lock(&self.state);
            let key = (endpoint.container_id.clone(), endpoint.network_id.clone());
            if let Some(own) = state.endpoints.get_mut(&key) {
                own.held = held;
            }
            let named = state.networks.get(&endpoint.network_id).is_some_and(|found| found.record.has_name_service());
            named && !state.servers.contains_key(&endpoint.container_id)
        };
        if needs_names {
            let netns = self
                .sandboxes
                .get(&endpoint.container_id)
                .and_then(|sandbox| lock(&sandbox).file.try_clone().map_err(Error::io("network namespace")));
            match netns.and_then(|netns| Sockets::bind(netns, self.rules_available())) {
                Ok(sockets) => self.serve_names(&endpoint.container_id, sockets),
                Err(error) => {
                    tracing::warn!(%error, container = endpoint.container_id, "cannot resume the name service");
                }
            }
        }
    }
}

/// The view of one container on the name service.
struct ContainerZone {
    inner: Weak<Inner>,
    container_id: String,
}

impl Zone for ContainerZone {
    fn addresses(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let inner = self.inner.upgrade()?;
        lock(&inner.state).resolve(&self.container_id, name)
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        let inner = self.inner.upgrade()?;
        lock(&inner.state).name_of(&self.container_id, address)
    }

    fn forwarders(&self) -> Vec<std::net::IpAddr> {
        let Some(inner) = self.inner.upgrade() else { return Vec::new() };
        let own = {
            let state = lock(&inner.state);
            if !state.reaches_outside(&self.container_id) {
                return Vec::new();
            }
            state.dns_servers(&self.container_id)
        };
        if own.is_empty() { inner.resolvers() } else { own }
    }
}

/// The hardware address that goes with an IPv4 address: neighbours that remember an older owner are still right.
fn mac_of(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

fn free_ifname(state: &State, container_id: &str, request: &EndpointRequest) -> Result<String> {
    let taken: Vec<&str> = state.of_container(container_id).map(|own| own.endpoint.ifname.as_str()).collect();
    match request.ifname.as_deref().filter(|name| !name.is_empty()) {
        Some(wanted) => {
            check_device_name(wanted)?;
            if wanted == "lo" || taken.contains(&wanted) {
                return Err(Error::Invalid(format!("interface name {wanted:?} is taken")));
            }
            Ok(wanted.to_owned())
        }
        None => {
            let mut names = (0..=taken.len()).map(|n| format!("eth{n}"));
            // One more candidate than taken names: one of them is free.
            Ok(names.find(|name| !taken.contains(&name.as_str())).unwrap_or_else(|| "eth0".to_owned()))
        }
    }
}

fn check_request(network: &Network, request: &EndpointRequest) -> Result<()> {
    let invalid = |text: &str| Err(Error::Invalid(format!("invalid endpoint settings:\n{text}")));
    if !network.has_name_service() && !request.aliases.is_empty() {
        return invalid("network-scoped aliases are only supported for user-defined networks");
    }
    if let Some(ip) = request.ipv4 {
        if !request.restoring && !network.has_name_service() {
            return invalid("user specified IP address is supported on user defined networks only");
        }
        if !request.restoring && network.ipam.as_ref().is_some_and(|ipam| !ipam.user_subnet) {
            return invalid(
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            );
        }
        if let Some(ipam) = &network.ipam
            && !ipam.subnet.contains(&ip)
        {
            return invalid(&format!("no configured subnet or ip-range contain the IP address {ip}"));
        }
    }
    if let Some(mac) = request.mac
        && (mac[0] & 1 == 1 || mac == [0; 6])
    {
        return invalid("invalid MAC address: a unicast address is needed");
    }
    Ok(())
}

/// Waits, not for long, until a link takes packets: what is sent before is lost, and tried again only after a second.
fn settle(rtnl: &mut Rtnl, name: &str) -> std::io::Result<()> {
    const ATTEMPTS: u32 = 50;
    const BETWEEN: Duration = Duration::from_millis(1);
    for _ in 0..ATTEMPTS {
        if rtnl.is_running(name)? {
            return Ok(());
        }
        std::thread::sleep(BETWEEN);
    }
    tracing::debug!(name, "the interface has no carrier yet");
    Ok(())
}
