//! Bridges, endpoints, addresses, published ports, name service.
//!
//! [`Networks`] is the only door. It must never wait for the kernel to delete a veth pair (a grace period of some
//! 20 ms): a container leaves by its namespace being dropped.
#![forbid(unsafe_code)]

mod boot;
mod dns;
mod endpoints;
mod error;
mod files;
mod firewall;
#[doc(hidden)]
pub mod fuzz;
mod ipam;
mod model;
mod netlink;
mod networks;
mod nfnetlink;
mod ports;
mod proxy;
mod records;
mod sandbox;
mod state;
mod stats;
mod sys;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

pub use error::Error;
pub use ipam::default_pools;
pub use model::*;

use crate::files::ResolvConf;
use crate::sys::{blocking, lock};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// All networks of one engine; cheap to clone.
#[derive(Clone)]
pub struct Networks {
    inner: Arc<Inner>,
}

struct Inner {
    me: Weak<Inner>,
    config: Config,
    runtime: tokio::runtime::Handle,
    records: records::Records,
    state: Mutex<state::State>,
    /// Netlink in the host's namespace. Order of locks: a sandbox, then this, then `state`.
    host: Mutex<netlink::Rtnl>,
    firewall: firewall::Firewall,
    sandboxes: sandbox::Sandboxes,
    warnings: Mutex<Vec<String>>,
    next_port: Mutex<u16>,
}

impl Networks {
    /// Loads the records, makes sure of the predefined networks, the default bridge device, sysctls and firewall base.
    ///
    /// Needs a tokio runtime (name service and proxies are tasks on it).
    pub async fn open(config: Config) -> Result<Networks> {
        let runtime = tokio::runtime::Handle::current();
        let inner = blocking(move || Inner::open(config, runtime)).await?;
        let networks = Networks { inner };
        networks.refill();
        Ok(networks)
    }

    /// Makes namespaces for later. Not at once: whoever has just been given one is about to make links, and both need
    /// the kernel's one lock for that.
    fn refill(&self) {
        if !self.inner.sandboxes.claim_refill() {
            return;
        }
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(sandbox::REFILL_DELAY).await;
            tokio::task::spawn_blocking(move || inner.sandboxes.refill());
        });
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.inner.clone();
        blocking(move || work(&inner)).await
    }

    /// What the administrator should know (foreign firewall policies, a missing `nft`), for `docker info`.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.inner.warnings).clone()
    }

    /// All networks, by name.
    pub fn list(&self) -> Vec<Network> {
        let mut all: Vec<Network> =
            lock(&self.inner.state).networks.values().map(|network| network.record.clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// By name, id, or unique id prefix.
    pub fn get(&self, name: &str) -> Result<Network> {
        Ok(lock(&self.inner.state).find(name)?.record.clone())
    }

    /// Makes a network and its bridge.
    pub async fn create(&self, request: CreateNetwork) -> Result<Network> {
        self.with(move |inner| inner.create_network(request)).await
    }

    /// Removes a network without endpoints; gives back what it was.
    pub async fn remove(&self, name: &str) -> Result<Network> {
        let name = name.to_owned();
        self.with(move |inner| inner.remove_network(&name)).await
    }

    /// Would `connect` accept this (network exists, address allowed, ports make sense)? For containers that do not run.
    pub fn validate(&self, network: &str, request: &EndpointRequest) -> Result<Network> {
        self.inner.validate(network, request)
    }

    /// Makes the network namespace `netns/<id>` with `lo` up; an existing one is kept.
    pub async fn sandbox_create(&self, container_id: &str) -> Result<PathBuf> {
        let id = container_id.to_owned();
        let made = self.with(move |inner| inner.sandboxes.create(&id)).await;
        self.refill();
        made
    }

    /// Where the container's namespace is, or would be.
    pub fn sandbox_path(&self, container_id: &str) -> PathBuf {
        self.inner.sandboxes.path(container_id)
    }

    /// Drops the namespace; the kernel deletes its interfaces afterwards. Idempotent. Does not release endpoints.
    pub async fn sandbox_remove(&self, container_id: &str) -> Result<()> {
        let id = container_id.to_owned();
        self.with(move |inner| {
            lock(&inner.state).servers.remove(&id);
            inner.sandboxes.remove(&id)
        })
        .await
    }

    /// Puts the container's sandbox on a network. Networks `host` and `none` need no sandbox and only make a record.
    pub async fn connect(&self, container_id: &str, network: &str, request: EndpointRequest) -> Result<Endpoint> {
        let (id, network) = (container_id.to_owned(), network.to_owned());
        self.with(move |inner| inner.connect(&id, &network, request)).await
    }

    /// Takes a container off a network, removing the interface from a sandbox that lives on.
    pub async fn disconnect(&self, container_id: &str, network: &str) -> Result<Endpoint> {
        let (id, network) = (container_id.to_owned(), network.to_owned());
        self.with(move |inner| inner.disconnect(&id, &network)).await
    }

    /// Releases all endpoints and ports of a container whose processes are gone, and its sandbox. Idempotent.
    pub async fn release_all(&self, container_id: &str) -> Result<()> {
        let id = container_id.to_owned();
        self.with(move |inner| inner.release_all(&id)).await
    }

    /// The endpoints of one container.
    pub fn endpoints(&self, container_id: &str) -> Vec<Endpoint> {
        let state = lock(&self.inner.state);
        state.of_container(container_id).map(|own| own.endpoint.clone()).collect()
    }

    /// The endpoints on one network (full id), for inspect.
    pub fn endpoints_on(&self, network_id: &str) -> Vec<Endpoint> {
        let state = lock(&self.inner.state);
        state.on_network(network_id).map(|own| own.endpoint.clone()).collect()
    }

    /// Keeps the addresses and published ports that a container has, for when it sleeps: nobody is given them who does not
    /// ask for them by number. `connect` takes them up again with `restoring`, `ipv4` and `ports_before`.
    pub async fn reserve(&self, container_id: &str) -> Result<()> {
        let id = container_id.to_owned();
        self.with(move |inner| inner.reserve(&id)).await
    }

    /// Gives up all reservations of a container.
    pub async fn unreserve(&self, container_id: &str) -> Result<()> {
        let id = container_id.to_owned();
        self.with(move |inner| inner.unreserve(&id)).await
    }

    /// Gives up the reservations of all but these.
    pub async fn unreserve_others(&self, sleeping: HashSet<String>) -> Result<()> {
        self.with(move |inner| {
            let others = lock(&inner.state).sleepers();
            others.difference(&sleeping).try_for_each(|id| inner.unreserve(id))
        })
        .await
    }

    /// `docker rename`: the name service follows.
    pub async fn rename(&self, container_id: &str, name: &str) -> Result<()> {
        let (id, name) = (container_id.to_owned(), name.to_owned());
        self.with(move |inner| inner.rename(&id, &name)).await
    }

    /// After a restart of the engine: keeps what belongs to the containers that run on and drops everything else.
    pub async fn reconcile(&self, live: &HashSet<String>) -> Result<()> {
        let live = live.clone();
        self.with(move |inner| inner.reconcile(&live)).await
    }

    /// Takes all bridges and rules of this engine off the host (tests, demonstrations, uninstalling). The records stay.
    pub async fn teardown(&self) -> Result<()> {
        self.with(Inner::teardown).await
    }

    /// Counters of a container's interfaces (without `lo`); `pid` is any process in its namespace.
    pub fn stats(&self, pid: u32) -> Result<Vec<InterfaceStats>> {
        stats::of_process(pid)
    }

    /// Content of the container's `/etc/resolv.conf`. `network` is the one it is started on (`host`, `bridge`, …).
    pub fn resolv_conf(&self, network: &str, options: &DnsOptions) -> Result<String> {
        let inner = &self.inner;
        let host_text = inner.host_resolv_conf();
        let engine = DnsOptions {
            servers: inner.config.dns.clone(),
            search: inner.config.dns_search.clone(),
            options: inner.config.dns_options.clone(),
        };
        let untouched = engine == DnsOptions::default() && *options == DnsOptions::default();
        if network == "host" && untouched {
            return Ok(host_text);
        }
        let conf = ResolvConf::parse(&host_text).overridden(&engine).overridden(options);
        let named = lock(&inner.state).find(network).is_ok_and(|found| found.record.has_name_service());
        if named {
            return Ok(conf.for_name_service().text());
        }
        // Whoever names a loopback server means it; the host's own are of no use in another namespace.
        let loopback_wanted = network == "host" || !engine.servers.is_empty() || !options.servers.is_empty();
        Ok(conf.for_bridge(loopback_wanted).text())
    }

    /// Content of the container's `/etc/hosts`: localhost lines, `extra` (`--add-host`, `name:ip` or `name:host-gateway`),
    /// links, and one line `address hostname short-name` per endpoint address.
    pub fn hosts(
        &self,
        hostname: &str,
        domainname: &str,
        endpoints: &[Endpoint],
        extra: &[String],
        links: &[(Ipv4Addr, Vec<String>)],
    ) -> Result<String> {
        files::hosts(hostname, domainname, endpoints, extra, links, self.host_gateway())
    }

    /// What `host-gateway` stands for.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        let bridge = || Some(lock(&self.inner.state).find("bridge").ok()?.record.ipam.as_ref()?.gateway.into());
        self.inner.config.host_gateway.or_else(bridge)
    }
}
