//! What containers ask the name service and users ask of networks, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use std::net::{IpAddr, Ipv4Addr};

use crate::dns::{self, Zone};
use crate::files::{self, ResolvConf};
use crate::{Endpoint, IpamRequest, Network, ipam};

struct Fake;

impl Zone for Fake {
    fn addresses(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        name.starts_with("db").then(|| vec![Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)])
    }
    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        address.is_private().then(|| "db_1.net".to_owned())
    }
    fn forwarders(&self) -> Vec<IpAddr> {
        vec![Ipv4Addr::LOCALHOST.into()]
    }
}

/// A container's query. An answer is an answer to this one and never larger than the query explains.
pub fn query(data: &[u8]) {
    let data = &data[..data.len().min(dns::QUERY_MAX_BYTES)];
    if let Some(reply) = dns::answered(data, &Fake) {
        assert_eq!(reply[..2], data[..2], "an answer to another query");
        assert!(reply[2] & 0x80 != 0, "an answer that is a query");
        assert!(reply.len() <= data.len() + 512, "{} bytes answered to {}", reply.len(), data.len());
    }
}

/// A `resolv.conf`, and `--add-host`, a line each.
pub fn files(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let conf = ResolvConf::parse(&text);
    let written = conf.clone().for_bridge(false).text();
    assert!(!ResolvConf::parse(&written).servers.is_empty());
    let extra: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Ok(hosts) = files::hosts("web", "example", &[], &extra, &[], None) {
        assert_eq!(hosts.lines().count(), 6 + extra.len(), "an entry made lines of its own");
    }
}

/// The addresses that are asked for.
pub fn addresses(data: &[u8]) {
    let Ok(requests) = serde_json::from_slice::<Vec<IpamRequest>>(data) else { return };
    let taken = ["172.17.0.0/16".parse().expect("a network")];
    if let Ok(plan) = ipam::plan(&requests, &ipam::default_pools(), &taken, &[]) {
        assert!(plan.subnet.contains(&plan.gateway));
        let mut pool = ipam::Pool::new(&plan);
        for _ in 0..4 {
            if let Ok(address) = pool.allocate(&Default::default()) {
                assert!(plan.subnet.contains(&address) && address != plan.gateway);
            }
        }
    }
}

/// Rows of the database.
pub fn records(data: &[u8]) {
    if let Ok(network) = serde_json::from_slice::<Network>(data) {
        let text = serde_json::to_vec(&network).unwrap_or_default();
        assert!(serde_json::from_slice::<Network>(&text).is_ok_and(|again| again == network));
    }
    if let Ok(endpoint) = serde_json::from_slice::<Endpoint>(data) {
        let text = serde_json::to_vec(&endpoint).unwrap_or_default();
        assert!(serde_json::from_slice::<Endpoint>(&text).is_ok_and(|again| again == endpoint));
    }
}
