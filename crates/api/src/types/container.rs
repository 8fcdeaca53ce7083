//! Containers: requests and answers.

use super::checkpoint::CheckpointTimings;
use super::config::ContainerConfig;
use super::host_config::{HostConfig, Resources, RestartPolicy};
use super::image::{Descriptor, DriverData};
use super::mount::MountPoint;
use super::network::{EndpointSettings, NetworkAddress, NetworkingConfig, PortMap};
use super::time::Timestamp;
use super::wire::{List, Map, omit, wire};

wire! {
    /// `POST /containers/create`: the configuration, with the two others beside its fields.
    pub struct ContainerCreateRequest {
        ..config: ContainerConfig,
        #[serde(skip_serializing_if = "omit")]
        host_config: Option<HostConfig>,
        #[serde(skip_serializing_if = "omit")]
        networking_config: Option<NetworkingConfig>,
    }

    pub struct ContainerCreateResponse {
        id: String,
        /// Always a list.
        warnings: Vec<String>,
    }

    pub struct ContainerUpdateRequest {
        ..resources: Resources,
        restart_policy: RestartPolicy,
    }

    pub struct ContainerUpdateResponse {
        warnings: List<String>,
    }

    pub struct ContainerWaitResponse {
        #[serde(skip_serializing_if = "omit")]
        error: Option<WaitExitError>,
        status_code: i64,
    }

    pub struct WaitExitError {
        #[serde(skip_serializing_if = "omit")]
        message: String,
    }

    pub struct ContainerTop {
        processes: Vec<Vec<String>>,
        titles: Vec<String>,
    }

    pub struct FilesystemChange {
        /// 0 modified, 1 added, 2 deleted.
        kind: u32,
        path: String,
    }

    pub struct ContainersPruneResponse {
        containers_deleted: List<String>,
        space_reclaimed: u64,
    }

    /// `X-Docker-Container-Path-Stat`.
    pub struct PathStat as "camelCase" {
        name: String,
        size: i64,
        /// Go's `os.FileMode`: permission bits, with the kind in the high bits.
        mode: u32,
        mtime: Timestamp,
        link_target: String,
    }

    /// A line of `docker ps`.
    pub struct ContainerSummary {
        id: String,
        names: Vec<String>,
        image: String,
        #[serde(rename = "ImageID")]
        image_id: String,
        #[serde(skip_serializing_if = "omit")]
        image_manifest_descriptor: Option<Descriptor>,
        command: String,
        /// Seconds since the epoch.
        created: i64,
        ports: Vec<Port>,
        #[serde(skip_serializing_if = "omit")]
        size_rw: i64,
        #[serde(skip_serializing_if = "omit")]
        size_root_fs: i64,
        labels: Map<String>,
        state: String,
        status: String,
        host_config: SummaryHostConfig,
        network_settings: Option<SummaryNetworkSettings>,
        mounts: Vec<MountPoint>,
    }

    pub struct SummaryHostConfig {
        #[serde(skip_serializing_if = "omit")]
        network_mode: String,
        #[serde(skip_serializing_if = "omit")]
        annotations: Map<String>,
    }

    pub struct SummaryNetworkSettings {
        networks: Map<EndpointSettings>,
    }

    pub struct Port {
        #[serde(rename = "IP", skip_serializing_if = "omit")]
        ip: String,
        private_port: u16,
        #[serde(skip_serializing_if = "omit")]
        public_port: u16,
        /// `tcp`, `udp`, `sctp`.
        r#type: String,
    }

    /// `docker inspect` of a container.
    pub struct ContainerInspect {
        id: String,
        created: Timestamp,
        path: String,
        args: Vec<String>,
        state: ContainerState,
        image: String,
        resolv_conf_path: String,
        hostname_path: String,
        hosts_path: String,
        log_path: String,
        /// With the leading slash.
        name: String,
        restart_count: i64,
        driver: String,
        platform: String,
        mount_label: String,
        process_label: String,
        app_armor_profile: String,
        /// `null` when there are none.
        #[serde(rename = "ExecIDs")]
        exec_ids: List<String>,
        host_config: HostConfig,
        graph_driver: DriverData,
        #[serde(skip_serializing_if = "omit")]
        size_rw: Option<i64>,
        #[serde(skip_serializing_if = "omit")]
        size_root_fs: Option<i64>,
        mounts: Vec<MountPoint>,
        config: ContainerConfig,
        network_settings: NetworkSettings,
        #[serde(skip_serializing_if = "omit")]
        image_manifest_descriptor: Option<Descriptor>,
        /// What the last checkpoint and the last wake cost; ours.
        #[serde(skip_serializing_if = "omit")]
        checkpoints: Option<CheckpointTimings>,
    }

    pub struct ContainerState {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
        status: String,
        running: bool,
        paused: bool,
        restarting: bool,
        #[serde(rename = "OOMKilled")]
        oom_killed: bool,
        dead: bool,
        pid: i64,
        exit_code: i64,
        error: String,
        started_at: Timestamp,
        finished_at: Timestamp,
        #[serde(skip_serializing_if = "omit")]
        health: Option<Health>,
    }

    pub struct Health {
        /// `none`, `starting`, `healthy`, `unhealthy`.
        status: String,
        failing_streak: i64,
        /// Oldest first.
        log: List<HealthcheckResult>,
    }

    pub struct HealthcheckResult {
        start: Timestamp,
        end: Timestamp,
        exit_code: i64,
        output: String,
    }

    pub struct NetworkSettings {
        bridge: String,
        #[serde(rename = "SandboxID")]
        sandbox_id: String,
        sandbox_key: String,
        ports: PortMap,
        hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")]
        link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        link_local_ipv6_prefix_len: u32,
        #[serde(rename = "SecondaryIPAddresses")]
        secondary_ip_addresses: List<NetworkAddress>,
        #[serde(rename = "SecondaryIPv6Addresses")]
        secondary_ipv6_addresses: List<NetworkAddress>,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: u32,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: u32,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        mac_address: String,
        networks: Map<EndpointSettings>,
    }
}
