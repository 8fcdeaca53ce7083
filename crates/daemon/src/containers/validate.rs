//! What a container may ask for: checked at create, in Docker's words, before anything is made.

mod limits;

use api::types::{ContainerConfig, HealthConfig, HostConfig, RestartPolicy, Ulimit};

use super::spec;
use crate::config::Config;
use crate::error::{Error, Result};

pub use self::limits::{check_resources, discard_unsupported};

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
    warnings.extend(spec::security::warnings(host));
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

/// Checks what only `create` is told: later the record holds a host name of Docker's making.
pub fn check_asked(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(invalid("conflicting options: hostname and the UTS mode".into()));
    }
    Ok(())
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
    if host.network_mode == "container:" {
        return Err(invalid("invalid network mode: invalid container format container:<name|id>".into()));
    }
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
