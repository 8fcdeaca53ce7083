//! `config.json` as runtime-spec 1.0.0-rc2 had it (Docker 1.12 to 17.03), turned into 1.0.
//!
//! Only what changed its shape is touched; everything else is carried over, known or not.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The version written into a translated configuration.
const VERSION: &str = "1.0.2";

/// As little of a configuration as tells the generations apart.
#[derive(Deserialize)]
struct Probe<'a> {
    platform: Option<IgnoredAny>,
    #[serde(borrow)]
    process: Option<ProcessProbe<'a>>,
    linux: Option<LinuxProbe>,
}

#[derive(Deserialize)]
struct ProcessProbe<'a> {
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LinuxProbe {
    seccomp: Option<SeccompProbe>,
}

#[derive(Deserialize)]
struct SeccompProbe {
    syscalls: Option<Vec<SyscallProbe>>,
}

#[derive(Deserialize)]
struct SyscallProbe {
    name: Option<IgnoredAny>,
}

/// Whether a configuration is of the rc2 generation.
pub fn is_old(config: &[u8]) -> serde_json::Result<bool> {
    let probe: Probe = serde_json::from_slice(config)?;
    let syscalls = probe.linux.and_then(|l| l.seccomp).and_then(|s| s.syscalls).unwrap_or_default();
    let capabilities = probe.process.and_then(|p| p.capabilities).map_or("", RawValue::get);
    Ok(probe.platform.is_some() || capabilities.starts_with('[') || syscalls.iter().any(|rule| rule.name.is_some()))
}

/// The same configuration in today's shape.
pub fn translate(mut config: Value) -> Value {
    let Some(root) = config.as_object_mut() else { return config };
    root.insert("ociVersion".into(), VERSION.into());
    root.remove("platform");
    for other_system in ["solaris", "windows"] {
        if root.get(other_system).is_some_and(Value::is_null) {
            root.remove(other_system);
        }
    }
    let score = root.get_mut("linux").and_then(Value::as_object_mut).and_then(linux);
    if let Some(process) = root.get_mut("process").and_then(Value::as_object_mut) {
        capabilities(process);
        if let Some(score) = score {
            process.insert("oomScoreAdj".into(), score);
        }
    }
    config
}

/// A flat list meant all sets. The inheritable one stays empty, as in Docker since 20.10.14: filled, it gives programs
/// with inheritable file capabilities more than a user without them has. An empty list was not written at all and meant
/// none, while a runtime of today leaves all to a process without any sets.
fn capabilities(process: &mut Map<String, Value>) {
    let list = match process.get("capabilities") {
        None | Some(Value::Null) => json!([]),
        Some(list @ Value::Array(_)) => list.clone(),
        Some(_) => return,
    };
    process.insert("capabilities".into(), capability_sets(list));
}

/// The sets of a process that is given this list.
pub fn capability_sets(list: Value) -> Value {
    json!({ "bounding": list, "effective": list, "permitted": list })
}

/// Returns the OOM score, which has moved to the process.
fn linux(linux: &mut Map<String, Value>) -> Option<Value> {
    if let Some(rules) = linux.get_mut("seccomp").and_then(|s| s.get_mut("syscalls")).and_then(Value::as_array_mut) {
        rules.iter_mut().filter_map(Value::as_object_mut).for_each(syscall_rule);
    }
    let resources = linux.get_mut("resources")?.as_object_mut()?;
    let disable = resources.remove("disableOOMKiller");
    if let Some(memory) = resources.get_mut("memory").and_then(Value::as_object_mut) {
        memory_limits(memory);
    }
    if let Some(disable @ Value::Bool(_)) = disable {
        let memory = resources.entry("memory").or_insert_with(|| json!({}));
        if memory.is_null() {
            *memory = json!({});
        }
        if let Some(memory) = memory.as_object_mut() {
            memory.insert("disableOOMKiller".into(), disable);
        }
    }
    if let Some(cpu) = resources.get_mut("cpu").and_then(Value::as_object_mut) {
        ["quota", "realtimeRuntime"].iter().for_each(|key| signed(cpu, key));
    }
    if let Some(io) = resources.get_mut("blockIO").and_then(Value::as_object_mut) {
        block_io(io);
    }
    resources.remove("oomScoreAdj").filter(|score| !score.is_null())
}

fn syscall_rule(rule: &mut Map<String, Value>) {
    if let Some(name) = rule.remove("name") {
        rule.insert("names".into(), json!([name]));
    }
}

fn memory_limits(memory: &mut Map<String, Value>) {
    ["limit", "reservation", "swap", "kernel", "kernelTCP"].iter().for_each(|key| signed(memory, key));
    // Minus one, "leave it", as an unsigned number.
    if memory.get("swappiness").and_then(Value::as_u64).is_some_and(|n| n > 100) {
        memory.remove("swappiness");
    }
}

/// These were unsigned, so that "no limit" was 2⁶⁴ − 1.
fn signed(object: &mut Map<String, Value>, key: &str) {
    if let Some(number) = object.get(key).and_then(Value::as_u64).filter(|n| i64::try_from(*n).is_err()) {
        object.insert(key.into(), (number as i64).into());
    }
}

/// `blkioWeight` → `weight`, `blkioThrottleReadBpsDevice` → `throttleReadBpsDevice`.
fn block_io(io: &mut Map<String, Value>) {
    let old: Vec<String> = io.keys().filter(|key| key.starts_with("blkio")).cloned().collect();
    for key in old {
        let mut letters = key["blkio".len()..].chars();
        let Some(first) = letters.next() else { continue };
        let new: String = first.to_lowercase().chain(letters).collect();
        if let Some(value) = io.remove(&key) {
            io.insert(new, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old() -> Value {
        json!({
            "ociVersion": "1.0.0-rc2-dev",
            "platform": {"os": "linux", "arch": "amd64"},
            "process": {
                "consoleSize": {"height": 0, "width": 0},
                "args": ["sh"], "cwd": "/",
                "capabilities": ["CAP_CHOWN", "CAP_KILL"]
            },
            "root": {"path": "/r"},
            "solaris": null,
            "linux": {
                "resources": {
                    "devices": [{"allow": false, "access": "rwm"}],
                    "disableOOMKiller": false, "oomScoreAdj": 7,
                    "memory": {"limit": 64, "swap": 18_446_744_073_709_551_615_u64,
                               "swappiness": 18_446_744_073_709_551_615_u64},
                    "cpu": {"quota": 18_446_744_073_709_551_615_u64, "shares": 2},
                    "pids": {"limit": 0},
                    "blockIO": {"blkioWeight": 0, "blkioThrottleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}
                },
                "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                    {"name": "read", "action": "SCMP_ACT_ALLOW", "args": null},
                    {"name": "clone", "action": "SCMP_ACT_ALLOW", "args": []}
                ]}
            }
        })
    }

    #[test]
    fn the_generations_are_told_apart() {
        let is = |value: Value| is_old(value.to_string().as_bytes()).unwrap();
        assert!(is(old()));
        assert!(!is(translate(old())));
        assert!(is(json!({"process": {"capabilities": []}})));
        assert!(is(json!({"linux": {"seccomp": {"syscalls": [{"name": "x"}]}}})));
        assert!(!is(json!({"process": {"capabilities": {"bounding": []}}})));
        assert!(!is(json!({})));
        assert!(is_old(b"{").is_err());
    }

    #[test]
    fn every_changed_field_is_translated() {
        let new = translate(old());
        let expected = json!({
            "ociVersion": "1.0.2",
            "process": {
                "consoleSize": {"height": 0, "width": 0},
                "args": ["sh"], "cwd": "/", "oomScoreAdj": 7,
                "capabilities": {
                    "bounding": ["CAP_CHOWN", "CAP_KILL"],
                    "effective": ["CAP_CHOWN", "CAP_KILL"],
                    "permitted": ["CAP_CHOWN", "CAP_KILL"]
                }
            },
            "root": {"path": "/r"},
            "linux": {
                "resources": {
                    "devices": [{"allow": false, "access": "rwm"}],
                    "memory": {"limit": 64, "swap": -1, "disableOOMKiller": false},
                    "cpu": {"quota": -1, "shares": 2},
                    "pids": {"limit": 0},
                    "blockIO": {"weight": 0, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}
                },
                "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                    {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null},
                    {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": []}
                ]}
            }
        });
        assert_eq!(new, expected);
    }

    /// What `docker run --cap-drop ALL` writes.
    #[test]
    fn no_capabilities_stay_none() {
        let none = json!({"bounding": [], "effective": [], "permitted": []});
        for process in [json!({}), json!({"capabilities": null}), json!({"capabilities": []})] {
            let new = translate(json!({"platform": {}, "process": process}));
            assert_eq!(new["process"]["capabilities"], none);
        }
        let sets = json!({"bounding": ["CAP_KILL"]});
        let new = translate(json!({"platform": {}, "process": {"capabilities": sets}}));
        assert_eq!(new["process"]["capabilities"], sets);
    }

    #[test]
    fn nothing_odd_makes_it_fall_over() {
        for odd in [json!(1), json!({"linux": 1, "process": []}), json!({"linux": {"resources": null, "seccomp": 3}})] {
            translate(odd);
        }
    }
}
