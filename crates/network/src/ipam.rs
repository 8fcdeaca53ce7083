//! Address pools.

use ipnet::Ipv4Net;

/// Docker's default pools: 172.17–172.31 as /16, 192.168/16 cut into /20.
pub fn default_pools() -> Vec<(Ipv4Net, u8)> {
    let net = |a, b, len| Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, 0, 0), len);
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
