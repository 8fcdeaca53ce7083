//! What a configuration may not ask for, because it would change the host, or could not be given and would be missing
//! without a word. The rules are runc's, and the words where callers look for them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libcontainer::oci_spec::runtime::{
    Linux, LinuxNamespaceType, LinuxSchedulerPolicy, MemoryPolicyModeType, Process, Spec,
};

use crate::rootfs::options::Options;

/// The result: what is wrong, in words.
type Result = std::result::Result<(), String>;

/// Parameters of System V IPC, which every IPC namespace has for itself.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Checks everything that is not one process's.
pub fn check(spec: &Spec) -> Result {
    let Some(linux) = spec.linux() else { return Err("\"linux\" is missing".into()) };
    let named = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    for (what, set) in [("hostname", named(spec.hostname())), ("domainname", named(spec.domainname()))] {
        if set && !has(linux, LinuxNamespaceType::Uts) {
            return Err(format!("unable to set {what} without a private UTS namespace"));
        }
    }
    namespaces(linux)?;
    for name in linux.sysctl().iter().flat_map(|list| list.keys()) {
        sysctl(linux, name)?;
    }
    net_devices(linux)?;
    memory_policy(linux)?;
    if linux.intel_rdt().is_some() {
        return Err("intelRdt is specified in config, but Intel RDT is not supported".into());
    }
    if named(linux.mount_label()) && selinux_is_on() {
        return Err("linux.mountLabel is specified in config, but SELinux is not supported".into());
    }
    let resources = linux.resources().as_ref();
    if resources.is_some_and(|resources| resources.rdma().as_ref().is_some_and(|list| !list.is_empty())) {
        return Err("linux.resources.rdma is not supported".into());
    }
    for mount in spec.mounts().iter().flatten() {
        Options::of(mount).map_err(|err| err.to_string())?;
    }
    match spec.process() {
        Some(process) => check_process(process),
        None => Ok(()),
    }
}

/// Checks one process: the container's, or one of `exec`.
pub fn check_process(process: &Process) -> Result {
    if process.selinux_label().as_ref().is_some_and(|label| !label.is_empty()) {
        return Err(match selinux_is_on() {
            true => "process.selinuxLabel is specified in config, but SELinux is not supported".into(),
            false => "selinux label is specified in config, but selinux is disabled or not supported".into(),
        });
    }
    if let Some(scheduler) = process.scheduler() {
        let policy = *scheduler.policy();
        let nice = scheduler.nice().unwrap_or(0);
        if matches!(policy, LinuxSchedulerPolicy::SchedOther | LinuxSchedulerPolicy::SchedBatch)
            && !(-20..=19).contains(&nice)
        {
            return Err(format!("invalid scheduler.nice: {nice} when scheduler.policy is {policy}"));
        }
        let is_real_time = matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
        if scheduler.priority().is_some_and(|priority| priority != 0) && !is_real_time {
            return Err("scheduler.priority can only be specified for SchedFIFO or SchedRR policy".into());
        }
        let times = [scheduler.runtime(), scheduler.deadline(), scheduler.period()];
        if policy != LinuxSchedulerPolicy::SchedDeadline && times.iter().any(|time| time.is_some_and(|ns| ns != 0)) {
            return Err("scheduler runtime/deadline/period can only be specified for SchedDeadline policy".into());
        }
    }
    match process.io_priority().as_ref().map(|io| io.priority()) {
        Some(priority) if !(0..=7).contains(&priority) => Err(format!("invalid ioPriority.Priority: {priority}")),
        _ => Ok(()),
    }
}

fn find(linux: &Linux, kind: LinuxNamespaceType) -> Option<Option<&Path>> {
    let all = linux.namespaces().iter().flatten();
    let mut of_kind = all.filter(|namespace| namespace.typ() == kind);
    let path = of_kind.next()?.path().as_deref();
    Some(path.filter(|path| !path.as_os_str().is_empty()))
}

/// Whether the container has a namespace of this kind that is not simply docker-runc's.
fn has(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    find(linux, kind).is_some()
}

fn namespaces(linux: &Linux) -> Result {
    let given = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let mapped = given(linux.uid_mappings()) || given(linux.gid_mappings());
    match find(linux, LinuxNamespaceType::User) {
        None if mapped => {
            return Err("user namespace mappings specified, but user namespace isn't enabled in the config".into());
        }
        Some(None) if !mapped => {
            return Err("user namespaces enabled, but no namespace path to join nor mappings to apply specified".into());
        }
        _ => (),
    }
    let has_offsets = linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
    match find(linux, LinuxNamespaceType::Time) {
        None if has_offsets => {
            Err("time namespace offsets specified, but time namespace isn't enabled in the config".into())
        }
        Some(Some(_)) if has_offsets => Err("time namespace enabled, but both namespace path and time offsets \
                                             specified -- you may only provide one"
            .into()),
        _ => Ok(()),
    }
}

/// A parameter's name with dots between its parts: slashes may stand for dots, and dots for slashes, if the first of
/// them is a slash.
pub fn with_dots(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => swap_separators(name),
        _ => name.to_owned(),
    }
}

/// Slashes for dots, and dots for slashes.
pub fn swap_separators(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

/// Only what a namespace has for itself may be set, and only in a namespace that is not docker-runc's own.
fn sysctl(linux: &Linux, name: &str) -> Result {
    let name = with_dots(name);
    if IPC_SYSCTLS.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        return match has(linux, LinuxNamespaceType::Ipc) {
            true => Ok(()),
            false => Err(format!("sysctl {name:?} is not allowed in the hosts ipc namespace")),
        };
    }
    if name.starts_with("net.") {
        let is_ours = match find(linux, LinuxNamespaceType::Network) {
            None => true,
            Some(None) => false,
            Some(Some(path)) => is_own_network(path)?,
        };
        return match is_ours {
            true => Err(format!("sysctl {name:?} not allowed in host network namespace")),
            false => Ok(()),
        };
    }
    if has(linux, LinuxNamespaceType::Uts) {
        match name.as_str() {
            "kernel.domainname" => return Ok(()),
            "kernel.hostname" => {
                return Err(format!("sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field"));
            }
            _ => (),
        }
    }
    if name.starts_with("user.") {
        return match has(linux, LinuxNamespaceType::User) {
            true => Ok(()),
            false => Err(format!("setting ucounts without a user namespace not allowed: {name}")),
        };
    }
    Err(format!("sysctl {name:?} is not in a separate kernel namespace"))
}

fn is_own_network(path: &Path) -> std::result::Result<bool, String> {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path)
            .map_err(|err| format!("invalid netns path: stat {}: {}", path.display(), crate::error::plain(&err)))?;
        Ok::<_, String>((metadata.dev(), metadata.ino()))
    };
    Ok(identity(path)? == identity(Path::new("/proc/self/ns/net"))?)
}

fn net_devices(linux: &Linux) -> Result {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else { return Ok(()) };
    if !has(linux, LinuxNamespaceType::Network) {
        return Err("unable to move network devices without a NET namespace".into());
    }
    // The kernel's `dev_valid_name`.
    let is_valid = |name: &str| {
        !name.is_empty()
            && name.len() < libc::IFNAMSIZ
            && name != "."
            && name != ".."
            && !name.contains(['/', ':', ' '])
    };
    for (name, device) in devices {
        let new_name = device.name().as_deref().filter(|name| !name.is_empty());
        if let Some(bad) = [Some(name.as_str()), new_name].into_iter().flatten().find(|name| !is_valid(name)) {
            return Err(format!("invalid network device name {bad:?}"));
        }
    }
    Ok(())
}

fn memory_policy(linux: &Linux) -> Result {
    let Some(policy) = linux.memory_policy() else { return Ok(()) };
    let has_nodes = policy.nodes().as_ref().is_some_and(|nodes| !nodes.is_empty());
    match policy.mode() {
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal if has_nodes => {
            Err("memory policy mode requires 0 nodes".into())
        }
        MemoryPolicyModeType::MpolBind
        | MemoryPolicyModeType::MpolInterleave
        | MemoryPolicyModeType::MpolPreferredMany
        | MemoryPolicyModeType::MpolWeightedInterleave
            if !has_nodes =>
        {
            Err("memory policy mode requires at least one node but got 0".into())
        }
        _ => Ok(()),
    }
}

fn selinux_is_on() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn linux(value: Value) -> Linux {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_parameter_needs_a_namespace_of_its_own() {
        let own = linux(json!({ "namespaces": [
            { "type": "ipc" }, { "type": "network" }, { "type": "uts" }, { "type": "user" }
        ] }));
        let hosts = linux(json!({ "namespaces": [{ "type": "network", "path": "/proc/self/ns/net" }] }));
        for name in
            ["kernel.shmmax", "fs.mqueue.msg_max", "net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/rp_filter", "user.x"]
        {
            assert_eq!(sysctl(&own, name), Ok(()), "{name}");
            assert!(sysctl(&hosts, name).is_err(), "{name}");
        }
        assert_eq!(sysctl(&own, "kernel.domainname"), Ok(()));
        for name in
            ["kernel.hostname", "kernel.core_pattern", "vm.swappiness", "kernel/core_pattern", "", "net", "../x"]
        {
            assert!(sysctl(&own, name).is_err(), "{name}");
        }
        let text = sysctl(&hosts, "net.core.somaxconn").unwrap_err();
        assert_eq!(text, "sysctl \"net.core.somaxconn\" not allowed in host network namespace");
    }

    #[test]
    fn names_are_written_in_two_ways() {
        assert_eq!(with_dots("net/ipv4/conf/eno2.100/rp_filter"), "net.ipv4.conf.eno2/100.rp_filter");
        assert_eq!(with_dots("net.ipv4.conf.eno2/100.rp_filter"), "net.ipv4.conf.eno2/100.rp_filter");
        assert_eq!(with_dots("one"), "one");
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let spec = |more: Value| {
            let mut value = json!({
                "ociVersion": "1.2.0", "linux": { "namespaces": [{ "type": "mount" }] },
                "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["sh"] }
            });
            for (key, more) in more.as_object().unwrap() {
                match more.as_object() {
                    Some(fields) => value[key].as_object_mut().unwrap().extend(fields.clone()),
                    None => value[key] = more.clone(),
                }
            }
            check(&serde_json::from_value(value).unwrap())
        };
        assert_eq!(spec(json!({})), Ok(()));
        for (more, words) in [
            (json!({ "hostname": "x" }), "private UTS namespace"),
            (json!({ "linux": { "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }] } }), "isn't enabled"),
            (json!({ "linux": { "netDevices": { "eth0": {} } } }), "without a NET namespace"),
            (json!({ "linux": { "intelRdt": {} } }), "Intel RDT"),
            (json!({ "linux": { "memoryPolicy": { "mode": "MPOL_BIND" } } }), "at least one node"),
            (json!({ "process": { "selinuxLabel": "x:y" } }), "selinux"),
            (json!({ "process": { "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 8 } } }), "ioPriority"),
            (json!({ "process": { "scheduler": { "policy": "SCHED_OTHER", "priority": 3 } } }), "SchedFIFO"),
            (json!({ "mounts": [{ "destination": "/x", "type": "tmpfs", "options": ["ridmap"] }] }), "id-mapped"),
        ] {
            let text = spec(more.clone()).unwrap_err();
            assert!(text.contains(words), "{more}: {text}");
        }
    }
}
