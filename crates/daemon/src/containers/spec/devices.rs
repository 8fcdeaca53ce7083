//! Device nodes, and the device cgroup's rules for them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use api::types::{DeviceMapping, HostConfig};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The nodes to make and the rules that open them.
#[derive(Debug, Default)]
pub struct Devices {
    /// OCI `linux.devices`.
    pub nodes: Vec<Value>,
    /// OCI `linux.resources.devices`.
    pub rules: Vec<Value>,
}

/// What a container may use: Docker's short list, `--device` and `--device-cgroup-rule`; with `--privileged` everything
/// the host has.
pub fn resolve(host: &HostConfig) -> Result<Devices> {
    // There are no device drivers and no CDI directories here; the words are Docker's for that.
    if let Some(request) = host.resources.device_requests.first() {
        return Err(Error::System(match request.driver.as_str() {
            "cdi" => format!("CDI device injection failed: unresolvable CDI devices {}", request.device_ids.join(", ")),
            driver => format!(
                "could not select device driver {driver:?} with capabilities: [{}]",
                request.capabilities.iter().map(|all| format!("[{}]", all.join(" "))).collect::<Vec<_>>().join(" ")
            ),
        }));
    }
    if host.privileged {
        let mut devices = Devices { nodes: Vec::new(), rules: vec![json!({ "allow": true, "access": "rwm" })] };
        collect(Path::new("/dev"), "/dev", "rwm", 0, &mut devices.nodes, None);
        // A device given by name may appear under another one.
        for mapping in &host.resources.devices {
            if mapping.path_on_host != mapping.path_in_container {
                add(mapping, &mut devices)?;
            }
        }
        return Ok(devices);
    }
    let mut devices = Devices { nodes: Vec::new(), rules: default_rules() };
    for mapping in &host.resources.devices {
        add(mapping, &mut devices)?;
    }
    for rule in &host.resources.device_cgroup_rules {
        devices.rules.push(parse_rule(rule)?);
    }
    Ok(devices)
}

fn default_rules() -> Vec<Value> {
    let open =
        |major: i64, minor: i64| json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    // zero, null, urandom, random, tty, console
    rules.extend([(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)].map(|(major, minor)| open(major, minor)));
    // fuse
    rules.push(json!({ "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" }));
    rules
}

fn add(mapping: &DeviceMapping, devices: &mut Devices) -> Result<()> {
    let source = Path::new(&mapping.path_on_host);
    let target = if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    let resolved = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let before = devices.nodes.len();
    if resolved.is_dir() {
        collect(&resolved, target, access, 0, &mut devices.nodes, Some(&mut devices.rules));
    } else if let Some(node) = node(&resolved, target) {
        devices.rules.push(rule_for(&node, access));
        devices.nodes.push(node);
    }
    if devices.nodes.len() == before {
        let why = if resolved.exists() { "not a device node" } else { "no such file or directory" };
        return Err(Error::InvalidParameter(format!(
            "error gathering device information while adding custom device \"{}\": {why}",
            mapping.path_on_host
        )));
    }
    Ok(())
}

/// All device nodes below a directory; what a container has of its own is left out.
fn collect(
    dir: &Path,
    target: &str,
    access: &str,
    depth: u32,
    nodes: &mut Vec<Value>,
    mut rules: Option<&mut Vec<Value>>,
) {
    const OWN: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"];
    if depth > 8 {
        return;
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| !OWN.contains(n)) else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let inside = format!("{}/{name}", target.trim_end_matches('/'));
        if kind.is_dir() {
            collect(&entry.path(), &inside, access, depth + 1, nodes, rules.as_deref_mut());
        } else if let Some(node) = node(&entry.path(), &inside) {
            if let Some(rules) = rules.as_deref_mut() {
                rules.push(rule_for(&node, access));
            }
            nodes.push(node);
        }
    }
}

fn node(path: &Path, target: &str) -> Option<Value> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => "c",
        t if t.is_block_device() => "b",
        _ => return None,
    };
    Some(json!({
        "path": target, "type": kind,
        "major": rustix::fs::major(meta.rdev()), "minor": rustix::fs::minor(meta.rdev()),
        "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
    }))
}

fn rule_for(node: &Value, access: &str) -> Value {
    json!({ "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access })
}

/// `c 1:3 mr`, with `*` for any number and `a` for both kinds.
fn parse_rule(text: &str) -> Result<Value> {
    let invalid = || Error::InvalidParameter(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    if !["a", "b", "c"].contains(&kind) || access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(invalid());
    }
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    for (key, number) in [("major", major), ("minor", minor)] {
        if number != "*" {
            rule[key] = number.parse::<u32>().map_err(|_| invalid())?.into();
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_device(path: &str) -> HostConfig {
        let mapping = DeviceMapping { path_on_host: path.into(), ..DeviceMapping::default() };
        let mut host = HostConfig::default();
        host.resources.devices = vec![mapping].into();
        host
    }

    #[test]
    fn a_device_is_made_and_opened() {
        let devices = resolve(&with_device("/dev/full")).unwrap();
        assert_eq!(devices.nodes[0]["path"], "/dev/full");
        let rule = devices.rules.last().unwrap();
        assert_eq!((&rule["major"], &rule["minor"], &rule["access"]), (&json!(1), &json!(7), &json!("rwm")));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        assert!(resolve(&with_device("/etc/passwd")).is_err());
    }

    #[test]
    fn rules_are_parsed() {
        assert_eq!(
            parse_rule("c 7:* rwm").unwrap(),
            json!({ "allow": true, "type": "c", "access": "rwm", "major": 7 })
        );
        for bad in ["", "c 7 rwm", "x 1:2 r", "c 1:2 q", "c a:b r", "c 1:2 r x"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }
}
