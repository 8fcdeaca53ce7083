//! Limits: from Docker's options to the OCI `linux.resources` object and to docker-containerd's update call.

use std::os::unix::fs::MetadataExt;

use api::types::{Resources, ThrottleDevice};
use containerd_api::types::UpdateResource;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Length of the period that `--cpus` is counted in, microseconds.
const CPUS_PERIOD_US: i64 = 100_000;

/// The OCI object, without the device rules.
pub fn to_oci(r: &Resources, oom_score_adj: i64) -> Result<Value> {
    let mut cpu = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu.insert(key.to_owned(), value);
        }
    };
    set("shares", positive(r.cpu_shares));
    if r.nano_cpus > 0 {
        set("period", Some(CPUS_PERIOD_US.into()));
        set(
            "quota",
            Some(
                (i128::from(r.nano_cpus) * i128::from(CPUS_PERIOD_US) / 1_000_000_000)
                    .try_into()
                    .unwrap_or(i64::MAX)
                    .into(),
            ),
        );
    }
    set("quota", (r.cpu_quota != 0).then(|| r.cpu_quota.into()));
    set("period", positive(r.cpu_period));
    set("realtimePeriod", positive(r.cpu_realtime_period));
    set("realtimeRuntime", positive(r.cpu_realtime_runtime));
    set("cpus", text(&r.cpuset_cpus));
    set("mems", text(&r.cpuset_mems));

    let mut memory = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            memory.insert(key.to_owned(), value);
        }
    };
    set("limit", positive(r.memory));
    set("reservation", positive(r.memory_reservation));
    set("swap", swap(r).map(Into::into));
    set("swappiness", r.memory_swappiness.filter(|s| *s >= 0).map(Into::into));
    set("disableOOMKiller", r.oom_kill_disable.filter(|d| *d).map(Into::into));

    let mut block = Map::new();
    if r.blkio_weight > 0 {
        block.insert("weight".into(), r.blkio_weight.into());
    }
    if !r.blkio_weight_device.is_empty() {
        let list: Result<Vec<Value>> = r
            .blkio_weight_device
            .iter()
            .map(|d| {
                let (major, minor) = numbers(&d.path)?;
                Ok(json!({ "major": major, "minor": minor, "weight": d.weight }))
            })
            .collect();
        block.insert("weightDevice".into(), list?.into());
    }
    for (key, list) in [
        ("throttleReadBpsDevice", &r.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &r.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &r.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &r.blkio_device_write_iops),
    ] {
        if !list.is_empty() {
            block.insert(key.into(), throttles(list)?.into());
        }
    }

    let mut out = json!({ "cpu": cpu, "memory": memory, "blockIO": block });
    if let Some(limit) = r.pids_limit.filter(|l| *l != 0) {
        out["pids"] = json!({ "limit": limit });
    }
    if oom_score_adj != 0 {
        out["oomScoreAdj"] = oom_score_adj.into();
    }
    Ok(out)
}

/// The limits that docker-containerd can change in a running container.
pub fn to_update(r: &Resources) -> UpdateResource {
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let (mut period, mut quota) = (number(r.cpu_period), r.cpu_quota as u64);
    if r.nano_cpus > 0 {
        period = CPUS_PERIOD_US as u64;
        quota = (i128::from(r.nano_cpus) * i128::from(CPUS_PERIOD_US) / 1_000_000_000) as u64;
    }
    UpdateResource {
        blkio_weight: r.blkio_weight.into(),
        cpu_shares: number(r.cpu_shares),
        cpu_period: period,
        cpu_quota: quota,
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        memory_limit: number(r.memory),
        memory_swap: swap(r).map_or(0, |s| s as u64),
        memory_reservation: number(r.memory_reservation),
        pids_limit: r.pids_limit.map_or(0, |l| l as u64),
        ..UpdateResource::default()
    }
}

/// Memory and swap together: Docker's default is twice the memory; -1 is no limit.
fn swap(r: &Resources) -> Option<i64> {
    match (r.memory, r.memory_swap) {
        (_, swap) if swap != 0 => Some(swap),
        (memory, _) if memory > 0 => Some(memory.saturating_mul(2)),
        _ => None,
    }
}

fn positive(n: i64) -> Option<Value> {
    (n > 0).then(|| n.into())
}

fn text(s: &str) -> Option<Value> {
    (!s.is_empty()).then(|| s.into())
}

fn throttles(list: &[ThrottleDevice]) -> Result<Vec<Value>> {
    list.iter()
        .map(|d| {
            let (major, minor) = numbers(&d.path)?;
            Ok(json!({ "major": major, "minor": minor, "rate": d.rate }))
        })
        .collect()
}

fn numbers(path: &str) -> Result<(u32, u32)> {
    let meta = std::fs::metadata(path).map_err(|e| Error::InvalidParameter(format!("{path}: {e}")))?;
    Ok((rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_quota() {
        let r = Resources { nano_cpus: 1_500_000_000, memory: 64 << 20, pids_limit: Some(10), ..Resources::default() };
        let oci = to_oci(&r, 0).unwrap();
        assert_eq!(oci["cpu"], json!({ "period": 100_000, "quota": 150_000 }));
        assert_eq!(oci["memory"], json!({ "limit": 64 << 20, "swap": 128 << 20 }));
        assert_eq!(oci["pids"]["limit"], 10);
        assert_eq!(to_update(&r).cpu_quota, 150_000);
    }

    #[test]
    fn nothing_asked_nothing_set() {
        let oci = to_oci(&Resources::default(), 0).unwrap();
        assert_eq!(oci, json!({ "cpu": {}, "memory": {}, "blockIO": {} }));
    }
}
