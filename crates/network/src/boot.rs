//! Start of the engine: records are read, the host is prepared, survivors are taken up.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::files::ResolvConf;
use crate::firewall::{self, Firewall};
use crate::ipam::Pool;
use crate::netlink::Rtnl;
use crate::records::Records;
use crate::sandbox::Sandboxes;
use crate::state::{EndpointState, NetworkState, State};
use crate::sys::{lock, sysctl};
use crate::{Config, Endpoint, Error, Inner, Result, ports};

impl Inner {
    /// Everything up to the firewall; endpoints of an earlier run are loaded but hold nothing yet.
    pub(crate) fn open(config: Config, runtime: tokio::runtime::Handle) -> Result<Arc<Self>> {
        let sandboxes = Sandboxes::new(&config.exec_root)?;
        if config.bridge != "none" {
            crate::networks::check_device_name(&config.bridge)?;
        }
        let (records, loaded) = Records::open(&config.data_root)?;
        let mut state = State::default();
        for record in loaded.networks {
            let pool = record.ipam.as_ref().map(Pool::new);
            state.networks.insert(record.id.clone(), NetworkState { record, pool });
        }
        state.reserved =
            loaded.reserved.into_iter().map(|(network, ip, container)| ((network, ip), container)).collect();
        state.reserved_ports = loaded.reserved_ports.into_iter().collect();
        let host = Rtnl::open().map_err(Error::io("netlink socket"))?;
        let table = match config.bridge.as_str() {
            // Several engines may do without a default bridge: their data roots tell them apart.
            "none" => format!("none_{:016x}", crate::sys::fnv1a(config.data_root.as_os_str().as_encoded_bytes())),
            bridge => bridge.to_owned(),
        };
        let firewall = Firewall::new(&table, config.iptables);
        let inner = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            runtime,
            records,
            state: Mutex::new(state),
            host: Mutex::new(host),
            firewall,
            sandboxes,
            warnings: Mutex::new(Vec::new()),
            next_port: Mutex::new(0),
            config,
        });
        inner.ensure_predefined()?;
        inner.load_endpoints(loaded.endpoints)?;
        inner.prepare_host()?;
        Ok(inner)
    }

    /// Endpoints of an earlier run take their addresses and rules, so that running containers notice nothing.
    fn load_endpoints(&self, endpoints: Vec<Endpoint>) -> Result<()> {
        for endpoint in endpoints {
            let mut state = lock(&self.state);
            let Some(network) = state.networks.get_mut(&endpoint.network_id) else {
                drop(state);
                tracing::warn!(container = endpoint.container_id, "endpoint of an unknown network left out");
                self.records.delete_endpoint(&endpoint.id)?;
                continue;
            };
            if let (Some(pool), Some(ip)) = (&mut network.pool, endpoint.ipv4)
                && let Err(error) = pool.claim(ip)
            {
                tracing::warn!(%error, container = endpoint.container_id, %ip, "an address is recorded twice");
            }
            if let Some(ip) = endpoint.ipv4 {
                let rules = endpoint.ports.iter();
                let rules = rules.filter_map(|port| Some((ports::host_port(port)?, (ip, port.container_port))));
                self.firewall.add_ports(rules);
            }
            let key = (endpoint.container_id.clone(), endpoint.network_id.clone());
            state.endpoints.insert(key, EndpointState { endpoint, held: Vec::new() });
        }
        Ok(())
    }

    /// Bridges, sysctls, firewall.
    fn prepare_host(&self) -> Result<()> {
        let mut warnings = Vec::new();
        if self.config.ip_forward {
            sysctl("net/ipv4/ip_forward", "1")?;
        } else if std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|now| now.trim() == "0") {
            warnings.push("WARNING: IPv4 forwarding is disabled".to_owned());
        }
        let networks: Vec<_> = lock(&self.state).networks.values().map(|found| found.record.clone()).collect();
        for network in networks {
            match self.bring_up(&network) {
                // One broken network does not stop the rest; the default one must be.
                Err(error) if !network.predefined => {
                    warnings.push(format!("WARNING: network {}: {error}", network.name));
                }
                other => other?,
            }
        }
        if self.config.iptables {
            warnings.extend(firewall::foreign_policies());
            if let Err(error) = self.firewall.sync() {
                self.firewall.disable();
                warnings.push(format!(
                    "WARNING: no firewall rules ({error}): published ports are served by the engine itself, containers \
                     reach no other host, and networks are not isolated"
                ));
            }
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        *lock(&self.warnings) = warnings;
        Ok(())
    }

    /// Are there firewall rules that lead published ports to containers?
    pub(crate) fn rules_available(&self) -> bool {
        self.firewall.is_enabled()
    }

    /// Servers that the name service passes queries on to.
    pub(crate) fn resolvers(&self) -> Vec<IpAddr> {
        if !self.config.dns.is_empty() {
            return self.config.dns.clone();
        }
        // Read anew each time: the file changes when the host moves. Queries leave from the host's namespace, so that
        // a server on its loopback is fine.
        ResolvConf::parse(&self.host_resolv_conf()).servers
    }

    /// The host's resolver configuration; empty if it has none.
    pub(crate) fn host_resolv_conf(&self) -> String {
        std::fs::read_to_string(&self.config.host_resolv_conf).unwrap_or_default()
    }

    /// Keeps what belongs to live containers, drops everything else.
    pub(crate) fn reconcile(&self, live: &HashSet<String>) -> Result<()> {
        let known: HashSet<String> =
            lock(&self.state).endpoints.keys().map(|(container, _)| container.clone()).collect();
        let pinned = self.sandboxes.pinned();
        let mut dead: HashSet<&String> = known.iter().chain(&pinned).collect();
        dead.retain(|container| !live.contains(*container));
        for container in dead {
            if let Err(error) = self.release_all(container) {
                tracing::warn!(%error, container, "cannot clean up after a container that is gone");
            }
        }
        let survivors: Vec<Endpoint> =
            lock(&self.state).endpoints.values().map(|state| state.endpoint.clone()).collect();
        for endpoint in &survivors {
            self.resume(endpoint);
        }
        self.firewall.sync()
    }
}
