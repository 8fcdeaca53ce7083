//! What is in memory: networks with their pools, endpoints with what they hold open, reserved addresses.
//!
//! One lock guards all of it; it is held for lookups and bookkeeping only, never across a system call that may wait.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::dns::NameServer;
use crate::ipam::Pool;
use crate::proxy::Proxy;
use crate::{Endpoint, Error, Network, Protocol, Result};

/// How long the kernel may take to clean up a dropped namespace, amply: until then a bridge may remember an address
/// behind its old port.
const CLEANUP: Duration = Duration::from_secs(10);

/// A network and its addresses.
pub(crate) struct NetworkState {
    pub record: Network,
    pub pool: Option<Pool>,
}

/// What keeps a host port.
pub(crate) enum Held {
    /// A task that serves it.
    Proxy(Proxy),
    /// Only the socket.
    Socket(OwnedFd),
}

impl Held {
    /// Frees the port, at once. Not for async threads.
    pub(crate) fn free(self, runtime: &tokio::runtime::Handle) {
        match self {
            Held::Proxy(proxy) => proxy.stop(runtime),
            Held::Socket(socket) => drop(socket),
        }
    }
}

/// An endpoint and what it holds open.
pub(crate) struct EndpointState {
    pub endpoint: Endpoint,
    pub held: Vec<Held>,
}

/// All of it.
#[derive(Default)]
pub(crate) struct State {
    /// By id.
    pub networks: BTreeMap<String, NetworkState>,
    /// By container and network id.
    pub endpoints: BTreeMap<(String, String), EndpointState>,
    /// Name services, by container.
    pub servers: HashMap<String, NameServer>,
    /// Reserved addresses (network id, address) and for which container.
    pub reserved: HashMap<(String, Ipv4Addr), String>,
    /// Reserved host ports and for which container.
    pub reserved_ports: HashMap<(u16, Protocol), String>,
    /// Hardware addresses that have just left, and when.
    left: HashMap<[u8; 6], Instant>,
}

impl State {
    /// By id, then name, then unique id prefix.
    pub(crate) fn find(&self, term: &str) -> Result<&NetworkState> {
        if let Some(found) = self.networks.get(term) {
            return Ok(found);
        }
        if let Some(found) = self.networks.values().find(|network| network.record.name == term) {
            return Ok(found);
        }
        let mut matching = self.networks.values().filter(|network| network.record.id.starts_with(term));
        match (matching.next(), matching.count()) {
            (Some(found), 0) if !term.is_empty() => Ok(found),
            (Some(_), others) if !term.is_empty() => Err(Error::Ambiguous(term.to_owned(), others + 1)),
            _ => Err(Error::NotFound(term.to_owned())),
        }
    }

    /// The endpoints of a container.
    pub(crate) fn of_container<'a>(&'a self, container_id: &'a str) -> impl Iterator<Item = &'a EndpointState> {
        self.endpoints
            .range((container_id.to_owned(), String::new())..)
            .take_while(move |((container, _), _)| container == container_id)
            .map(|(_, endpoint)| endpoint)
    }

    /// The endpoints on a network.
    pub(crate) fn on_network<'a>(&'a self, network_id: &'a str) -> impl Iterator<Item = &'a EndpointState> {
        self.endpoints.iter().filter(move |((_, network), _)| network == network_id).map(|(_, endpoint)| endpoint)
    }

    /// Addresses of a network that are kept for containers other than this one.
    pub(crate) fn kept(&self, network_id: &str, container_id: &str) -> HashSet<Ipv4Addr> {
        let others =
            self.reserved.iter().filter(|((network, _), owner)| network == network_id && *owner != container_id);
        others.map(|((_, address), _)| *address).collect()
    }

    /// Host ports that are kept for containers other than this one.
    pub(crate) fn kept_ports(&self, container_id: &str) -> HashSet<(u16, Protocol)> {
        let others = self.reserved_ports.iter().filter(|(_, owner)| *owner != container_id);
        others.map(|(port, _)| *port).collect()
    }

    /// Gives up what is kept for a container; whether there was anything.
    pub(crate) fn unreserve(&mut self, container_id: &str) -> bool {
        let before = self.reserved.len() + self.reserved_ports.len();
        self.reserved.retain(|_, owner| owner != container_id);
        self.reserved_ports.retain(|_, owner| owner != container_id);
        self.reserved.len() + self.reserved_ports.len() < before
    }

    /// The containers something is kept for.
    pub(crate) fn sleepers(&self) -> HashSet<String> {
        self.reserved.values().chain(self.reserved_ports.values()).cloned().collect()
    }

    /// Forgets an endpoint and gives its address back.
    pub(crate) fn take_out(&mut self, container_id: &str, network_id: &str) -> Option<EndpointState> {
        let taken = self.endpoints.remove(&(container_id.to_owned(), network_id.to_owned()))?;
        if let (Some(ip), Some(network)) = (taken.endpoint.ipv4, self.networks.get_mut(network_id))
            && let Some(pool) = &mut network.pool
        {
            pool.release(ip);
        }
        self.left.insert(taken.endpoint.mac, Instant::now());
        Some(taken)
    }

    /// Was this hardware address on a bridge a moment ago?
    pub(crate) fn has_just_left(&mut self, mac: [u8; 6]) -> bool {
        self.left.retain(|_, when| when.elapsed() < CLEANUP);
        self.left.contains_key(&mac)
    }

    /// The gateway that a container's default route should lead to.
    pub(crate) fn best_gateway(&self, container_id: &str) -> Option<Ipv4Addr> {
        let candidates = self.of_container(container_id).map(|state| &state.endpoint);
        candidates
            .filter(|endpoint| endpoint.gateway.is_some())
            .max_by(|a, b| {
                let by_priority = a.gateway_priority.cmp(&b.gateway_priority);
                by_priority.then_with(|| b.network_name.cmp(&a.network_name))
            })
            .and_then(|endpoint| endpoint.gateway)
    }

    /// Addresses that `name` stands for, as seen by a container on the same user-defined networks.
    pub(crate) fn resolve(&self, container_id: &str, name: &str) -> Option<Vec<Ipv4Addr>> {
        let mut found = Vec::new();
        for own in self.of_container(container_id).map(|state| &state.endpoint) {
            let Some(network) = self.networks.get(&own.network_id) else { continue };
            if !network.record.has_name_service() {
                continue;
            }
            // `name.network` names a container in that network only.
            let suffix = format!(".{}", own.network_name.to_ascii_lowercase());
            let bare = name.strip_suffix(&suffix).unwrap_or(name);
            let linked = own.links.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(bare)).map(|(_, target)| target);
            let wanted = linked.map_or(bare, String::as_str);
            for other in self.on_network(&own.network_id).map(|state| &state.endpoint) {
                if other.dns_names().iter().any(|known| known.eq_ignore_ascii_case(wanted))
                    || linked.is_some_and(|target| *target == other.container_id)
                {
                    found.extend(other.ipv4.filter(|ip| !found.contains(ip)));
                }
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// The reverse: `name.network`.
    pub(crate) fn name_of(&self, container_id: &str, address: Ipv4Addr) -> Option<String> {
        let own = self.of_container(container_id).map(|state| state.endpoint.network_id.as_str());
        own.filter(|id| self.networks.get(*id).is_some_and(|network| network.record.has_name_service()))
            .find_map(|id| self.on_network(id).find(|other| other.endpoint.ipv4 == Some(address)))
            .map(|found| format!("{}.{}", found.endpoint.container_name, found.endpoint.network_name))
    }

    /// May this container's queries leave for real servers? Not if all its networks are internal.
    pub(crate) fn reaches_outside(&self, container_id: &str) -> bool {
        self.of_container(container_id)
            .any(|state| self.networks.get(&state.endpoint.network_id).is_some_and(|network| !network.record.internal))
    }

    /// `--dns` of a container.
    pub(crate) fn dns_servers(&self, container_id: &str) -> Vec<IpAddr> {
        let mut all = self.of_container(container_id).map(|state| &state.endpoint.dns_servers);
        all.find(|servers| !servers.is_empty()).cloned().unwrap_or_default()
    }
}
