//! The OCI runtime specification of a container: everything the runtime is told, in one pure step.
//!
//! [`build`] looks at the record and at what was prepared (root, network namespace, mounts) and gives back the bundle's
//! `config.json`. It changes nothing on the host. Facts follow the OCI runtime specification 1.x and Docker's defaults.

mod capabilities;
mod devices;
pub mod resources;
pub mod seccomp;
pub mod security;
pub mod user;

use std::path::{Path, PathBuf};

use api::types::HostConfig;
use serde_json::{Value, json};

use self::user::User;
use super::record::Record;
use crate::error::{Error, Result};

pub use capabilities::tweak as tweak_capabilities;
pub use devices::resolve as resolve_devices;

/// Docker's `PATH` for a container that has none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where `--init`'s program appears in the container.
pub const INIT_TARGET: &str = "/sbin/docker-init";

/// A mount beyond the standard ones, ready for the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// `bind` or `tmpfs`.
    pub kind: &'static str,
    /// Host path, or `tmpfs`.
    pub source: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// What was prepared for a start.
pub struct Prepared<'a> {
    /// The mounted root.
    pub rootfs: &'a Path,
    /// The network namespace to join; `None` is the host's.
    pub netns: Option<PathBuf>,
    /// A pid namespace to join, or `Host`.
    pub pid: Namespace,
    /// Likewise for IPC.
    pub ipc: Namespace,
    /// Likewise for UTS.
    pub uts: Namespace,
    /// Volumes, binds, tmpfs, `/etc/hosts` and so on, in any order.
    pub mounts: Vec<Mount>,
    /// The cgroup all containers are below.
    pub cgroup_parent: &'a str,
    /// `--init`'s program on the host.
    pub init: Option<PathBuf>,
    /// What legacy links add to the environment.
    pub link_env: Vec<String>,
    /// Limits every container has unless it says otherwise.
    pub default_ulimits: &'a [api::types::Ulimit],
}

/// A namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// One of its own.
    Own,
    /// The host's.
    Host,
    /// Another container's, by path.
    Joined(PathBuf),
}

/// Builds the specification.
pub fn build(record: &Record, prepared: &Prepared<'_>) -> Result<Value> {
    let host = &record.host_config;
    let user = user::resolve(prepared.rootfs, &record.config.user, &host.group_add)?;
    let security = security::Security::parse(host)?;
    let capabilities = capabilities::tweak(host.privileged, &host.cap_add, &host.cap_drop)?;
    let devices = devices::resolve(host)?;

    let mut resources = resources::to_oci(&host.resources, 0)?;
    resources["devices"] = devices.rules.into();

    let mut linux = json!({
        "cgroupsPath": format!("{}/{}", prepared.cgroup_parent.trim_end_matches('/'), record.id),
        "namespaces": namespaces(prepared),
        "devices": devices.nodes,
        "resources": resources,
        "sysctl": sysctls(record, prepared),
    });
    if !host.privileged && !security.unmasked {
        linux["maskedPaths"] = paths(&host.masked_paths, MASKED);
        linux["readonlyPaths"] = paths(&host.readonly_paths, READONLY);
    }
    if let Some(profile) = &security.seccomp {
        linux["seccomp"] = profile.resolve(&capabilities);
    }
    if let Some(propagation) = root_propagation(&prepared.mounts) {
        linux["rootfsPropagation"] = propagation.into();
    }

    let process = process(record, prepared, &user, &capabilities, &security)?;
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": if prepared.uts == Namespace::Own { record.config.hostname.as_str() } else { "" },
        "domainname": if prepared.uts == Namespace::Own { record.config.domainname.as_str() } else { "" },
        "root": { "path": prepared.rootfs, "readonly": host.readonly_rootfs },
        "process": process,
        "mounts": mounts(host, prepared),
        "linux": linux,
        "annotations": annotations(record),
    }))
}

fn process(
    record: &Record,
    prepared: &Prepared<'_>,
    user: &User,
    capabilities: &[String],
    security: &security::Security,
) -> Result<Value> {
    let host = &record.host_config;
    let mut args: Vec<&str> = Vec::new();
    if prepared.init.is_some() {
        args.extend([INIT_TARGET, "--"]);
    }
    args.push(&record.path);
    args.extend(record.args.iter().map(String::as_str));

    let cwd = if record.config.working_dir.is_empty() { "/" } else { &record.config.working_dir };
    // A process of another user than root gets no capability but through a set-user-id program or a file capability.
    let effective: &[String] = if user.uid == 0 { capabilities } else { &[] };
    let mut process = json!({
        "terminal": record.config.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids },
        "args": args,
        "env": environment(record, user, &prepared.link_env),
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities, "effective": effective, "permitted": effective,
        },
        "noNewPrivileges": security.no_new_privileges,
        "rlimits": rlimits(&host.resources.ulimits, prepared.default_ulimits)?,
        "oomScoreAdj": host.oom_score_adj,
    });
    if record.config.tty && host.console_size != [0, 0] {
        process["consoleSize"] = json!({ "height": host.console_size[0], "width": host.console_size[1] });
    }
    if let Some(profile) = &security.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    Ok(process)
}

/// The environment: `PATH`, `HOSTNAME`, `TERM` with a terminal, links, then what was asked for, then `HOME`.
pub fn environment(record: &Record, user: &User, link_env: &[String]) -> Vec<String> {
    let mut env: Vec<String> = vec![DEFAULT_PATH.into(), format!("HOSTNAME={}", record.config.hostname)];
    if record.config.tty {
        env.push("TERM=xterm".into());
    }
    env.extend_from_slice(link_env);
    merge_environment(&mut env, &record.config.env);
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        let home = user.home.as_deref().filter(|h| !h.is_empty()).unwrap_or("/");
        env.push(format!("HOME={home}"));
    }
    env
}

/// Adds variables, replacing those of the same name; a name without `=` removes it.
pub fn merge_environment(env: &mut Vec<String>, add: &[String]) {
    for entry in add {
        let name = entry.split('=').next().unwrap_or(entry);
        let same = |e: &String| e.split('=').next() == Some(name);
        let position = env.iter().position(same);
        match (entry.contains('='), position) {
            (true, Some(i)) => env[i].clone_from(entry),
            (true, None) => env.push(entry.clone()),
            (false, _) => env.retain(|e| !same(e)),
        }
    }
}

/// `--ulimit`, over the engine's defaults.
pub fn rlimits(own: &[api::types::Ulimit], defaults: &[api::types::Ulimit]) -> Result<Vec<Value>> {
    const NAMES: &[&str] = &[
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let inherited = defaults.iter().filter(|d| !own.iter().any(|o| o.name == d.name));
    own.iter()
        .chain(inherited)
        .map(|u| {
            if !NAMES.contains(&u.name.as_str()) {
                return Err(Error::InvalidParameter(format!("invalid ulimit type: {}", u.name)));
            }
            // -1 is no limit: RLIM_INFINITY is all ones.
            Ok(json!({ "type": format!("RLIMIT_{}", u.name.to_uppercase()), "soft": u.soft as u64, "hard": u.hard as u64 }))
        })
        .collect()
}

fn namespaces(prepared: &Prepared<'_>) -> Vec<Value> {
    let mut list = vec![json!({ "type": "mount" })];
    if let Some(path) = &prepared.netns {
        list.push(json!({ "type": "network", "path": path }));
    }
    for (kind, namespace) in [("uts", &prepared.uts), ("pid", &prepared.pid), ("ipc", &prepared.ipc)] {
        match namespace {
            Namespace::Own => list.push(json!({ "type": kind })),
            Namespace::Host => {}
            Namespace::Joined(path) => list.push(json!({ "type": kind, "path": path })),
        }
    }
    list
}

/// Docker's defaults for an own network namespace, under what was asked for.
fn sysctls(record: &Record, prepared: &Prepared<'_>) -> Value {
    let mut all = serde_json::Map::new();
    let own_network = prepared.netns.is_some() && !record.network_mode().starts_with("container:");
    if own_network {
        all.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        all.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    for (key, value) in &record.host_config.sysctls {
        all.insert(key.clone(), value.as_str().into());
    }
    all.into()
}

fn mounts(host: &HostConfig, prepared: &Prepared<'_>) -> Vec<Value> {
    let standard = |destination: &str, kind: &'static str, source: &str, options: &[&str]| Mount {
        destination: destination.into(),
        kind,
        source: source.into(),
        options: options.iter().map(|&o| o.to_owned()).collect(),
    };
    let access = if host.privileged { "rw" } else { "ro" };
    let mut all = vec![
        standard("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        standard("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        standard(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        standard("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        standard("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
        standard("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if prepared.ipc == Namespace::Host {
        all.retain(|m| m.destination != "/dev/mqueue");
    }
    if prepared.ipc == Namespace::Host && Path::new("/dev/mqueue").exists() {
        all.push(Mount {
            destination: "/dev/mqueue".into(),
            kind: "bind",
            source: "/dev/mqueue".into(),
            options: ["rbind", "nosuid", "noexec", "nodev"].map(str::to_owned).into(),
        });
    }
    all.retain(|m| !prepared.mounts.iter().any(|own| own.destination == m.destination));
    let mut own = prepared.mounts.clone();
    // A mount inside another one comes after it.
    own.sort_by_key(|m| m.destination.matches('/').count());
    all.extend(own);
    all.into_iter()
        .map(|m| json!({ "destination": m.destination, "type": m.kind, "source": m.source, "options": m.options }))
        .collect()
}

/// A shared or slave bind needs a root that is not private.
fn root_propagation(mounts: &[Mount]) -> Option<&'static str> {
    let has = |words: &[&str]| mounts.iter().any(|m| m.options.iter().any(|o| words.contains(&o.as_str())));
    if has(&["shared", "rshared"]) {
        Some("shared")
    } else if has(&["slave", "rslave"]) {
        Some("slave")
    } else {
        None
    }
}

/// What was asked for, and the checkpoint's labels, which the runtime reads.
fn annotations(record: &Record) -> Value {
    let mut all = serde_json::Map::new();
    for (key, value) in &record.config.labels {
        if key.starts_with("dormouse.checkpoint.") {
            all.insert(key.clone(), value.as_str().into());
        }
    }
    for (key, value) in &record.host_config.annotations {
        all.insert(key.clone(), value.as_str().into());
    }
    all.into()
}

fn paths(own: &api::types::List<String>, default: &[&str]) -> Value {
    if own.is_null() { json!(default) } else { json!(own.as_slice()) }
}

/// Docker's masked paths.
pub const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Docker's read-only paths.
pub const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_replace_each_other() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        merge_environment(&mut env, &["A=3".into(), "C=".into(), "B".into()]);
        assert_eq!(env, ["A=3", "C="]);
    }

    #[test]
    fn no_limit_is_all_ones() {
        let ulimit = api::types::Ulimit { name: "core".into(), soft: -1, hard: -1 };
        let list = rlimits(&[ulimit], &[]).unwrap();
        assert_eq!(list[0], json!({ "type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX }));
        let bad = api::types::Ulimit { name: "x".into(), soft: 1, hard: 1 };
        assert!(rlimits(&[bad], &[]).is_err());
    }
}
