//! Bridges, endpoints, addresses, published ports, name service.
//!
//! [`Networks`] is the only door. It must never wait for the kernel to delete a veth pair (a grace period of some
//! 20 ms): a container leaves by its namespace being dropped.
#![forbid(unsafe_code)]

mod error;
pub mod ipam;
mod model;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

pub use error::Error;
pub use model::*;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// All networks of one engine; cheap to clone.
#[derive(Clone)]
pub struct Networks {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
}

fn pending<T>() -> Result<T> {
    Err(Error::NotImplemented("networking".to_owned()))
}

impl Networks {
    /// Loads the records, makes sure of the predefined networks, the default bridge device, sysctls and firewall base.
    ///
    /// Needs a tokio runtime (name service and proxies are tasks on it).
    pub async fn open(config: Config) -> Result<Networks> {
        Ok(Networks { inner: Arc::new(Inner { config }) })
    }

    /// What the administrator should know (foreign firewall policies, a missing `nft`), for `docker info`.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// All networks, by name.
    pub fn list(&self) -> Vec<Network> {
        Vec::new()
    }

    /// By name, id, or unique id prefix.
    pub fn get(&self, name: &str) -> Result<Network> {
        Err(Error::NotFound(name.to_owned()))
    }

    /// Makes a network and its bridge.
    pub async fn create(&self, request: CreateNetwork) -> Result<Network> {
        let _ = request;
        pending()
    }

    /// Removes a network without endpoints; gives back what it was.
    pub async fn remove(&self, name: &str) -> Result<Network> {
        let _ = name;
        pending()
    }

    /// Would `connect` accept this (network exists, address allowed, ports make sense)? For containers that do not run.
    pub fn validate(&self, network: &str, request: &EndpointRequest) -> Result<Network> {
        let _ = request;
        self.get(network)
    }

    /// Makes the network namespace `netns/<id>` with `lo` up; an existing one is kept.
    pub async fn sandbox_create(&self, container_id: &str) -> Result<PathBuf> {
        let _ = container_id;
        pending()
    }

    /// Where the container's namespace is, or would be.
    pub fn sandbox_path(&self, container_id: &str) -> PathBuf {
        self.inner.config.exec_root.join("netns").join(container_id)
    }

    /// Drops the namespace; the kernel deletes its interfaces afterwards. Idempotent. Does not release endpoints.
    pub async fn sandbox_remove(&self, container_id: &str) -> Result<()> {
        let _ = container_id;
        pending()
    }

    /// Puts the container's sandbox on a network. Networks `host` and `none` need no sandbox and only make a record.
    pub async fn connect(&self, container_id: &str, network: &str, request: EndpointRequest) -> Result<Endpoint> {
        let _ = (container_id, network, request);
        pending()
    }

    /// Takes a container off a network, removing the interface from a sandbox that lives on.
    pub async fn disconnect(&self, container_id: &str, network: &str) -> Result<Endpoint> {
        let _ = (container_id, network);
        pending()
    }

    /// Releases all endpoints and ports of a container whose processes are gone, and its sandbox. Idempotent.
    pub async fn release_all(&self, container_id: &str) -> Result<()> {
        let _ = container_id;
        pending()
    }

    /// The endpoints of one container.
    pub fn endpoints(&self, container_id: &str) -> Vec<Endpoint> {
        let _ = container_id;
        Vec::new()
    }

    /// The endpoints on one network (full id), for inspect.
    pub fn endpoints_on(&self, network_id: &str) -> Vec<Endpoint> {
        let _ = network_id;
        Vec::new()
    }

    /// Keeps an address for a container that sleeps: nobody else is given it; `connect` with `ipv4` takes it up.
    pub async fn reserve(&self, container_id: &str, network: &str, ipv4: Ipv4Addr) -> Result<()> {
        let _ = (container_id, network, ipv4);
        pending()
    }

    /// Gives up all reservations of a container.
    pub async fn unreserve(&self, container_id: &str) -> Result<()> {
        let _ = container_id;
        pending()
    }

    /// `docker rename`: the name service follows.
    pub async fn rename(&self, container_id: &str, name: &str) -> Result<()> {
        let _ = (container_id, name);
        pending()
    }

    /// After a restart of the engine: keeps what belongs to the containers that run on and drops everything else.
    pub async fn reconcile(&self, live: &HashSet<String>) -> Result<()> {
        let _ = live;
        pending()
    }

    /// Counters of a container's interfaces (without `lo`); `pid` is any process in its namespace.
    pub fn stats(&self, pid: u32) -> Result<Vec<InterfaceStats>> {
        let _ = pid;
        pending()
    }

    /// Content of the container's `/etc/resolv.conf`. `network` is the one it is started on (`host`, `bridge`, …).
    pub fn resolv_conf(&self, network: &str, options: &DnsOptions) -> Result<String> {
        let _ = (network, options);
        pending()
    }

    /// Content of the container's `/etc/hosts`: localhost lines, `extra` (`--add-host`, `name:ip` or `name:host-gateway`),
    /// links, and one line `address hostname short-name` per endpoint address.
    pub fn hosts(&self, hostname: &str, domainname: &str, endpoints: &[Endpoint], extra: &[String]) -> Result<String> {
        let _ = (hostname, domainname, endpoints, extra);
        pending()
    }

    /// What `host-gateway` stands for.
    pub fn host_gateway(&self) -> Option<IpAddr> {
        self.inner.config.host_gateway
    }
}
