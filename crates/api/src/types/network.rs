//! Networks, endpoints and port bindings.

use super::time::Timestamp;
use super::wire::{List, Map, omit, wire};

/// By `port/protocol`; a `null` list is a port that is exposed and not published.
pub type PortMap = Map<List<PortBinding>>;

wire! {
    pub struct PortBinding {
        host_ip: String,
        host_port: String,
    }

    pub struct NetworkingConfig {
        endpoints_config: Map<EndpointSettings>,
    }

    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        ipam_config: Option<EndpointIpamConfig>,
        links: List<String>,
        aliases: List<String>,
        mac_address: String,
        driver_opts: Map<String>,
        gw_priority: i64,
        #[serde(rename = "NetworkID")]
        network_id: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: u32,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: u32,
        #[serde(rename = "DNSNames")]
        dns_names: List<String>,
    }

    pub struct EndpointIpamConfig {
        #[serde(rename = "IPv4Address", skip_serializing_if = "omit")]
        ipv4_address: String,
        #[serde(rename = "IPv6Address", skip_serializing_if = "omit")]
        ipv6_address: String,
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "omit")]
        link_local_ips: List<String>,
    }

    pub struct NetworkAddress {
        addr: String,
        prefix_len: u32,
    }

    /// `GET /networks/{id}`, and an element of the list.
    pub struct NetworkInspect {
        name: String,
        id: String,
        created: Timestamp,
        /// `local`.
        scope: String,
        driver: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_from: ConfigReference,
        config_only: bool,
        /// By container id.
        containers: Map<EndpointResource>,
        options: Map<String>,
        labels: Map<String>,
    }

    pub struct Ipam {
        driver: String,
        options: Map<String>,
        config: List<IpamConfig>,
    }

    pub struct IpamConfig {
        #[serde(skip_serializing_if = "omit")]
        subnet: String,
        #[serde(rename = "IPRange", skip_serializing_if = "omit")]
        ip_range: String,
        #[serde(skip_serializing_if = "omit")]
        gateway: String,
        #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "omit")]
        auxiliary_addresses: Map<String>,
    }

    pub struct ConfigReference {
        network: String,
    }

    pub struct EndpointResource {
        name: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        mac_address: String,
        /// With the prefix length.
        #[serde(rename = "IPv4Address")]
        ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        ipv6_address: String,
    }

    pub struct NetworkCreateRequest {
        name: String,
        #[serde(skip_serializing_if = "omit")]
        check_duplicate: Option<bool>,
        driver: String,
        scope: String,
        #[serde(rename = "EnableIPv4", skip_serializing_if = "omit")]
        enable_ipv4: Option<bool>,
        #[serde(rename = "EnableIPv6", skip_serializing_if = "omit")]
        enable_ipv6: Option<bool>,
        #[serde(rename = "IPAM")]
        ipam: Option<Ipam>,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_only: bool,
        config_from: Option<ConfigReference>,
        options: Map<String>,
        labels: Map<String>,
    }

    pub struct NetworkCreateResponse {
        id: String,
        warning: String,
    }

    pub struct NetworkConnectRequest {
        container: String,
        #[serde(skip_serializing_if = "omit")]
        endpoint_config: Option<EndpointSettings>,
    }

    pub struct NetworkDisconnectRequest {
        container: String,
        force: bool,
    }

    pub struct NetworksPruneResponse {
        networks_deleted: List<String>,
    }
}
