//! Resource use from the v2 hierarchy (kernel: `admin-guide/cgroup-v2`), put into the fields that v1 had.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use containerd_api::types::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats, PidsStats,
    ThrottlingData,
};

use super::stats::{hugetlb_sizes, number, pairs, value};

const NANOSECONDS_PER_MICROSECOND: u64 = 1000;

pub(super) fn read(dir: &Path) -> CgroupStats {
    CgroupStats {
        cpu_stats: Some(cpu(dir)),
        memory_stats: Some(memory(dir)),
        blkio_stats: Some(io(dir)),
        hugetlb_stats: hugetlb(dir),
        pids_stats: Some(PidsStats { current: number(dir, "pids.current"), limit: number(dir, "pids.max") }),
    }
}

fn cpu(dir: &Path) -> CpuStats {
    let stat = pairs(dir, "cpu.stat");
    let time = |key| value(&stat, key).saturating_mul(NANOSECONDS_PER_MICROSECOND);
    CpuStats {
        cpu_usage: Some(CpuUsage {
            total_usage: time("usage_usec"),
            percpu_usage: Vec::new(),
            usage_in_kernelmode: time("system_usec"),
            usage_in_usermode: time("user_usec"),
        }),
        throttling_data: Some(ThrottlingData {
            periods: value(&stat, "nr_periods"),
            throttled_periods: value(&stat, "nr_throttled"),
            throttled_time: time("throttled_usec"),
        }),
        system_usage: 0,
    }
}

fn memory(dir: &Path) -> MemoryStats {
    let stats: HashMap<_, _> = pairs(dir, "memory.stat").into_iter().collect();
    let data = |name: &str| MemoryData {
        usage: number(dir, &format!("{name}.current")),
        max_usage: number(dir, &format!("{name}.peak")),
        failcnt: value(&pairs(dir, &format!("{name}.events")), "max"),
        limit: limit(dir, &format!("{name}.max")),
    };
    let usage = data("memory");
    // v1 counted memory and swap together.
    let swap = data("memory.swap");
    let swap_usage = MemoryData {
        usage: swap.usage.saturating_add(usage.usage),
        limit: swap.limit.saturating_add(usage.limit),
        ..swap
    };
    MemoryStats {
        cache: stats.get("file").copied().unwrap_or(0),
        usage: Some(usage),
        swap_usage: Some(swap_usage),
        kernel_usage: Some(MemoryData::default()),
        stats,
    }
}

/// `max` is the largest number, as v1 shows "no limit" by a huge one.
fn limit(dir: &Path, file: &str) -> u64 {
    match fs::read_to_string(dir.join(file)) {
        Ok(text) if text.trim() == "max" => u64::MAX,
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    }
}

fn hugetlb(dir: &Path) -> HashMap<String, HugetlbStats> {
    hugetlb_sizes(dir, "current")
        .into_iter()
        .map(|size| {
            let events = pairs(dir, &format!("hugetlb.{size}.events"));
            let stats = HugetlbStats {
                usage: number(dir, &format!("hugetlb.{size}.current")),
                failcnt: value(&events, "max"),
                ..HugetlbStats::default()
            };
            (size, stats)
        })
        .collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn io(dir: &Path) -> BlkioStats {
    let mut stats = BlkioStats::default();
    let text = fs::read_to_string(dir.join("io.stat")).unwrap_or_default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, op) = match key {
                "rbytes" => (&mut stats.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut stats.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut stats.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.io_serviced_recursive, "Write"),
                "dios" => (&mut stats.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            list.push(BlkioStatsEntry { major, minor, op: op.to_owned(), value });
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_fields() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 9\n");
        put("memory.current", "100\n");
        put("memory.max", "max\n");
        put("memory.swap.current", "10\n");
        put("memory.swap.max", "0\n");
        put("memory.stat", "anon 1\nfile 2\n");
        put("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbroken\n");
        put("pids.max", "10\n");
        let stats = read(dir.path());
        let cpu = stats.cpu_stats.unwrap();
        assert_eq!(cpu.cpu_usage.unwrap().total_usage, 5000);
        assert_eq!(cpu.throttling_data.unwrap().throttled_time, 9000);
        let memory = stats.memory_stats.unwrap();
        assert_eq!((memory.cache, memory.usage.unwrap().limit), (2, u64::MAX));
        assert_eq!(memory.swap_usage.unwrap().usage, 110);
        let blkio = stats.blkio_stats.unwrap();
        assert_eq!(blkio.io_service_bytes_recursive.len(), 3);
        assert_eq!(blkio.io_serviced_recursive[1].value, 4);
        assert_eq!(stats.pids_stats.unwrap().limit, 10);
    }
}
