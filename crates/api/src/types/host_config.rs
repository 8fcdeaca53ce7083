//! What depends on the host in a container's configuration.

use super::mount::Mount;
use super::network::PortMap;
use super::wire::{List, Map, StrSlice, omit, wire};

wire! {
    pub struct HostConfig {
        ..resources: Resources,
        binds: List<String>,
        #[serde(rename = "ContainerIDFile")]
        container_id_file: String,
        log_config: LogConfig,
        network_mode: String,
        port_bindings: PortMap,
        restart_policy: RestartPolicy,
        auto_remove: bool,
        volume_driver: String,
        volumes_from: List<String>,
        /// Height, width.
        console_size: [u32; 2],
        #[serde(skip_serializing_if = "omit")]
        annotations: Map<String>,
        cap_add: StrSlice,
        cap_drop: StrSlice,
        cgroupns_mode: String,
        dns: List<String>,
        dns_options: List<String>,
        dns_search: List<String>,
        extra_hosts: List<String>,
        group_add: List<String>,
        ipc_mode: String,
        cgroup: String,
        links: List<String>,
        oom_score_adj: i64,
        pid_mode: String,
        privileged: bool,
        publish_all_ports: bool,
        readonly_rootfs: bool,
        security_opt: List<String>,
        #[serde(skip_serializing_if = "omit")]
        storage_opt: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        tmpfs: Map<String>,
        #[serde(rename = "UTSMode")]
        uts_mode: String,
        userns_mode: String,
        /// Bytes.
        shm_size: i64,
        #[serde(skip_serializing_if = "omit")]
        sysctls: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        runtime: String,
        isolation: String,
        #[serde(skip_serializing_if = "omit")]
        mounts: List<Mount>,
        masked_paths: List<String>,
        readonly_paths: List<String>,
        #[serde(skip_serializing_if = "omit")]
        init: Option<bool>,
    }

    /// Limits; also the body of an update. Zero is "not set".
    pub struct Resources {
        cpu_shares: i64,
        /// Bytes.
        memory: i64,
        nano_cpus: i64,
        cgroup_parent: String,
        blkio_weight: u16,
        blkio_weight_device: List<WeightDevice>,
        blkio_device_read_bps: List<ThrottleDevice>,
        blkio_device_write_bps: List<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        blkio_device_read_iops: List<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        blkio_device_write_iops: List<ThrottleDevice>,
        /// Microseconds.
        cpu_period: i64,
        /// Microseconds.
        cpu_quota: i64,
        /// Microseconds.
        cpu_realtime_period: i64,
        /// Microseconds.
        cpu_realtime_runtime: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        devices: List<DeviceMapping>,
        device_cgroup_rules: List<String>,
        device_requests: List<DeviceRequest>,
        #[serde(skip_serializing_if = "omit")]
        kernel_memory: i64,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "omit")]
        kernel_memory_tcp: i64,
        /// Bytes.
        memory_reservation: i64,
        /// Bytes, memory included; -1 is no limit.
        memory_swap: i64,
        memory_swappiness: Option<i64>,
        oom_kill_disable: Option<bool>,
        /// Zero or -1 is no limit; absent leaves it as it is.
        pids_limit: Option<i64>,
        ulimits: List<Ulimit>,
        cpu_count: i64,
        cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        io_maximum_bandwidth: u64,
    }

    pub struct LogConfig {
        r#type: String,
        config: Map<String>,
    }

    pub struct RestartPolicy {
        /// `no`, `always`, `unless-stopped`, `on-failure`; empty is `no`.
        name: String,
        maximum_retry_count: i64,
    }

    pub struct WeightDevice {
        path: String,
        weight: u16,
    }

    pub struct ThrottleDevice {
        path: String,
        rate: u64,
    }

    pub struct DeviceMapping {
        path_on_host: String,
        path_in_container: String,
        cgroup_permissions: String,
    }

    pub struct DeviceRequest {
        driver: String,
        /// -1 is all.
        count: i64,
        #[serde(rename = "DeviceIDs")]
        device_ids: List<String>,
        capabilities: List<List<String>>,
        options: Map<String>,
    }

    pub struct Ulimit {
        name: String,
        hard: i64,
        soft: i64,
    }
}
