//! Limits: what may be asked for, and what this kernel cannot do and is left out with a warning, as Docker does.

use api::types::Resources;

use super::invalid;
use crate::error::Result;
use crate::system::Cgroups;

/// The least memory a container can be given: below it the runtime itself does not fit.
const MIN_MEMORY_BYTES: i64 = 6 << 20;

/// Takes out what the kernel has no control for.
pub fn discard_unsupported(r: &mut Resources, warnings: &mut Vec<String>) {
    let has = Cgroups::detect();
    let lacking = |what: &str| format!("Your kernel does not support {what} or the cgroup is not mounted.");
    if r.blkio_weight != 0 && !has.blkio_weight {
        warnings.push(lacking("Block I/O weight") + " Weight discarded.");
        r.blkio_weight = 0;
    }
    if !r.blkio_weight_device.is_empty() && !has.blkio_weight_device {
        warnings.push(lacking("Block I/O weight_device") + " Weight-device discarded.");
        r.blkio_weight_device = Default::default();
    }
    if r.memory > 0 && r.memory_swap != -1 && !has.swap {
        warnings.push(lacking("swap limit capabilities") + " Memory limited without swap.");
        r.memory_swap = -1;
    }
    if r.memory_swappiness.is_some_and(|s| s != -1) && has.is_v2 {
        warnings.push(lacking("memory swappiness capabilities") + " Memory swappiness discarded.");
        r.memory_swappiness = None;
    }
    if r.oom_kill_disable == Some(true) && !has.oom_kill_disable {
        warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        r.oom_kill_disable = None;
    }
}

/// Limits, also on update.
pub fn check_resources(r: &Resources, warnings: &mut Vec<String>) -> Result<()> {
    if r.memory != 0 && r.memory < MIN_MEMORY_BYTES {
        return Err(invalid("Minimum memory limit allowed is 6MB".into()));
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage".into()));
    }
    if r.memory == 0 && r.memory_swap > 0 {
        return Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage".into()));
    }
    if r.memory_swappiness.is_some_and(|s| !(-1..=100).contains(&s)) {
        return Err(invalid(format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            r.memory_swappiness.unwrap_or_default()
        )));
    }
    if r.memory_reservation > 0 && r.memory_reservation < MIN_MEMORY_BYTES {
        return Err(invalid("Minimum memory reservation allowed is 6MB".into()));
    }
    if r.memory > 0 && r.memory_reservation > 0 && r.memory < r.memory_reservation {
        return Err(invalid("Minimum memory limit can not be less than memory reservation limit, see usage".into()));
    }
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
    for (name, other) in [("Period", r.cpu_period), ("Quota", r.cpu_quota)] {
        if r.nano_cpus != 0 && other != 0 {
            return Err(invalid(format!("Conflicting options: Nano CPUs and CPU {name} cannot both be set")));
        }
    }
    if r.cpu_shares < 0 {
        return Err(invalid(format!("invalid CPU shares ({}): value must be a positive integer", r.cpu_shares)));
    }
    for (what, name, wanted, there) in [
        ("CPUs", "cpuset cpus", &r.cpuset_cpus, "/sys/devices/system/cpu/online"),
        ("memory nodes", "cpuset mems", &r.cpuset_mems, "/sys/devices/system/node/online"),
    ] {
        check_set(what, name, wanted, there)?;
    }
    if r.nano_cpus < 0 || r.nano_cpus > cpus * 1_000_000_000 {
        return Err(invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)".into(),
        ));
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
        return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)".into()));
    }
    if r.blkio_weight != 0 && !(10..=1000).contains(&r.blkio_weight) {
        return Err(invalid("Range of blkio weight is from 10 to 1000".into()));
    }
    if r.oom_kill_disable == Some(true) && r.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources."
                .into(),
        );
    }
    if r.kernel_memory > 0 {
        warnings.push("Specifying a kernel memory limit is deprecated and ignored".into());
    }
    Ok(())
}

/// Checks a list such as `0-3,7` against the numbers that are online.
fn check_set(what: &str, name: &str, wanted: &str, online_path: &str) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted_set = number_set(wanted).ok_or_else(|| invalid(format!("Invalid value {wanted} for {name}")))?;
    let Ok(online) = std::fs::read_to_string(online_path) else { return Ok(()) };
    let online = online.trim();
    match number_set(online) {
        Some(there) if wanted_set.iter().zip(&there).any(|(wanted, there)| *wanted && !there) => {
            Err(invalid(format!("Requested {what} are not available - requested {wanted}, available: {online}")))
        }
        _ => Ok(()),
    }
}

/// No machine has a processor or a node of this number.
const MAX_NUMBERS: usize = 8192;

/// Reads cpuset(7)'s list format: which numbers are in it; nothing for what is none or names a number that no machine has.
/// The list may be long and name everything over and over.
fn number_set(text: &str) -> Option<Vec<bool>> {
    let mut set = vec![false; MAX_NUMBERS];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        if from > to {
            return None;
        }
        set.get_mut(usize::from(from)..=usize::from(to))?.fill(true);
    }
    Some(set)
}
