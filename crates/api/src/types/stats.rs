//! Resource use of a container, in the layout that `docker stats` reads.

use super::time::Timestamp;
use super::wire::{List, Map, omit, wire};

wire! {
    pub struct ContainerStats as "snake_case" {
        /// With the leading slash.
        #[serde(skip_serializing_if = "omit")]
        name: String,
        #[serde(skip_serializing_if = "omit")]
        id: String,
        read: Timestamp,
        preread: Timestamp,
        pids_stats: PidsStats,
        blkio_stats: BlkioStats,
        /// Windows only; always there.
        num_procs: u32,
        storage_stats: StorageStats,
        cpu_stats: CpuStats,
        precpu_stats: CpuStats,
        memory_stats: MemoryStats,
        #[serde(skip_serializing_if = "omit")]
        networks: Map<NetworkStats>,
    }

    pub struct PidsStats as "snake_case" {
        #[serde(skip_serializing_if = "omit")]
        current: u64,
        #[serde(skip_serializing_if = "omit")]
        limit: u64,
    }

    pub struct BlkioStats as "snake_case" {
        io_service_bytes_recursive: List<BlkioStatEntry>,
        io_serviced_recursive: List<BlkioStatEntry>,
        io_queue_recursive: List<BlkioStatEntry>,
        io_service_time_recursive: List<BlkioStatEntry>,
        io_wait_time_recursive: List<BlkioStatEntry>,
        io_merged_recursive: List<BlkioStatEntry>,
        io_time_recursive: List<BlkioStatEntry>,
        sectors_recursive: List<BlkioStatEntry>,
    }

    pub struct BlkioStatEntry as "snake_case" {
        major: u64,
        minor: u64,
        op: String,
        value: u64,
    }

    pub struct StorageStats as "snake_case" {
        #[serde(skip_serializing_if = "omit")]
        read_count_normalized: u64,
        #[serde(skip_serializing_if = "omit")]
        read_size_bytes: u64,
        #[serde(skip_serializing_if = "omit")]
        write_count_normalized: u64,
        #[serde(skip_serializing_if = "omit")]
        write_size_bytes: u64,
    }

    /// Times are nanoseconds.
    pub struct CpuStats as "snake_case" {
        cpu_usage: CpuUsage,
        #[serde(skip_serializing_if = "omit")]
        system_cpu_usage: u64,
        #[serde(skip_serializing_if = "omit")]
        online_cpus: u32,
        throttling_data: ThrottlingData,
    }

    pub struct CpuUsage as "snake_case" {
        total_usage: u64,
        #[serde(skip_serializing_if = "omit")]
        percpu_usage: List<u64>,
        usage_in_kernelmode: u64,
        usage_in_usermode: u64,
    }

    pub struct ThrottlingData as "snake_case" {
        periods: u64,
        throttled_periods: u64,
        throttled_time: u64,
    }

    /// Bytes.
    pub struct MemoryStats as "snake_case" {
        #[serde(skip_serializing_if = "omit")]
        usage: u64,
        #[serde(skip_serializing_if = "omit")]
        max_usage: u64,
        #[serde(skip_serializing_if = "omit")]
        stats: Map<u64>,
        #[serde(skip_serializing_if = "omit")]
        failcnt: u64,
        #[serde(skip_serializing_if = "omit")]
        limit: u64,
    }

    pub struct NetworkStats as "snake_case" {
        rx_bytes: u64,
        rx_packets: u64,
        rx_errors: u64,
        rx_dropped: u64,
        tx_bytes: u64,
        tx_packets: u64,
        tx_errors: u64,
        tx_dropped: u64,
    }
}
