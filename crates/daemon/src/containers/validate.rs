//! What a container may ask for: checked at create, in Docker's words, before anything is made.

use std::collections::BTreeSet;

use api::types::{ContainerConfig, HealthConfig, HostConfig, Resources, RestartPolicy, Ulimit};

use super::spec;
use crate::config::Config;
use crate::error::{Error, Result};

/// The least memory a container can be given: below it the runtime itself does not fit.
const MIN_MEMORY_BYTES: i64 = 6 << 20;

/// Checks everything that does not depend on other containers. Returns warnings.
pub fn check(config: &ContainerConfig, host: &HostConfig, daemon: &Config) -> Result<Vec<String>> {
    if !host.runtime.is_empty() && !daemon.runtimes.contains_key(&host.runtime) {
        return Err(invalid(format!("unknown or invalid runtime name: {}", host.runtime)));
    }
    check_by_itself(config, host, &daemon.default_ulimits)
}

/// Checks everything that does not depend on the daemon's runtimes either.
pub(super) fn check_by_itself(
    config: &ContainerConfig,
    host: &HostConfig,
    default_ulimits: &[Ulimit],
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for variable in &config.env {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(invalid(format!("invalid environment variable: {variable}")));
        }
    }
    if !config.stop_signal.is_empty() {
        super::stop::parse_signal(&config.stop_signal)?;
    }
    for port in config.exposed_ports.keys().chain(host.port_bindings.keys()) {
        super::network::parse_port(port)?;
    }
    for binding in host.port_bindings.values().flatten() {
        super::network::parse_host_port(&binding.host_port)?;
    }
    if let Some(health) = &config.healthcheck {
        check_health(health)?;
    }
    check_restart(&host.restart_policy, host.auto_remove)?;
    check_resources(&host.resources, &mut warnings)?;
    check_namespaces(host)?;
    if host.shm_size < 0 {
        return Err(invalid("SHM size can not be less than 0".into()));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(invalid(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj)));
    }
    for extra in &host.extra_hosts {
        if extra.split_once([':', '=']).is_none_or(|(name, address)| name.is_empty() || address.is_empty()) {
            return Err(invalid(format!("bad format for add-host: \"{extra}\"")));
        }
    }
    if !host.storage_opt.is_empty() {
        return Err(invalid("--storage-opt is supported only for overlay over xfs with 'pquota' mount option".into()));
    }
    if !["", "default"].contains(&host.isolation.as_str()) {
        return Err(invalid(format!("invalid isolation ({}): linux only supports 'default'", host.isolation)));
    }
    for (key, _) in &host.sysctls {
        check_sysctl(key, host)?;
    }
    spec::security::Security::parse(host)?;
    spec::tweak_capabilities(host.privileged, &host.cap_add, &host.cap_drop)?;
    spec::rlimits(&host.resources.ulimits, default_ulimits)?;
    logs::validate(&host.log_config.r#type, &*host.log_config.config)?;
    Ok(warnings)
}

fn invalid(message: String) -> Error {
    Error::InvalidParameter(message)
}

/// A restart policy, also on update.
pub fn check_restart(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if policy.maximum_retry_count < 0 {
        return Err(invalid("invalid restart policy: maximum retry count cannot be negative".into()));
    }
    if policy.maximum_retry_count > 0 && policy.name != "on-failure" {
        return Err(invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'".into()));
    }
    if auto_remove && !["", "no"].contains(&policy.name.as_str()) {
        return Err(invalid("can't create 'AutoRemove' container with restart policy".into()));
    }
    Ok(())
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
        Some(there) if !wanted_set.is_subset(&there) => {
            Err(invalid(format!("Requested {what} are not available - requested {wanted}, available: {online}")))
        }
        _ => Ok(()),
    }
}

/// Reads cpuset(7)'s list format; nothing for what is none or names a number that no machine has.
fn number_set(text: &str) -> Option<BTreeSet<u16>> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to > 8191 {
            return None;
        }
        set.extend(from..=to);
    }
    Some(set)
}

fn check_namespaces(host: &HostConfig) -> Result<()> {
    let joined = |mode: &str| mode.strip_prefix("container:").is_some_and(|c| !c.is_empty());
    if !["", "host"].contains(&host.pid_mode.as_str()) && !joined(&host.pid_mode) {
        return Err(invalid(format!("invalid PID mode: {}", host.pid_mode)));
    }
    if !["", "none", "private", "shareable", "host"].contains(&host.ipc_mode.as_str()) && !joined(&host.ipc_mode) {
        return Err(invalid(format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if !["", "host"].contains(&host.uts_mode.as_str()) {
        return Err(invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    match host.cgroupns_mode.as_str() {
        "" | "host" | "private" => {}
        other => return Err(invalid(format!("invalid cgroup namespace mode: {other}"))),
    }
    if !["", "host"].contains(&host.userns_mode.as_str()) {
        return Err(invalid(format!("invalid user namespace mode: {}", host.userns_mode)));
    }
    let has_ports = !host.port_bindings.is_empty() || host.publish_all_ports;
    if joined(&host.network_mode) && has_ports {
        return Err(invalid("conflicting options: port publishing and the container type network mode".into()));
    }
    if joined(&host.network_mode) && !host.links.is_empty() {
        return Err(invalid("conflicting options: container type network can't be used with links. This would result in undefined behavior".into()));
    }
    if joined(&host.network_mode) && (!host.dns.is_empty() || !host.extra_hosts.is_empty()) {
        return Err(invalid("conflicting options: custom host-to-IP mapping and the network mode".into()));
    }
    Ok(())
}

fn check_sysctl(key: &str, host: &HostConfig) -> Result<()> {
    let network = key.starts_with("net.");
    let ipc = key.starts_with("kernel.msg")
        || key.starts_with("kernel.shm")
        || key.starts_with("fs.mqueue.")
        || key == "kernel.sem";
    if network && host.network_mode == "host" {
        return Err(invalid(format!("sysctl '{key}' not allowed in host network namespace")));
    }
    if ipc && host.ipc_mode == "host" {
        return Err(invalid(format!("sysctl '{key}' not allowed in host ipc namespace")));
    }
    Ok(())
}

fn check_health(health: &HealthConfig) -> Result<()> {
    for (name, nanos) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if nanos != 0 && nanos < 1_000_000 {
            return Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(invalid("Retries in Healthcheck cannot be negative".into()));
    }
    match health.test.first().map(String::as_str) {
        None | Some("" | "NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => Err(invalid(format!("unknown type '{other}' in Healthcheck"))),
    }
}
