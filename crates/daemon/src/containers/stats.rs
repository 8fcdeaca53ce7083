//! `stats`: docker-containerd's counters in the layout that `docker stats` computes with.

use std::sync::Arc;
use std::time::Duration;

use api::backend::BoxStream;
use api::types::{
    BlkioStatEntry, BlkioStats, ContainerStats, CpuStats, CpuUsage, List, MemoryStats, NetworkStats, PidsStats,
    ThrottlingData, Timestamp,
};
use containerd_api::types as wire;

use super::container::Container;
use crate::Daemon;
use crate::error::Result;

/// Between two samples of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

impl Daemon {
    /// One sample, or one a second.
    pub(crate) async fn container_stats(
        self: &Arc<Self>,
        name: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<BoxStream<ContainerStats>> {
        let container = self.container(name)?;
        let daemon = self.clone();
        if !stream {
            let first = daemon.sample(&container).await?;
            if one_shot || container.record().state.running().is_none() {
                return Ok(Box::pin(futures::stream::iter([Ok(first)])));
            }
            tokio::time::sleep(INTERVAL).await;
            let mut second = daemon.sample(&container).await?;
            chain(&first, &mut second);
            return Ok(Box::pin(futures::stream::iter([Ok(second)])));
        }
        let state = (daemon, container, None::<ContainerStats>);
        let samples = futures::stream::unfold(state, |(daemon, container, before)| async move {
            if before.is_some() {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = container.removed.cancelled() => return None,
                }
            }
            match daemon.sample(&container).await {
                Ok(mut sample) => {
                    if let Some(before) = &before {
                        chain(before, &mut sample);
                    }
                    Some((Ok(sample.clone()), (daemon, container, Some(sample))))
                }
                Err(e) => Some((Err(e.into()), (daemon, container, before))),
            }
        });
        Ok(Box::pin(samples))
    }

    /// The counters now; of a container that does not run, none.
    async fn sample(&self, container: &Container) -> Result<ContainerStats> {
        let record = container.record();
        let mut stats =
            ContainerStats { name: format!("/{}", record.name), id: record.id.clone(), ..ContainerStats::default() };
        let Some(running) = record.state.running() else { return Ok(stats) };
        let answer = match self.containerd.stats(&record.id).await {
            Ok(answer) => answer,
            // It ended between the two.
            Err(_) if container.record().state.running().is_none() => return Ok(stats),
            Err(e) => return Err(e),
        };
        stats.read = Timestamp::now();
        fill(&mut stats, answer);
        if !record.networks.is_empty() && record.network_mode() != "host" {
            stats.networks = self
                .networks
                .stats(running.pid as u32)
                .unwrap_or_default()
                .into_iter()
                .map(|i| {
                    let counters = NetworkStats {
                        rx_bytes: i.rx_bytes,
                        rx_packets: i.rx_packets,
                        rx_errors: i.rx_errors,
                        rx_dropped: i.rx_dropped,
                        tx_bytes: i.tx_bytes,
                        tx_packets: i.tx_packets,
                        tx_errors: i.tx_errors,
                        tx_dropped: i.tx_dropped,
                    };
                    (i.name, counters)
                })
                .collect();
        }
        Ok(stats)
    }
}

/// Puts the earlier sample where clients look for it.
fn chain(before: &ContainerStats, now: &mut ContainerStats) {
    now.preread = before.read;
    now.precpu_stats = before.cpu_stats.clone();
}

fn fill(stats: &mut ContainerStats, answer: wire::StatsResponse) {
    let Some(cgroup) = answer.cgroup_stats else { return };
    if let Some(cpu) = cgroup.cpu_stats {
        let usage = cpu.cpu_usage.unwrap_or_default();
        let throttling = cpu.throttling_data.unwrap_or_default();
        stats.cpu_stats = CpuStats {
            cpu_usage: CpuUsage {
                total_usage: usage.total_usage,
                percpu_usage: if usage.percpu_usage.is_empty() { List::null() } else { usage.percpu_usage.into() },
                usage_in_kernelmode: usage.usage_in_kernelmode,
                usage_in_usermode: usage.usage_in_usermode,
            },
            system_cpu_usage: cpu.system_usage,
            online_cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            throttling_data: ThrottlingData {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_time: throttling.throttled_time,
            },
        };
    }
    if let Some(memory) = cgroup.memory_stats {
        let usage = memory.usage.unwrap_or_default();
        let total = nix::sys::sysinfo::sysinfo().map_or(u64::MAX, |s| s.ram_total());
        stats.memory_stats = MemoryStats {
            usage: usage.usage,
            max_usage: usage.max_usage,
            stats: memory.stats.into_iter().collect(),
            failcnt: usage.failcnt,
            // No limit is the machine's memory.
            limit: if usage.limit == 0 { total } else { usage.limit.min(total) },
        };
    }
    if let Some(pids) = cgroup.pids_stats {
        stats.pids_stats = PidsStats { current: pids.current, limit: pids.limit };
    }
    if let Some(block) = cgroup.blkio_stats {
        let entries = |list: Vec<wire::BlkioStatsEntry>| -> List<BlkioStatEntry> {
            list.into_iter()
                .map(|e| BlkioStatEntry { major: e.major, minor: e.minor, op: e.op, value: e.value })
                .collect()
        };
        stats.blkio_stats = BlkioStats {
            io_service_bytes_recursive: entries(block.io_service_bytes_recursive),
            io_serviced_recursive: entries(block.io_serviced_recursive),
            io_queue_recursive: entries(block.io_queued_recursive),
            io_service_time_recursive: entries(block.io_service_time_recursive),
            io_wait_time_recursive: entries(block.io_wait_time_recursive),
            io_merged_recursive: entries(block.io_merged_recursive),
            io_time_recursive: entries(block.io_time_recursive),
            sectors_recursive: entries(block.sectors_recursive),
        };
    }
}
