//! What the state directory remembers of a container and of a process, in the files of the original.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use containerd_api::types;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// `state.json`: how a container was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Stored and returned.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub labels: Vec<String>,
    /// Always empty, as in the original.
    #[serde(default)]
    pub stdin: String,
    /// Always empty, as in the original.
    #[serde(default)]
    pub stdout: String,
    /// Always empty, as in the original.
    #[serde(default)]
    pub stderr: String,
    /// Name or path of the runtime.
    pub runtime: String,
    /// Its global arguments.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub runtime_args: Vec<String>,
    /// Name or path of the shim.
    #[serde(default)]
    pub shim: String,
    /// Pass `--no-pivot`.
    #[serde(default)]
    pub no_pivot_root: bool,
    /// After every event before this container and before every event about it.
    #[serde(default)]
    pub created: DateTime<Utc>,
}

/// `process.json`: the OCI process with what the supervisor adds. The runtime reads the same file for `exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRecord {
    /// The OCI process.
    #[serde(flatten)]
    pub spec: Map<String, Value>,
    /// Not the first process.
    #[serde(default)]
    pub exec: bool,
    /// Path of its standard input.
    #[serde(default)]
    pub containerd_stdin: String,
    /// Path of its standard output.
    #[serde(default)]
    pub containerd_stdout: String,
    /// Path of its standard error.
    #[serde(default)]
    pub containerd_stderr: String,
    /// As in the container's record.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub runtime_args: Vec<String>,
    /// As in the container's record.
    #[serde(default)]
    pub no_pivot_root: bool,
    /// The checkpoint it was restored from, or empty.
    #[serde(default)]
    pub checkpoint: String,
    /// Host id of the container's root.
    #[serde(default, rename = "rootUID")]
    pub root_uid: u32,
    /// Host id of its group.
    #[serde(default, rename = "rootGID")]
    pub root_gid: u32,
    /// After every event before this process and before every event about it.
    #[serde(default)]
    pub created: DateTime<Utc>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ProcessRecord {
    /// Whether it has a terminal.
    pub fn terminal(&self) -> bool {
        self.spec.get("terminal").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Its stdio, for the shim.
    pub fn stdio(&self) -> shim::protocol::Stdio {
        shim::protocol::Stdio {
            stdin: PathBuf::from(&self.containerd_stdin),
            stdout: PathBuf::from(&self.containerd_stdout),
            stderr: PathBuf::from(&self.containerd_stderr),
            terminal: self.terminal(),
            uid: self.root_uid,
            gid: self.root_gid,
        }
    }

    /// As `State` shows it.
    pub fn to_api(&self, pid: &str, system_pid: u32) -> types::Process {
        let text = |key: &str| self.spec.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
        let small = |value: Option<&Value>| u32::try_from(number(value)).unwrap_or(0);
        let user = self.spec.get("user");
        let list = |key: &str| user.and_then(|u| u.get(key)).and_then(Value::as_array);
        let rlimits = self.spec.get("rlimits").and_then(Value::as_array);
        types::Process {
            pid: pid.to_owned(),
            terminal: self.terminal(),
            user: Some(types::User {
                uid: small(user.and_then(|u| u.get("uid"))),
                gid: small(user.and_then(|u| u.get("gid"))),
                additional_gids: list("additionalGids").into_iter().flatten().map(|gid| small(Some(gid))).collect(),
            }),
            args: strings(self.spec.get("args")),
            env: strings(self.spec.get("env")),
            cwd: text("cwd"),
            system_pid,
            stdin: self.containerd_stdin.clone(),
            stdout: self.containerd_stdout.clone(),
            stderr: self.containerd_stderr.clone(),
            capabilities: strings(self.spec.get("capabilities").and_then(|c| c.get("bounding"))),
            apparmor_profile: text("apparmorProfile"),
            selinux_label: text("selinuxLabel"),
            no_new_privileges: self.spec.get("noNewPrivileges").and_then(Value::as_bool).unwrap_or(false),
            rlimits: rlimits
                .into_iter()
                .flatten()
                .map(|limit| types::Rlimit {
                    r#type: limit.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
                    soft: number(limit.get("soft")),
                    hard: number(limit.get("hard")),
                })
                .collect(),
        }
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_state_is_read() {
        let text = r#"{"bundle":"/b","labels":null,"stdin":"","stdout":"","stderr":"","runtime":"runc",
            "runtimeArgs":null,"shim":"containerd-shim","noPivotRoot":false}"#;
        let record: ContainerRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.runtime, "runc");
        assert!(record.labels.is_empty());
    }

    #[test]
    fn a_process_record_is_also_an_oci_process() {
        let text = r#"{"terminal":true,"user":{"uid":1,"gid":2,"additionalGids":[3]},"args":["a"],"env":["B=c"],
            "cwd":"/","capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":2}],
            "noNewPrivileges":true,"exec":true,"containerdStdin":"/in","rootUID":5,"unknown":[1]}"#;
        let record: ProcessRecord = serde_json::from_str(text).unwrap();
        let api = record.to_api("x", 9);
        assert_eq!((api.system_pid, api.terminal, api.no_new_privileges), (9, true, true));
        assert_eq!(api.user.unwrap().additional_gids, [3]);
        assert_eq!(api.capabilities, ["CAP_KILL"]);
        assert_eq!(api.rlimits[0].hard, 2);
        assert_eq!(record.stdio().uid, 5);
        let again: Value = serde_json::to_value(&record).unwrap();
        assert_eq!(again["args"][0], "a");
        assert_eq!(again["unknown"][0], 1);
        assert_eq!(again["exec"], true);
    }
}
