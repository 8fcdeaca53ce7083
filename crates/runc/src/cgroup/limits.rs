//! Sets limits in the v1 hierarchies, by writing to their files.
//!
//! `libcgroups` does it too, but reads the table of mounts twice for every controller, which takes longer than a
//! container's start may. Order and meaning are runc's: 0 and absent mean "leave it".

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources,
    LinuxThrottleDevice,
};

use super::{Cgroups, HierarchyKind, write};
use crate::error::{Doing, Error, Result};

/// What every container may use, whatever its configuration says: null, zero, full, tty, urandom, random; making nodes;
/// console, pseudo-terminals and tun.
const DEVICES: [&[u8]; 12] = [
    b"c 1:3 rwm",
    b"c 1:5 rwm",
    b"c 1:7 rwm",
    b"c 5:0 rwm",
    b"c 1:9 rwm",
    b"c 1:8 rwm",
    b"c *:* m",
    b"b *:* m",
    b"c 5:1 rwm",
    b"c 136:* rwm",
    b"c 5:2 rwm",
    b"c 10:200 rwm",
];

/// Sets what `resources` names.
pub fn apply(cgroups: &Cgroups, resources: &LinuxResources) -> Result<()> {
    devices(cgroups, resources.devices().as_deref().unwrap_or_default())?;
    if let Some(cpu) = resources.cpu() {
        set_cpu(cgroups, cpu)?;
    }
    if let Some(memory) = resources.memory() {
        set_memory(cgroups, memory)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        set(&group(cgroups, "pids")?.join("pids.max"), &limit)?;
    }
    if let Some(block) = resources.block_io() {
        set_block(cgroups, block)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set_hugepages(cgroups, limit)?;
    }
    if let Some(network) = resources.network() {
        set_network(cgroups, network)?;
    }
    Ok(())
}

/// The group in the hierarchy of a controller.
fn group(cgroups: &Cgroups, controller: &str) -> Result<PathBuf> {
    let has =
        |kind: &HierarchyKind| matches!(kind, HierarchyKind::V1(list) if list.iter().any(|name| name == controller));
    let found = cgroups.hierarchies().iter().find(|hierarchy| has(&hierarchy.kind));
    found.map(|hierarchy| cgroups.dir(hierarchy)).ok_or_else(|| {
        Error::Cgroup(format!(
            "cgroup {controller} is required to fulfill the request, but is not supported by this system"
        ))
    })
}

fn set(path: &Path, value: &str) -> Result<()> {
    write(path, value.as_bytes()).doing(|| format!("write {value:?} to {}", path.display()))
}

fn set_number<T: Copy + Default + PartialEq + ToString>(path: PathBuf, value: Option<T>) -> Result<()> {
    match value {
        Some(value) if value != T::default() => set(&path, &value.to_string()),
        _ => Ok(()),
    }
}

/// One write is one rule, and the order counts.
fn devices(cgroups: &Cgroups, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let dir = match group(cgroups, "devices") {
        Ok(dir) => dir,
        // Without rules there is nothing that would be missing.
        Err(_) if rules.is_empty() => return Ok(()),
        Err(err) => return Err(err),
    };
    let open = |name: &str| {
        let path = dir.join(name);
        fs::OpenOptions::new().write(true).open(&path).doing(|| format!("open {}", path.display()))
    };
    let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
    for rule in rules {
        let file = if rule.allow() { &mut allow } else { &mut deny };
        let text = rule.to_string();
        file.write_all(text.as_bytes()).doing(|| format!("set the device rule {text:?}"))?;
    }
    DEVICES
        .iter()
        .try_for_each(|rule| allow.write_all(rule))
        .doing(|| "allow the devices that every container has".into())
}

fn set_cpu(cgroups: &Cgroups, cpu: &LinuxCpu) -> Result<()> {
    let asked = cpu.shares().is_some_and(|n| n != 0)
        || cpu.period().is_some_and(|n| n != 0)
        || cpu.quota().is_some_and(|n| n != 0)
        || cpu.realtime_period().is_some_and(|n| n != 0)
        || cpu.realtime_runtime().is_some_and(|n| n != 0)
        || cpu.burst().is_some()
        || cpu.idle().is_some();
    if asked {
        let dir = group(cgroups, "cpu")?;
        set_number(dir.join("cpu.shares"), cpu.shares())?;
        // A quota above the new period, or below the old one's least, is refused in one order and taken in the other.
        if set_number(dir.join("cpu.cfs_period_us"), cpu.period()).is_err() {
            set_number(dir.join("cpu.cfs_quota_us"), cpu.quota())?;
            set_number(dir.join("cpu.cfs_period_us"), cpu.period())?;
        }
        set_number(dir.join("cpu.cfs_quota_us"), cpu.quota())?;
        if let Some(burst) = cpu.burst() {
            set(&dir.join("cpu.cfs_burst_us"), &burst.to_string())?;
        }
        set_number(dir.join("cpu.rt_period_us"), cpu.realtime_period())?;
        set_number(dir.join("cpu.rt_runtime_us"), cpu.realtime_runtime())?;
        if let Some(idle) = cpu.idle() {
            set(&dir.join("cpu.idle"), &idle.to_string())?;
        }
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            set(&group(cgroups, "cpuset")?.join(file), list)?;
        }
    }
    Ok(())
}

fn set_memory(cgroups: &Cgroups, memory: &LinuxMemory) -> Result<()> {
    let dir = group(cgroups, "memory")?;
    let limit = memory.limit().filter(|limit| *limit != 0);
    // No limit without one for memory and swap together.
    let swap = memory.swap().filter(|swap| *swap != 0).or(limit.filter(|limit| *limit == -1));
    // The kernel keeps the limit below that of memory and swap at every moment: whichever grows goes first.
    let path = dir.join("memory.limit_in_bytes");
    let current = || fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
    let swap_first = swap.is_some_and(|swap| swap == -1 || current() < swap);
    if swap_first {
        set_number(dir.join("memory.memsw.limit_in_bytes"), swap)?;
    }
    if let Some(limit) = limit {
        match write(&path, limit.to_string().as_bytes()) {
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) => return Err(too_low(&dir, limit)),
            other => other.doing(|| format!("write {limit} to {}", path.display()))?,
        }
    }
    if !swap_first {
        set_number(dir.join("memory.memsw.limit_in_bytes"), swap)?;
    }
    set_number(dir.join("memory.soft_limit_in_bytes"), memory.reservation())?;
    if let Some(disable) = memory.disable_oom_killer() {
        set(&dir.join("memory.oom_control"), if disable { "1" } else { "0" })?;
    }
    match memory.swappiness() {
        Some(value) if value > 100 => {
            return Err(Error::Invalid(format!("invalid memory swappiness value: {value} (valid range is 0-100)")));
        }
        Some(value) => set(&dir.join("memory.swappiness"), &value.to_string())?,
        None => (),
    }
    set_number(dir.join("memory.kmem.tcp.limit_in_bytes"), memory.kernel_tcp())
}

fn too_low(dir: &Path, limit: i64) -> Error {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default().trim().to_owned();
    Error::Cgroup(format!(
        "unable to set memory limit to {limit} (current usage: {}, peak usage: {})",
        read("memory.usage_in_bytes"),
        read("memory.max_usage_in_bytes")
    ))
}

fn set_block(cgroups: &Cgroups, block: &LinuxBlockIo) -> Result<()> {
    let weights = block.weight().is_some_and(|weight| weight != 0) || some(block.weight_device().as_deref());
    let throttles = [
        ("read_bps", block.throttle_read_bps_device()),
        ("write_bps", block.throttle_write_bps_device()),
        ("read_iops", block.throttle_read_iops_device()),
        ("write_iops", block.throttle_write_iops_device()),
    ];
    if !weights && !throttles.iter().any(|(_, list)| some(list.as_deref())) {
        return Ok(());
    }
    let dir = group(cgroups, "blkio")?;
    // With the BFQ scheduler the files have its name in theirs.
    let file = |name: &str| {
        let plain = dir.join(format!("blkio.{name}"));
        if plain.exists() { plain } else { dir.join(format!("blkio.bfq.{name}")) }
    };
    set_number(file("weight"), block.weight())?;
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            set(&file("weight_device"), &format!("{}:{} {weight}", device.major(), device.minor()))?;
        }
    }
    for (name, list) in throttles {
        for device in list.iter().flatten() {
            set(&dir.join(format!("blkio.throttle.{name}_device")), &throttle(device))?;
        }
    }
    Ok(())
}

fn some<T>(list: Option<&[T]>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn throttle(device: &LinuxThrottleDevice) -> String {
    format!("{}:{} {}", device.major(), device.minor(), device.rate())
}

fn set_hugepages(cgroups: &Cgroups, limit: &LinuxHugepageLimit) -> Result<()> {
    let size = limit.page_size();
    if size.is_empty() || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Error::Invalid(format!("invalid huge page size {size:?}")));
    }
    let dir = group(cgroups, "hugetlb")?;
    let value = limit.limit().to_string();
    set(&dir.join(format!("hugetlb.{size}.limit_in_bytes")), &value)?;
    match write(&dir.join(format!("hugetlb.{size}.rsvd.limit_in_bytes")), value.as_bytes()) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("limit reserved huge pages of {size}")),
    }
}

fn set_network(cgroups: &Cgroups, network: &LinuxNetwork) -> Result<()> {
    if let Some(class) = network.class_id() {
        set(&group(cgroups, "net_cls")?.join("net_cls.classid"), &class.to_string())?;
    }
    for priority in network.priorities().iter().flatten() {
        set(&group(cgroups, "net_prio")?.join("net_prio.ifpriomap"), priority.to_string().trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Hierarchy;
    use super::*;

    /// Plain files in the place of the kernel's.
    fn hierarchy(dir: &Path, files: &[(&str, &[(&str, &str)])]) -> Cgroups {
        let mut hierarchies = Vec::new();
        for (controller, names) in files {
            let mount = dir.join(controller);
            fs::create_dir_all(mount.join("c")).unwrap();
            for (name, text) in *names {
                fs::write(mount.join("c").join(name), text).unwrap();
            }
            hierarchies.push(Hierarchy { mount, kind: HierarchyKind::V1(vec![(*controller).to_owned()]) });
        }
        Cgroups { path: "/c".into(), hierarchies }
    }

    #[test]
    fn limits_are_written_and_zeros_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = hierarchy(
            dir.path(),
            &[
                ("devices", &[("devices.allow", ""), ("devices.deny", "")]),
                ("cpu", &[("cpu.shares", "1024"), ("cpu.cfs_period_us", ""), ("cpu.cfs_quota_us", "keep")]),
                ("memory", &[("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "")]),
                ("pids", &[("pids.max", "")]),
            ],
        );
        let resources = |value| serde_json::from_value::<LinuxResources>(value).unwrap();
        apply(
            &cgroups,
            &resources(serde_json::json!({
                "devices": [{"allow": false, "access": "rwm"}],
                "cpu": {"shares": 512, "period": 100000, "quota": 0},
                "memory": {"limit": 4096, "swap": 8192},
                "pids": {"limit": -1}
            })),
        )
        .unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("devices/c/devices.deny"), "a *:* rwm");
        assert!(read("devices/c/devices.allow").starts_with("c 1:3 rwm"));
        // A file is not cut short by a shorter value, as the kernel's are not.
        assert_eq!(read("cpu/c/cpu.shares"), "5124");
        assert_eq!(read("cpu/c/cpu.cfs_quota_us"), "keep");
        assert_eq!((read("memory/c/memory.limit_in_bytes"), read("pids/c/pids.max")), ("4096".into(), "max".into()));
        assert_eq!(read("memory/c/memory.memsw.limit_in_bytes"), "8192");
        let missing = apply(&cgroups, &resources(serde_json::json!({"network": {"classID": 1}}))).unwrap_err();
        assert!(missing.to_string().contains("net_cls"), "{missing}");
        let swappiness = apply(&cgroups, &resources(serde_json::json!({"memory": {"swappiness": 101}})));
        assert!(matches!(swappiness, Err(Error::Invalid(_))));
    }
}
