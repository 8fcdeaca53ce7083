//! Addresses of one subnet, and subnets out of the default pools.
//!
//! Allocation is next-fit: an address that has just become free is given out again only after all others, so that no
//! neighbour's cache points at the wrong container.

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{Error, Ipam, IpamRequest, Result};

/// Docker's default pools: 172.17–172.31 as /16, 192.168/16 cut into /20.
pub fn default_pools() -> Vec<(Ipv4Net, u8)> {
    let net = |a, b, len| Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), len);
    vec![
        (net(172, 17, 16), 16),
        (net(172, 18, 16), 16),
        (net(172, 19, 16), 16),
        (net(172, 20, 14), 16),
        (net(172, 24, 14), 16),
        (net(172, 28, 14), 16),
        (net(192, 168, 16), 20),
    ]
}

/// Do two subnets share an address?
pub(crate) fn overlaps(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The first subnet of the pools that touches none of `taken`.
pub(crate) fn free_subnet(pools: &[(Ipv4Net, u8)], taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    pools
        .iter()
        .filter_map(|(base, length)| base.subnets(*length).ok())
        .flatten()
        .find(|subnet| !taken.iter().any(|other| overlaps(subnet, other)))
        .ok_or(Error::PoolsExhausted)
}

/// Checks a request and turns it into addresses. `taken` are the subnets of the other networks, `routed` those that
/// the host can reach (avoided only when the choice is ours).
pub(crate) fn plan(
    requests: &[IpamRequest],
    pools: &[(Ipv4Net, u8)],
    taken: &[Ipv4Net],
    routed: &[Ipv4Net],
) -> Result<Ipam> {
    let invalid = |text: String| Error::Invalid(text);
    if requests.len() > 1 {
        return Err(Error::NotImplemented("more than one IPv4 subnet in a network".to_owned()));
    }
    let request = requests.first().cloned().unwrap_or_default();
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let user_subnet = given(&request.subnet);
    let subnet = match &user_subnet {
        Some(text) => parse_subnet(text)?,
        None => {
            if given(&request.ip_range).is_some() || given(&request.gateway).is_some() {
                return Err(invalid(
                    "invalid IPAM config: a subnet must be given with a gateway or ip-range".to_owned(),
                ));
            }
            let avoid: Vec<Ipv4Net> = taken.iter().chain(routed).copied().collect();
            free_subnet(pools, &avoid)?
        }
    };
    if taken.iter().any(|other| overlaps(&subnet, other)) {
        return Err(Error::PoolOverlap);
    }
    let ip_range = given(&request.ip_range).map(|text| parse_subnet(&text)).transpose()?;
    if let Some(range) = ip_range
        && !subnet.contains(&range)
    {
        return Err(invalid(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range")));
    }
    let inside = |what: &str, text: &str| -> Result<Ipv4Addr> {
        let ip: Ipv4Addr =
            text.parse().map_err(|_| Error::Invalid(format!("invalid {what} {text}: not an IPv4 address")))?;
        if subnet.contains(&ip) {
            Ok(ip)
        } else {
            Err(Error::Invalid(format!("invalid {what} {ip}: parent subnet {subnet} doesn't contain this address")))
        }
    };
    let mut aux_addresses = std::collections::BTreeMap::new();
    for (name, text) in &request.aux_addresses {
        aux_addresses.insert(name.clone(), inside("auxiliary address", text)?);
    }
    let gateway = match given(&request.gateway) {
        Some(text) => inside("gateway", &text)?,
        None => {
            // A request may name very many of them.
            let kept: HashSet<Ipv4Addr> = aux_addresses.values().copied().collect();
            let mut hosts = ip_range.unwrap_or(subnet).hosts();
            hosts
                .find(|ip| *ip != subnet.network() && !kept.contains(ip))
                .ok_or_else(|| Error::NoAddress(subnet.to_string()))?
        }
    };
    Ok(Ipam {
        subnet,
        gateway,
        ip_range,
        aux_addresses,
        user_subnet: user_subnet.is_some(),
        options: Default::default(),
    })
}

fn parse_subnet(text: &str) -> Result<Ipv4Net> {
    if text.parse::<ipnet::Ipv6Net>().is_ok() {
        return Err(Error::NotImplemented("IPv6 in networks".to_owned()));
    }
    let net: Ipv4Net = text.parse().map_err(|_| {
        Error::Invalid(format!("invalid network config:\ninvalid subnet {text}: invalid CIDR block notation"))
    })?;
    if net.addr() != net.network() {
        return Err(Error::Invalid(format!(
            "invalid network config:\ninvalid subnet {text}: it should be {}",
            net.trunc()
        )));
    }
    if !(1..=30).contains(&net.prefix_len()) {
        return Err(Error::Invalid(format!("invalid subnet {text}: a prefix length from 1 to 30 is needed")));
    }
    Ok(net)
}

/// What is given out of one subnet.
#[derive(Debug)]
pub(crate) struct Pool {
    subnet: Ipv4Net,
    first: u32,
    last: u32,
    next: u32,
    used: BTreeSet<u32>,
}

impl Pool {
    /// All of the range is free but the network, broadcast, gateway and auxiliary addresses.
    pub(crate) fn new(ipam: &Ipam) -> Self {
        let range = ipam.ip_range.unwrap_or(ipam.subnet);
        let network = u32::from(ipam.subnet.network());
        let broadcast = u32::from(ipam.subnet.broadcast());
        let first = u32::from(range.network());
        let mut used: BTreeSet<u32> = [network, broadcast, u32::from(ipam.gateway)].into();
        used.extend(ipam.aux_addresses.values().map(|ip| u32::from(*ip)));
        Self { subnet: ipam.subnet, first, last: u32::from(range.broadcast()), next: first, used }
    }

    /// The next free address that is not `kept` for somebody.
    pub(crate) fn allocate(&mut self, kept: &HashSet<Ipv4Addr>) -> Result<Ipv4Addr> {
        let free = |ip: &u32| !self.used.contains(ip) && !kept.contains(&Ipv4Addr::from(*ip));
        let found = (self.next..=self.last).find(free).or_else(|| (self.first..self.next).find(free));
        let ip = found.ok_or_else(|| Error::NoAddress(self.subnet.to_string()))?;
        self.used.insert(ip);
        self.next = if ip == self.last { self.first } else { ip + 1 };
        Ok(ip.into())
    }

    /// Takes a certain address.
    pub(crate) fn claim(&mut self, ip: Ipv4Addr) -> Result<()> {
        if !self.subnet.contains(&ip) {
            return Err(Error::Invalid(format!(
                "invalid endpoint settings: no configured subnet contains IP address {ip}"
            )));
        }
        if self.used.insert(ip.into()) { Ok(()) } else { Err(Error::AddressInUse) }
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, ip: Ipv4Addr) {
        self.used.remove(&u32::from(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnet: &str) -> IpamRequest {
        IpamRequest { subnet: Some(subnet.to_owned()), ..Default::default() }
    }

    fn pool(subnet: &str) -> Pool {
        Pool::new(&plan(&[request(subnet)], &[], &[], &[]).unwrap())
    }

    #[test]
    fn allocation_is_next_fit_and_leaves_out_the_ends_and_the_gateway() {
        let mut pool = pool("10.0.0.0/29");
        let none = HashSet::new();
        let mut next = || pool.allocate(&none).map(|ip| ip.octets()[3]);
        assert_eq!([next().unwrap(), next().unwrap(), next().unwrap()], [2, 3, 4]);
        pool.release(Ipv4Addr::new(10, 0, 0, 2));
        let mut next = || pool.allocate(&none).map(|ip| ip.octets()[3]);
        assert_eq!([next().unwrap(), next().unwrap(), next().unwrap()], [5, 6, 2]);
        assert!(matches!(next(), Err(Error::NoAddress(_))));
    }

    #[test]
    fn kept_addresses_are_not_given_out_and_claims_are_exclusive() {
        let mut pool = pool("10.0.0.0/29");
        let kept = HashSet::from([Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!(pool.allocate(&kept).unwrap(), Ipv4Addr::new(10, 0, 0, 3));
        pool.claim(Ipv4Addr::new(10, 0, 0, 2)).unwrap();
        assert!(matches!(pool.claim(Ipv4Addr::new(10, 0, 0, 2)), Err(Error::AddressInUse)));
        assert!(matches!(pool.claim(Ipv4Addr::new(10, 0, 1, 2)), Err(Error::Invalid(_))));
        assert!(matches!(pool.claim(Ipv4Addr::new(10, 0, 0, 1)), Err(Error::AddressInUse)));
    }

    #[test]
    fn default_pools_skip_what_is_taken_or_routed() {
        let taken = ["172.17.0.0/16".parse().unwrap()];
        let routed = ["172.16.0.0/14".parse().unwrap(), "172.20.1.0/24".parse().unwrap()];
        let ipam = plan(&[], &default_pools(), &taken, &routed).unwrap();
        assert_eq!(ipam.subnet.to_string(), "172.21.0.0/16");
        assert_eq!(ipam.gateway.to_string(), "172.21.0.1");
        assert!(!ipam.user_subnet);
        assert!(matches!(plan(&[], &default_pools()[..1], &taken, &[]), Err(Error::PoolsExhausted)));
    }

    #[test]
    fn very_many_kept_addresses_do_not_hold_anybody_up() {
        let kept = (1..60_000_u32).map(|n| (n.to_string(), Ipv4Addr::from(0x0a00_0000 + n).to_string()));
        let request = IpamRequest { aux_addresses: kept.collect(), ..request("10.0.0.0/16") };
        assert_eq!(plan(&[request], &[], &[], &[]).unwrap().gateway, Ipv4Addr::from(0x0a00_0000 + 60_000));
    }

    #[test]
    fn bad_requests_are_refused() {
        for bad in ["10.0.0.1/24", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/0", "x", "10.0.0.0/33", "fd00::/64"] {
            assert!(plan(&[request(bad)], &[], &[], &[]).is_err(), "{bad}");
        }
        let taken = ["10.0.0.0/8".parse().unwrap()];
        assert!(matches!(plan(&[request("10.1.0.0/16")], &[], &taken, &[]), Err(Error::PoolOverlap)));
        let mut outside = request("10.0.0.0/24");
        outside.gateway = Some("10.0.1.1".to_owned());
        assert!(matches!(plan(&[outside], &[], &[], &[]), Err(Error::Invalid(_))));
        let mut range = request("10.0.0.0/24");
        range.ip_range = Some("10.0.0.128/25".to_owned());
        let ipam = plan(&[range.clone()], &[], &[], &[]).unwrap();
        assert_eq!(ipam.gateway.to_string(), "10.0.0.129");
        range.ip_range = Some("10.1.0.0/25".to_owned());
        assert!(matches!(plan(&[range], &[], &[], &[]), Err(Error::Invalid(_))));
    }
}
