//! A container's resource use, as the runtime's `events --stats` would report it, without starting the runtime.

use std::fs;
use std::path::Path;

use containerd_api::types::{CgroupStats, StatsResponse};

use super::{Cgroups, stats_v1, stats_v2};
use crate::error::Result;
use crate::machine;

/// What the groups say now. Files that do not exist (a controller that is not enabled) count as zero.
///
/// # Errors
/// When the machine's own counters cannot be read.
pub fn stats(groups: &Cgroups) -> Result<StatsResponse> {
    let timestamp = Some(crate::time::to_proto(chrono::Utc::now()));
    let mut cgroup_stats: CgroupStats = match &groups.v2 {
        Some(dir) => stats_v2::read(dir),
        None => stats_v1::read(&groups.v1),
    };
    cgroup_stats.cpu_stats.get_or_insert_default().system_usage = machine::cpu_nanoseconds()?;
    Ok(StatsResponse { network_stats: Vec::new(), cgroup_stats: Some(cgroup_stats), timestamp })
}

/// One number from a file; `max` and a missing file are 0, so is what v1 shows for "no limit" on counters without one.
pub(super) fn number(dir: &Path, file: &str) -> u64 {
    fs::read_to_string(dir.join(file)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// `key value` lines.
pub(super) fn pairs(dir: &Path, file: &str) -> Vec<(String, u64)> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// The value of a key in [`pairs`]; 0 when it is not there.
pub(super) fn value(pairs: &[(String, u64)], key: &str) -> u64 {
    pairs.iter().find(|(k, _)| k == key).map_or(0, |(_, v)| *v)
}

/// The huge page sizes (`2MB`) for which a directory has files `hugetlb.<size>.<suffix>`.
pub(super) fn hugetlb_sizes(dir: &Path, suffix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.strip_suffix('.')?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect()
}
