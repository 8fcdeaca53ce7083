//! Capability sets: Docker's default, changed by `--cap-add`, `--cap-drop` and `--privileged`.

use crate::error::{Error, Result};

/// What a container has when nothing is said.
const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All capabilities of capabilities(7), in the order of their numbers.
const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The capabilities of a container with these options, as `CAP_…` names.
pub fn tweak(privileged: bool, add: &[String], drop: &[String]) -> Result<Vec<String>> {
    let available = available();
    let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    if privileged {
        return Ok(owned(&available));
    }
    let add = normalize("CapAdd", add, &available)?;
    let drop = normalize("CapDrop", drop, &available)?;
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    if has(&add, "ALL") {
        return Ok(owned(&available).into_iter().filter(|c| !has(&drop, c)).collect());
    }
    let mut caps = if has(&drop, "ALL") { Vec::new() } else { owned(DEFAULT) };
    caps.retain(|c| !has(&drop, c));
    for cap in add {
        if !caps.contains(&cap) {
            caps.push(cap);
        }
    }
    Ok(caps)
}

/// What this daemon itself may hand on: its bounding set.
fn available() -> Vec<&'static str> {
    let mask = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| s.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapBnd:")?.trim(), 16).ok()))
        .unwrap_or(u64::MAX);
    ALL.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

fn normalize(field: &str, names: &[String], available: &[&str]) -> Result<Vec<String>> {
    let one = |name: &String| {
        let upper = name.to_uppercase();
        if upper == "ALL" {
            return Ok(upper);
        }
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if !ALL.contains(&full.as_str()) {
            return Err(Error::InvalidParameter(format!("invalid {field}: unknown capability: \"{full}\"")));
        }
        if !available.contains(&full.as_str()) {
            return Err(Error::InvalidParameter(format!(
                "invalid {field}: capability not supported by your kernel or not available in the current environment: \"{full}\""
            )));
        }
        Ok(full)
    };
    names.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn add_and_drop() {
        assert_eq!(tweak(false, &[], &[]).unwrap(), list(DEFAULT));
        assert_eq!(tweak(false, &list(&["net_admin"]), &list(&["all"])).unwrap(), ["CAP_NET_ADMIN"]);
        let most = tweak(false, &list(&["ALL"]), &list(&["CAP_MKNOD"])).unwrap();
        assert!(most.len() > 20 && !most.contains(&"CAP_MKNOD".to_owned()));
        assert!(!tweak(false, &[], &list(&["kill"])).unwrap().contains(&"CAP_KILL".to_owned()));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = tweak(false, &list(&["fly"]), &[]).unwrap_err().to_string();
        assert_eq!(error, "invalid CapAdd: unknown capability: \"CAP_FLY\"");
    }
}
