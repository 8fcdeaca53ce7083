//! Adds a process to a container.

use std::sync::Arc;

use containerd_api::types::{AddProcessRequest, Process, User};
use serde_json::{Map, Value, json};
use shim::protocol::Call;

use super::Shared;
use super::container::Container;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::process::HostProcess;
use crate::statedir::{INIT, ProcessRecord};

/// A process that was added.
#[derive(Debug)]
pub struct Added {
    /// As `State` shows it.
    pub process: Process,
    /// The process on the host, unless it has ended already.
    pub host: Option<HostProcess>,
}

/// Runs the process. When this fails, nothing of it is left.
pub async fn add(shared: &Arc<Shared>, container: &Arc<Container>, request: AddProcessRequest) -> Result<Added> {
    let _busy = shared.activity.begin(format!("exec {} in container {}", request.pid, container.id()));
    let _time = Metrics::time(&shared.metrics.exec_process);
    let dir = container.dir.process(&request.pid);
    let pid = request.pid.clone();
    let record = {
        let (shared, container, dir) = (Arc::clone(shared), Arc::clone(container), dir.clone());
        let making = tokio::task::spawn_blocking(move || {
            let init = container.dir.process(INIT).record()?;
            let record = record(&container, &init, request, shared.hub.now());
            dir.create(&record)?;
            Ok::<_, crate::error::Error>(record)
        });
        making.await.map_err(|_| crate::error::Error::Closing)??
    };
    let call = Call::Exec { process: pid.clone(), stdio: record.stdio() };
    let result = match container.shim() {
        Ok(shim) => shim.call_for_pid(call).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(number) => {
            // A short one may have ended already; its exit is on its way.
            let host = dir.note_process(number).ok();
            Ok(Added { process: record.to_api(&pid, number.unsigned_abs()), host })
        }
        Err(error) => {
            if let Err(error) = dir.remove() {
                tracing::warn!(%error, id = container.id(), "cannot remove the state of a process that was not started");
            }
            Err(error.of_a_start())
        }
    }
}

fn record(
    container: &Container,
    init: &ProcessRecord,
    request: AddProcessRequest,
    created: chrono::DateTime<chrono::Utc>,
) -> ProcessRecord {
    ProcessRecord {
        exec: true,
        containerd_stdin: request.stdin.clone(),
        containerd_stdout: request.stdout.clone(),
        containerd_stderr: request.stderr.clone(),
        runtime_args: container.record.runtime_args.clone(),
        no_pivot_root: container.record.no_pivot_root,
        checkpoint: String::new(),
        root_uid: init.root_uid,
        root_gid: init.root_gid,
        created,
        spec: oci_process(request),
    }
}

/// The OCI process. What the request leaves out is left out, so that the runtime takes the container's own.
pub(super) fn oci_process(request: AddProcessRequest) -> Map<String, Value> {
    let User { uid, gid, additional_gids } = request.user.unwrap_or_default();
    let mut user = json!({ "uid": uid, "gid": gid });
    if !additional_gids.is_empty() {
        user["additionalGids"] = additional_gids.into();
    }
    let cwd = if request.cwd.is_empty() { "/".to_owned() } else { request.cwd };
    let mut spec = Map::new();
    spec.insert("terminal".into(), request.terminal.into());
    spec.insert("user".into(), user);
    spec.insert("args".into(), request.args.into());
    spec.insert("env".into(), request.env.into());
    spec.insert("cwd".into(), cwd.into());
    if request.terminal && request.console_height > 0 && request.console_width > 0 {
        let size = json!({ "height": request.console_height, "width": request.console_width });
        spec.insert("consoleSize".into(), size);
    }
    spec.insert("noNewPrivileges".into(), request.no_new_privileges.into());
    if !request.capabilities.is_empty() {
        let list = Value::from(request.capabilities);
        spec.insert("capabilities".into(), json!({ "bounding": list, "effective": list, "permitted": list }));
    }
    for (key, value) in [("apparmorProfile", request.apparmor_profile), ("selinuxLabel", request.selinux_label)] {
        if !value.is_empty() {
            spec.insert(key.into(), value.into());
        }
    }
    if !request.rlimits.is_empty() {
        let limits = request.rlimits.into_iter().map(|l| json!({ "type": l.r#type, "soft": l.soft, "hard": l.hard }));
        spec.insert("rlimits".into(), limits.collect());
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_left_to_the_runtime() {
        let spec = oci_process(AddProcessRequest { args: vec!["sh".into()], ..Default::default() });
        assert_eq!(
            Value::from(spec),
            json!({"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": [], "cwd": "/",
                   "noNewPrivileges": false})
        );
    }
}
