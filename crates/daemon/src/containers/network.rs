//! A container and its networks: what it asks for in Docker's terms, what crate `network` is told, and what inspect shows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ::network::{DnsOptions, Endpoint, EndpointRequest, PortBinding as Published, PortPublish, Protocol};
use api::types::{EndpointIpamConfig, EndpointSettings, List, PortBinding, PortMap};

use super::record::Record;
use crate::Daemon;
use crate::error::{Error, Result};

/// What a restore asks of the network: the same addresses and ports as before.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// By network name.
    pub by_network: BTreeMap<String, checkpoint::Address>,
}

/// The ports a checkpoint knows of, for those whose number does not matter to the configuration.
fn ports_before(before: &checkpoint::Address) -> Vec<Published> {
    let ports = before.ports.iter();
    ports
        .filter_map(|published| {
            let (container_port, protocol) = parse_port(&published.port).ok()?;
            let (host_ip, host_port) = (published.host.ip(), published.host.port());
            Some(Published { container_port, protocol, host_ip, host_port })
        })
        .collect()
}

/// `80`, `80/tcp`, `53/udp`.
pub fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = number.parse::<u16>().ok().filter(|p| *p > 0);
    let port = port.ok_or_else(|| Error::InvalidParameter(format!("invalid port specification: \"{number}\"")))?;
    Ok((port, protocol.parse()?))
}

/// A host port as asked for: nothing is "any", else a number or a range.
pub fn parse_host_port(text: &str) -> Result<Option<RangeInclusive<u16>>> {
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse::<u16>(), to.parse::<u16>()) {
        (Ok(from), Ok(to)) if from <= to => Ok(Some(from..=to)),
        _ => Err(Error::InvalidParameter(format!("invalid port specification: \"{text}\""))),
    }
}

/// The ports a container wants published, `-p` and `-P`.
fn publish(record: &Record) -> Result<Vec<PortPublish>> {
    let host = &record.host_config;
    let mut all = Vec::new();
    for (port, bindings) in &host.port_bindings {
        let (container_port, protocol) = parse_port(port)?;
        let default = [PortBinding::default()];
        let bindings: &[PortBinding] = if bindings.is_empty() { &default } else { bindings };
        for binding in bindings {
            let host_port = parse_host_port(&binding.host_port)?;
            let host_ip: Option<IpAddr> = match binding.host_ip.as_str() {
                "" => None,
                ip => Some(ip.parse().map_err(|_| Error::InvalidParameter(format!("invalid IP address: {ip}")))?),
            };
            all.push(PortPublish { container_port, protocol, host_ip, host_port });
        }
    }
    if host.publish_all_ports {
        for port in record.config.exposed_ports.keys() {
            if !host.port_bindings.contains_key(port) {
                let (container_port, protocol) = parse_port(port)?;
                all.push(PortPublish { container_port, protocol, host_ip: None, host_port: None });
            }
        }
    }
    Ok(all)
}

/// What a network is told of a container that joins it.
pub fn endpoint_request(
    record: &Record,
    network: &str,
    settings: &EndpointSettings,
    ports: bool,
    addresses: Option<&Addresses>,
) -> Result<EndpointRequest> {
    let parse_ip = |text: &str| {
        text.parse::<std::net::Ipv4Addr>().map_err(|_| Error::InvalidParameter(format!("invalid IPv4 address: {text}")))
    };
    let asked = settings.ipam_config.as_ref().map(|c| c.ipv4_address.as_str()).unwrap_or_default();
    let mac = match settings.mac_address.as_str() {
        "" => record.config.mac_address.as_str(),
        mac => mac,
    };
    let before = addresses.and_then(|a| a.by_network.get(network));
    let mut links = BTreeMap::new();
    for link in &settings.links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        let alias = alias.rsplit('/').next().unwrap_or(alias);
        links.insert(alias.to_owned(), name.trim_start_matches('/').to_owned());
    }
    Ok(EndpointRequest {
        container_name: record.name.clone(),
        ipv4: match (before, asked) {
            (Some(before), _) => Some(before.ipv4),
            (None, "") => None,
            (None, ip) => Some(parse_ip(ip)?),
        },
        restoring: before.is_some(),
        mac: match (before, mac) {
            (Some(before), _) => Some(before.mac),
            (None, "") => None,
            (None, mac) => Some(parse_mac(mac)?),
        },
        aliases: settings.aliases.to_vec(),
        ports: if ports { publish(record)? } else { Vec::new() },
        ports_before: before.map(ports_before).unwrap_or_default(),
        links,
        gateway_priority: settings.gw_priority,
        dns_servers: dns_servers(record)?,
        link_local: settings.ipam_config.as_ref().map(link_local_ips).transpose()?.unwrap_or_default(),
        driver_opts: settings.driver_opts.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..EndpointRequest::default()
    })
}

/// Checks the addresses asked for on a network; the error names all that is wrong with them, in Docker's words.
pub fn check_addresses(network: &::network::Network, asked: &EndpointIpamConfig) -> Result<(), String> {
    let mut wrong = Vec::new();
    if !asked.ipv4_address.is_empty() {
        let ip = asked.ipv4_address.parse::<std::net::Ipv4Addr>().ok();
        let ipam = network.ipam.as_ref();
        if !network.has_name_service() {
            wrong.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        if ip.is_none() {
            wrong.push(format!("invalid IPv4 address: {}", asked.ipv4_address));
        }
        if ipam.is_none_or(|ipam| !ipam.user_subnet) {
            wrong.push(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .into(),
            );
        } else if ip.is_none_or(|ip| ipam.is_some_and(|ipam| !ipam.subnet.contains(&ip))) {
            wrong.push(format!("no configured subnet or ip-range contain the IP address {}", asked.ipv4_address));
        }
    }
    wrong.extend(link_local_ips(asked).err().map(|e| e.to_string()));
    match &wrong[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(several.iter().map(|one| format!("* {one}")).collect::<Vec<_>>().join("\n")),
    }
}

/// `--link-local-ip`.
fn link_local_ips(asked: &EndpointIpamConfig) -> Result<Vec<std::net::Ipv4Addr>> {
    let parse = |text: &String| match text.parse::<std::net::Ipv4Addr>() {
        Ok(ip) if ip.is_link_local() => Ok(ip),
        _ => Err(Error::InvalidParameter(format!("invalid link-local IP address: {text}"))),
    };
    asked.link_local_ips.iter().map(parse).collect()
}

/// `02:42:ac:11:00:02`.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let invalid = || Error::InvalidParameter(format!("invalid MAC address {text}"));
    let bytes: Vec<u8> =
        text.split([':', '-']).map(|b| u8::from_str_radix(b, 16).map_err(|_| invalid())).collect::<Result<_>>()?;
    bytes.try_into().map_err(|_| invalid())
}

/// `--dns`.
fn dns_servers(record: &Record) -> Result<Vec<IpAddr>> {
    let invalid = |a: &String| Error::InvalidParameter(format!("invalid IP address: {a}"));
    record.host_config.dns.iter().map(|a| a.parse().map_err(|_| invalid(a))).collect()
}

/// What a container got on a network, as inspect shows it.
pub fn show_endpoint(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    settings.network_id.clone_from(&endpoint.network_id);
    settings.endpoint_id.clone_from(&endpoint.id);
    settings.gateway = endpoint.gateway.map(|g| g.to_string()).unwrap_or_default();
    settings.ip_address = endpoint.ipv4.map(|a| a.to_string()).unwrap_or_default();
    settings.ip_prefix_len = endpoint.prefix_len.into();
    settings.mac_address = endpoint.mac_text();
}

/// What a container that does not run shows of its networks.
pub fn hide_endpoint(settings: &mut EndpointSettings, asked_mac: &str) {
    settings.endpoint_id.clear();
    settings.gateway.clear();
    settings.ip_address.clear();
    settings.ip_prefix_len = 0;
    settings.mac_address = asked_mac.to_owned();
}

/// The published ports of a container's endpoints, with those that are only exposed.
pub fn port_map(record: &Record, endpoints: &[Endpoint]) -> PortMap {
    let mut ports = PortMap::empty();
    if record.state.running().is_none() {
        return ports;
    }
    for port in record.config.exposed_ports.keys().chain(record.host_config.port_bindings.keys()) {
        let key = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        ports.entry(key).or_insert_with(List::null);
    }
    for binding in endpoints.iter().flat_map(|e| &e.ports) {
        let key = format!("{}/{}", binding.container_port, binding.protocol.name());
        ports
            .entry(key)
            .or_insert_with(List::null)
            .push(PortBinding { host_ip: binding.host_ip.to_string(), host_port: binding.host_port.to_string() });
    }
    ports
}

/// The network part of a prepared start.
pub struct Joined {
    /// The namespace; `None` is the host's.
    pub netns: Option<PathBuf>,
    /// The container whose namespace and files it shares.
    pub shared_with: Option<String>,
    /// What it got.
    pub endpoints: Vec<Endpoint>,
}

impl Daemon {
    /// Makes the namespace and joins all networks of a container. On failure nothing is left of it.
    pub(crate) async fn join_networks(&self, record: &Record, addresses: Option<&Addresses>) -> Result<Joined> {
        let mode = record.network_mode();
        if let Some(other) = mode.strip_prefix("container:") {
            let other = self.container(other)?;
            let running = other.record();
            if running.state.running().is_none() {
                return Err(Error::Conflict(format!(
                    "cannot join network namespace of a non running container: container {} is {}",
                    running.name,
                    running.state.status()
                )));
            }
            let netns = match running.network_mode() {
                "host" => None,
                _ => Some(self.networks.sandbox_path(&other.id)),
            };
            return Ok(Joined { netns, shared_with: Some(other.id.clone()), endpoints: Vec::new() });
        }
        let outcome = self.join_own_networks(record, addresses).await;
        if outcome.is_err()
            && let Err(e) = self.networks.release_all(&record.id).await
        {
            tracing::warn!("releasing the network of {}: {e}", record.short_id());
        }
        outcome
    }

    async fn join_own_networks(&self, record: &Record, addresses: Option<&Addresses>) -> Result<Joined> {
        let host = record.network_mode() == "host";
        let netns = if host { None } else { Some(self.networks.sandbox_create(&record.id).await?) };
        let mut endpoints = Vec::new();
        let mut ports = true;
        // The network of the mode first: it carries the published ports and the default route.
        let mut networks: Vec<_> = record.networks.iter().collect();
        networks.sort_by_key(|(name, _)| (name.as_str() != record.network_mode(), name.as_str()));
        for (name, settings) in networks {
            let request = endpoint_request(record, name, settings, ports, addresses)?;
            ports = false;
            endpoints.push(self.networks.connect(&record.id, name, request).await?);
        }
        Ok(Joined { netns, shared_with: None, endpoints })
    }

    /// The network that decides about the resolver: one with a name service, if the container is on any.
    fn naming_network<'a>(&self, record: &'a Record) -> &'a str {
        let has_names = |name: &&String| self.networks.get(name).is_ok_and(|n| n.has_name_service());
        record.networks.keys().find(has_names).map_or(record.network_mode(), String::as_str)
    }

    /// Writes `hostname`, `hosts` and `resolv.conf` of a container; they can be rebuilt, so nothing is synced.
    pub(crate) fn write_network_files(&self, record: &Record, endpoints: &[Endpoint]) -> Result<()> {
        use crate::error::Context;
        let dir = self.container_dir(&record.id);
        let host = &record.host_config;
        let dns = DnsOptions {
            servers: dns_servers(record)?,
            search: host.dns_search.to_vec(),
            options: host.dns_options.to_vec(),
        };
        let config = &record.config;
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).context(|| format!("write {}", path.display()))
        };
        write("hostname", &format!("{}\n", config.hostname))?;
        write("resolv.conf", &self.networks.resolv_conf(self.naming_network(record), &dns)?)?;
        let links = self.link_hosts(record);
        write(
            "hosts",
            &self.networks.hosts(&config.hostname, &config.domainname, endpoints, &host.extra_hosts, &links)?,
        )
    }
}
