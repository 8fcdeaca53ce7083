//! Legacy links (`--link` on the default bridge): another container's addresses in this one's `hosts` and environment, and
//! the second name (`web/db`) that the other one has by it.
//!
//! In a record a link is `<id of the other>:<alias>`, so that a rename changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use api::types::{HostConfig, List};

use super::container::Container;
use super::network::parse_port;
use super::record::Record;
use crate::Daemon;
use crate::error::{Error, Result};

/// A link as a record holds it.
fn split(link: &str) -> (&str, &str) {
    link.split_once(':').unwrap_or((link, link))
}

impl Daemon {
    /// Turns what a request says into what a record holds.
    pub(super) fn resolve_links(&self, host: &mut HostConfig) -> Result<()> {
        if host.links.is_empty() {
            return Ok(());
        }
        match host.network_mode.as_str() {
            "bridge" => {}
            "host" => return Err(host_network()),
            // On a created network links are aliases, which the endpoint's settings hold.
            _ => return Ok(()),
        }
        let mut links = Vec::with_capacity(host.links.len());
        for link in &host.links {
            let (name, alias) = match link.split_once(':') {
                None => (link.as_str(), link.trim_start_matches('/')),
                Some((name, "")) => (name, name.trim_start_matches('/')),
                // `/db:/web/db`, as inspect shows it, is understood, too.
                Some((name, alias)) => (name, alias.rsplit('/').next().unwrap_or(alias)),
            };
            if name.is_empty() || alias.is_empty() || alias.contains(':') {
                return Err(Error::InvalidParameter(format!("bad format for links: {link}")));
            }
            let other = self
                .container(name)
                .map_err(|e| Error::InvalidParameter(format!("could not get container for {name}: {e}")))?;
            if other.record().network_mode() == "host" {
                return Err(host_network());
            }
            links.push(format!("{}:{alias}", other.id));
        }
        host.links = links.into();
        Ok(())
    }

    /// The containers a record links to that still exist, with their aliases.
    fn linked<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = (Arc<Container>, &'a str)> {
        let legacy = record.host_config.links.iter().filter(|_| record.network_mode() == "bridge");
        legacy.filter_map(|link| {
            let (id, alias) = split(link);
            Some((self.containers.by_id(id)?, alias))
        })
    }

    /// As inspect shows them.
    pub(super) fn shown_links(&self, record: &Record) -> List<String> {
        if record.network_mode() != "bridge" {
            return record.host_config.links.clone();
        }
        let show =
            |(other, alias): (Arc<Container>, &str)| format!("/{}:/{}/{alias}", other.record().name, record.name);
        let shown: Vec<_> = self.linked(record).map(show).collect();
        if shown.is_empty() { List::null() } else { shown.into() }
    }

    /// The names that containers have by being linked to, by their ids.
    pub(super) fn link_names(&self, all: &[Arc<Container>]) -> HashMap<String, Vec<String>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for container in all {
            let record = container.record();
            for link in record.host_config.links.iter().filter(|_| record.network_mode() == "bridge") {
                let (id, alias) = split(link);
                names.entry(id.to_owned()).or_default().push(format!("/{}/{alias}", record.name));
            }
        }
        names
    }

    /// The container that `web/db` names: what `web` links to as `db`.
    pub(crate) fn by_link_name(&self, name: &str) -> Option<Arc<Container>> {
        let (parent, alias) = name.strip_prefix('/').unwrap_or(name).split_once('/')?;
        let parent = self.containers.get(parent).ok()?.record();
        self.linked(&parent).find(|(_, own)| *own == alias).map(|(other, _)| other)
    }

    /// Takes a link away (`rm --link web/db`); the containers stay.
    pub(super) async fn remove_link(&self, name: &str) -> Result<()> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        let Some((parent, alias)) = bare.split_once('/') else {
            self.container(name)?;
            return Err(Error::Conflict("Conflict, cannot remove the default link name of the container".into()));
        };
        if self.by_link_name(name).is_none() {
            return Err(Error::NotFound(format!("No such container: {name}")));
        }
        let parent = self.container(parent)?;
        let _op = parent.op.lock().await;
        let record = parent.change(|r| {
            let left: Vec<_> = r.host_config.links.iter().filter(|link| split(link).1 != alias).cloned().collect();
            r.host_config.links = left.into();
            Ok(())
        })?;
        if record.state.running().is_some() {
            self.write_network_files(&record, &self.networks.endpoints(&record.id))?;
        }
        Ok(())
    }

    /// The other containers' addresses for `hosts`: address, then alias, short id and name.
    pub(super) fn link_hosts(&self, record: &Record) -> Vec<(std::net::Ipv4Addr, Vec<String>)> {
        let entry = |(other, alias): (Arc<Container>, &str)| {
            let other = other.record();
            let mut names = vec![alias.to_owned()];
            for name in [other.config.hostname.as_str(), other.name.as_str()] {
                if !name.is_empty() && !names.iter().any(|n| n == name) {
                    names.push(name.to_owned());
                }
            }
            Some((self.bridge_address(&other)?, names))
        };
        self.linked(record).filter_map(entry).collect()
    }

    fn bridge_address(&self, record: &Record) -> Option<std::net::Ipv4Addr> {
        self.networks.endpoints(&record.id).iter().find(|e| e.network_name == "bridge")?.ipv4
    }

    /// What the links add to the environment; an error if one of the others does not run.
    pub(crate) fn link_environment(&self, record: &Record) -> Result<Vec<String>> {
        let mut env = Vec::new();
        for (other, alias) in self.linked(record) {
            let other = other.record();
            let link_name = format!("/{}/{alias}", record.name);
            if other.state.running().is_none() {
                let message = format!("Cannot link to a non running container: /{} AS {link_name}", other.name);
                return Err(Error::Conflict(message));
            }
            let Some(address) = self.bridge_address(&other) else {
                let message = format!("container {} not attached to default bridge network", other.id);
                return Err(Error::Conflict(message));
            };
            let ports: Vec<_> = other.config.exposed_ports.keys().filter_map(|p| parse_port(p).ok()).collect();
            let ports = ports.into_iter().map(|(number, protocol)| (protocol.name(), number)).collect();
            env.extend(variables(alias, &link_name, &address.to_string(), ports, &other.config.env));
        }
        Ok(env)
    }
}

fn host_network() -> Error {
    Error::InvalidParameter(
        "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
            .into(),
    )
}

/// Docker's variables for one link. `ports` are protocol and number.
fn variables(alias: &str, link_name: &str, ip: &str, mut ports: Vec<(&str, u16)>, other_env: &[String]) -> Vec<String> {
    ports.sort_unstable();
    let prefix = alias.to_uppercase().replace('-', "_");
    let url = |(protocol, number): (&str, u16)| format!("{protocol}://{ip}:{number}");
    let key = |(protocol, number): (&str, u16)| format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
    let mut env: Vec<String> =
        ports.first().map(|first| format!("{prefix}_PORT={}", url(*first))).into_iter().collect();
    // Runs of consecutive ports are told by their ends.
    for run in ports.chunk_by(|a, b| a.0 == b.0 && b.1 - a.1 == 1) {
        if let [first, .., last] = run {
            let name = key(*first);
            env.push(format!("{name}_START={}", url(*first)));
            env.push(format!("{name}_PORT_START={}", first.1));
            env.push(format!("{name}_END={}", url(*last)));
            env.push(format!("{name}_PORT_END={}", last.1));
        }
    }
    for port in ports {
        let name = key(port);
        env.push(format!("{name}={}", url(port)));
        env.push(format!("{name}_ADDR={ip}"));
        env.push(format!("{name}_PORT={}", port.1));
        env.push(format!("{name}_PROTO={}", port.0));
    }
    env.push(format!("{prefix}_NAME={link_name}"));
    for (name, value) in other_env.iter().filter_map(|e| e.split_once('=')) {
        if !matches!(name, "HOME" | "PATH") {
            env.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_ports_ranges_and_the_others_environment() {
        let env = ["A=1".to_owned(), "PATH=/bin".to_owned(), "BARE".to_owned()];
        let ports = vec![("udp", 53), ("tcp", 81), ("tcp", 80)];
        let all = variables("the-db", "/web/the-db", "172.17.0.2", ports, &env);
        assert_eq!(all[0], "THE_DB_PORT=tcp://172.17.0.2:80");
        for wanted in [
            "THE_DB_PORT_80_TCP_START=tcp://172.17.0.2:80",
            "THE_DB_PORT_80_TCP_PORT_END=81",
            "THE_DB_PORT_81_TCP_ADDR=172.17.0.2",
            "THE_DB_PORT_53_UDP=udp://172.17.0.2:53",
            "THE_DB_NAME=/web/the-db",
            "THE_DB_ENV_A=1",
        ] {
            assert!(all.iter().any(|v| v == wanted), "{wanted} in {all:?}");
        }
        assert!(!all.iter().any(|v| v.contains("PATH") || v.contains("BARE")));
    }
}
