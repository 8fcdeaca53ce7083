//! A network in the API's terms.

use ::network::{Endpoint, Network};
use api::filters::Filters;
use api::types::{EndpointResource, Ipam, IpamConfig, List, Map, NetworkInspect, Timestamp};

/// What inspect shows; `endpoints` are the containers on it.
pub(super) fn show(network: &Network, endpoints: &[Endpoint]) -> NetworkInspect {
    let ipam = match &network.ipam {
        None => Ipam { driver: "default".into(), options: Map::null(), config: List::null() },
        Some(ipam) => {
            let config = IpamConfig {
                subnet: ipam.subnet.to_string(),
                ip_range: ipam.ip_range.map(|range| range.to_string()).unwrap_or_default(),
                gateway: ipam.gateway.to_string(),
                auxiliary_addresses: ipam
                    .aux_addresses
                    .iter()
                    .map(|(name, a)| (name.as_str(), a.to_string()))
                    .collect(),
            };
            let options = ipam.options.clone().map_or_else(Map::null, |options| Map::from(options).or_empty());
            Ipam { driver: "default".into(), options, config: vec![config].into() }
        }
    };
    NetworkInspect {
        name: network.name.clone(),
        id: network.id.clone(),
        created: Timestamp::from(network.created),
        scope: "local".into(),
        driver: network.driver.name().into(),
        enable_ipv4: true,
        enable_ipv6: network.enable_ipv6,
        ipam,
        internal: network.internal,
        attachable: network.attachable,
        containers: endpoints.iter().map(|endpoint| (endpoint.container_id.as_str(), resource(endpoint))).collect(),
        options: network.options.clone().into(),
        labels: network.labels.clone().into(),
        ..NetworkInspect::default()
    }
}

fn resource(endpoint: &Endpoint) -> EndpointResource {
    EndpointResource {
        name: endpoint.container_name.clone(),
        endpoint_id: endpoint.id.clone(),
        mac_address: endpoint.mac_text(),
        ipv4_address: endpoint.ipv4.map(|address| format!("{address}/{}", endpoint.prefix_len)).unwrap_or_default(),
        ipv6_address: String::new(),
    }
}

/// Whether all filters but `dangling` hold.
pub(super) fn matches(filters: &Filters, network: &Network) -> bool {
    let kind = if network.predefined { "builtin" } else { "custom" };
    filters.matches_exactly("driver", network.driver.name())
        && filters.matches_substring("id", &network.id)
        && filters.any("name", |wanted| network.name.contains(wanted.trim_start_matches('^').trim_end_matches('$')))
        && filters.any("name", |wanted| anchors_hold(wanted, &network.name))
        && filters.matches_exactly("scope", "local")
        && filters.matches_exactly("type", kind)
        && filters.matches_pairs("label", |key| network.labels.get(key).map(String::as_str))
}

/// `^` and `$` at the ends of a name filter: the only parts of a regular expression that people use here.
fn anchors_hold(wanted: &str, name: &str) -> bool {
    let text = wanted.trim_start_matches('^').trim_end_matches('$');
    (!wanted.starts_with('^') || name.starts_with(text)) && (!wanted.ends_with('$') || name.ends_with(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_and_without_anchors() {
        assert!(anchors_hold("^web$", "web") && !anchors_hold("^web$", "web2") && !anchors_hold("^web", "aweb"));
        assert!(anchors_hold("web", "aweb2"));
    }
}
