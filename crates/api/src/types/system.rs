//! The engine as a whole.

use super::container::ContainerSummary;
use super::image::ImageSummary;
use super::volume::Volume;
use super::wire::{List, Map, omit, wire};

wire! {
    /// `docker info`.
    pub struct SystemInfo {
        #[serde(rename = "ID")]
        id: String,
        containers: i64,
        containers_running: i64,
        containers_paused: i64,
        containers_stopped: i64,
        images: i64,
        /// Storage driver.
        driver: String,
        driver_status: List<[String; 2]>,
        plugins: PluginsInfo,
        memory_limit: bool,
        swap_limit: bool,
        cpu_cfs_period: bool,
        cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        cpu_set: bool,
        pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        ipv4_forwarding: bool,
        debug: bool,
        #[serde(rename = "NFd")]
        n_fd: i64,
        oom_kill_disable: bool,
        #[serde(rename = "NGoroutines")]
        n_goroutines: i64,
        system_time: String,
        logging_driver: String,
        cgroup_driver: String,
        #[serde(skip_serializing_if = "omit")]
        cgroup_version: String,
        #[serde(rename = "NEventsListener")]
        n_events_listener: i64,
        kernel_version: String,
        operating_system: String,
        #[serde(rename = "OSVersion")]
        os_version: String,
        #[serde(rename = "OSType")]
        os_type: String,
        architecture: String,
        index_server_address: String,
        registry_config: RegistryConfig,
        #[serde(rename = "NCPU")]
        ncpu: i64,
        /// Bytes.
        mem_total: i64,
        generic_resources: List<serde_json::Value>,
        docker_root_dir: String,
        http_proxy: String,
        https_proxy: String,
        no_proxy: String,
        name: String,
        labels: Vec<String>,
        experimental_build: bool,
        server_version: String,
        runtimes: Map<RuntimeInfo>,
        default_runtime: String,
        swarm: SwarmInfo,
        live_restore_enabled: bool,
        isolation: String,
        init_binary: String,
        containerd_commit: Commit,
        runc_commit: Commit,
        init_commit: Commit,
        security_options: List<String>,
        #[serde(skip_serializing_if = "omit")]
        default_address_pools: List<AddressPool>,
        #[serde(skip_serializing_if = "omit")]
        firewall_backend: Option<FirewallInfo>,
        #[serde(rename = "CDISpecDirs")]
        cdi_spec_dirs: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        containerd: Option<ContainerdInfo>,
        warnings: List<String>,
    }

    pub struct PluginsInfo {
        volume: List<String>,
        network: List<String>,
        authorization: List<String>,
        log: List<String>,
    }

    pub struct RegistryConfig {
        #[serde(rename = "InsecureRegistryCIDRs")]
        insecure_registry_cidrs: List<String>,
        index_configs: Map<IndexInfo>,
        mirrors: List<String>,
    }

    pub struct IndexInfo {
        name: String,
        mirrors: List<String>,
        secure: bool,
        official: bool,
    }

    pub struct RuntimeInfo as "camelCase" {
        #[serde(skip_serializing_if = "omit")]
        path: String,
        #[serde(skip_serializing_if = "omit")]
        runtime_args: List<String>,
        #[serde(skip_serializing_if = "omit")]
        status: Map<String>,
    }

    pub struct SwarmInfo {
        #[serde(rename = "NodeID")]
        node_id: String,
        node_addr: String,
        /// `inactive`.
        local_node_state: String,
        control_available: bool,
        error: String,
        remote_managers: List<serde_json::Value>,
    }

    pub struct Commit {
        #[serde(rename = "ID")]
        id: String,
    }

    pub struct AddressPool {
        base: String,
        size: u32,
    }

    pub struct FirewallInfo {
        driver: String,
        #[serde(skip_serializing_if = "omit")]
        info: List<[String; 2]>,
    }

    pub struct ContainerdInfo {
        #[serde(skip_serializing_if = "omit")]
        address: String,
        namespaces: ContainerdNamespaces,
    }

    pub struct ContainerdNamespaces {
        containers: String,
        plugins: String,
    }

    /// `docker version`.
    pub struct SystemVersion {
        platform: VersionPlatform,
        #[serde(skip_serializing_if = "omit")]
        components: List<ComponentVersion>,
        version: String,
        api_version: String,
        #[serde(rename = "MinAPIVersion", skip_serializing_if = "omit")]
        min_api_version: String,
        git_commit: String,
        go_version: String,
        os: String,
        arch: String,
        #[serde(skip_serializing_if = "omit")]
        kernel_version: String,
        #[serde(skip_serializing_if = "omit")]
        experimental: bool,
        #[serde(skip_serializing_if = "omit")]
        build_time: String,
    }

    pub struct VersionPlatform {
        name: String,
    }

    pub struct ComponentVersion {
        name: String,
        version: String,
        #[serde(skip_serializing_if = "omit")]
        details: Map<String>,
    }

    /// `docker system df`. What was not asked for is `null`.
    pub struct SystemDataUsage {
        layers_size: i64,
        images: List<ImageSummary>,
        containers: List<ContainerSummary>,
        volumes: List<Volume>,
        build_cache: List<serde_json::Value>,
    }

    pub struct AuthResponse {
        identity_token: String,
        status: String,
    }
}
