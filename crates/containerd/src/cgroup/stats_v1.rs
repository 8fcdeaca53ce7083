//! Resource use from v1 hierarchies (kernel: `admin-guide/cgroup-v1`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use containerd_api::types::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats, PidsStats,
    ThrottlingData,
};

use super::stats::{hugetlb_sizes, number, pairs, value};
use crate::machine;

pub(super) fn read(groups: &HashMap<String, PathBuf>) -> CgroupStats {
    let dir = |controller: &str| groups.get(controller).map(PathBuf::as_path);
    CgroupStats {
        cpu_stats: Some(CpuStats {
            cpu_usage: Some(dir("cpuacct").map(cpu_usage).unwrap_or_default()),
            throttling_data: Some(dir("cpu").map(throttling).unwrap_or_default()),
            system_usage: 0,
        }),
        memory_stats: Some(dir("memory").map(memory).unwrap_or_default()),
        blkio_stats: Some(dir("blkio").map(blkio).unwrap_or_default()),
        hugetlb_stats: dir("hugetlb").map(hugetlb).unwrap_or_default(),
        pids_stats: Some(dir("pids").map(pids).unwrap_or_default()),
    }
}

fn cpu_usage(dir: &Path) -> CpuUsage {
    let per_cpu = fs::read_to_string(dir.join("cpuacct.usage_percpu")).unwrap_or_default();
    let stat = pairs(dir, "cpuacct.stat");
    CpuUsage {
        total_usage: number(dir, "cpuacct.usage"),
        percpu_usage: per_cpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
        usage_in_kernelmode: machine::ticks_to_nanoseconds(value(&stat, "system")),
        usage_in_usermode: machine::ticks_to_nanoseconds(value(&stat, "user")),
    }
}

fn throttling(dir: &Path) -> ThrottlingData {
    let stat = pairs(dir, "cpu.stat");
    ThrottlingData {
        periods: value(&stat, "nr_periods"),
        throttled_periods: value(&stat, "nr_throttled"),
        throttled_time: value(&stat, "throttled_time"),
    }
}

fn memory(dir: &Path) -> MemoryStats {
    let stats: HashMap<_, _> = pairs(dir, "memory.stat").into_iter().collect();
    let data = |name: &str| MemoryData {
        usage: number(dir, &format!("{name}.usage_in_bytes")),
        max_usage: number(dir, &format!("{name}.max_usage_in_bytes")),
        failcnt: number(dir, &format!("{name}.failcnt")),
        limit: number(dir, &format!("{name}.limit_in_bytes")),
    };
    MemoryStats {
        cache: stats.get("cache").copied().unwrap_or(0),
        usage: Some(data("memory")),
        swap_usage: Some(data("memory.memsw")),
        kernel_usage: Some(data("memory.kmem")),
        stats,
    }
}

fn pids(dir: &Path) -> PidsStats {
    PidsStats { current: number(dir, "pids.current"), limit: number(dir, "pids.max") }
}

fn hugetlb(dir: &Path) -> HashMap<String, HugetlbStats> {
    hugetlb_sizes(dir, "usage_in_bytes")
        .into_iter()
        .map(|size| {
            let stats = HugetlbStats {
                usage: number(dir, &format!("hugetlb.{size}.usage_in_bytes")),
                max_usage: number(dir, &format!("hugetlb.{size}.max_usage_in_bytes")),
                failcnt: number(dir, &format!("hugetlb.{size}.failcnt")),
                limit: 0,
            };
            (size, stats)
        })
        .collect()
}

/// The files of whichever I/O scheduler counts: BFQ's, the old CFQ's, or the throttling layer's, which always count.
fn blkio(dir: &Path) -> BlkioStats {
    for prefix in ["blkio.bfq", "blkio"] {
        if !entries(dir, &format!("{prefix}.io_serviced_recursive")).is_empty() {
            let read = |name: &str| entries(dir, &format!("{prefix}.{name}"));
            return BlkioStats {
                io_service_bytes_recursive: read("io_service_bytes_recursive"),
                io_serviced_recursive: read("io_serviced_recursive"),
                io_queued_recursive: read("io_queued_recursive"),
                io_service_time_recursive: read("io_service_time_recursive"),
                io_wait_time_recursive: read("io_wait_time_recursive"),
                io_merged_recursive: read("io_merged_recursive"),
                io_time_recursive: read("time_recursive"),
                sectors_recursive: read("sectors_recursive"),
            };
        }
    }
    let either = |name: &str| {
        let recursive = entries(dir, &format!("blkio.throttle.{name}_recursive"));
        if recursive.is_empty() { entries(dir, &format!("blkio.throttle.{name}")) } else { recursive }
    };
    BlkioStats {
        io_service_bytes_recursive: either("io_service_bytes"),
        io_serviced_recursive: either("io_serviced"),
        ..BlkioStats::default()
    }
}

/// `8:0 Read 4096`, `8:0 123`; the total over all devices (`Total 4096`) has no device and is left out.
fn entries(dir: &Path, file: &str) -> Vec<BlkioStatsEntry> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<BlkioStatsEntry> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (device, op, value) = match fields[..] {
        [device, op, value] => (device, op, value),
        [device, value] => (device, "", value),
        _ => return None,
    };
    let (major, minor) = device.split_once(':')?;
    Some(BlkioStatsEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_block_counters() {
        let parsed = entry("8:16 Read 4096").unwrap();
        assert_eq!((parsed.major, parsed.minor, parsed.op.as_str(), parsed.value), (8, 16, "Read", 4096));
        assert_eq!(entry("8:0 77").unwrap().value, 77);
        assert!(entry("Total 99").is_none());
        assert!(entry("").is_none());
    }

    #[test]
    fn files_become_fields() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("memory.stat", "cache 11\nrss 22\n");
        put("memory.usage_in_bytes", "33\n");
        put("memory.limit_in_bytes", "9223372036854771712\n");
        put("pids.current", "4\n");
        put("pids.max", "max\n");
        put("hugetlb.2MB.usage_in_bytes", "5\n");
        put("hugetlb.2MB.rsvd.usage_in_bytes", "6\n");
        put("cpuacct.usage", "7\n");
        put("cpuacct.usage_percpu", "3 4 \n");
        put("cpuacct.stat", "user 1\nsystem 2\n");
        let controllers = ["memory", "pids", "hugetlb", "cpuacct", "blkio"];
        let groups = controllers.iter().map(|c| ((*c).to_owned(), dir.path().to_path_buf())).collect();
        let stats = read(&groups);
        let memory = stats.memory_stats.unwrap();
        assert_eq!(memory.cache, 11);
        assert_eq!(memory.usage.unwrap().limit, 9_223_372_036_854_771_712);
        assert_eq!(stats.pids_stats.unwrap(), PidsStats { current: 4, limit: 0 });
        assert_eq!(stats.hugetlb_stats.keys().collect::<Vec<_>>(), ["2MB"]);
        let cpu = stats.cpu_stats.unwrap().cpu_usage.unwrap();
        assert_eq!((cpu.total_usage, cpu.percpu_usage), (7, vec![3, 4]));
        assert_eq!(cpu.usage_in_kernelmode, 2 * cpu.usage_in_usermode);
    }
}
