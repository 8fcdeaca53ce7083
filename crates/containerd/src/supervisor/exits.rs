//! The end of a container: once its first process is gone, or its shim was killed.
//!
//! The order matters. The state directory is moved aside *before* the exit is announced, because whoever hears of it may use
//! the id again at once; and it is only removed *after*, because a docker-containerd that dies in between must find it
//! and announce the exit in its place.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{error, warn};

use super::container::Container;
use super::{Shared, checkpoint};
use crate::metrics::Metrics;
use crate::process::{HostProcess, ended};
use crate::runtime::Runtime;
use crate::statedir::{ContainerDir, INIT, ProcessDir};
use crate::{bundle, cgroup, lookout};

/// How long a shim may take to end after it has reported the exit.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);
/// How long a killed process may take to die.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// What is read of a runtime's log.
const MAX_LOG_BYTES: u64 = 256 << 10;
/// How long whoever makes a checkpoint may take to come to its end.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);
/// The status of a process whose end nobody saw.
pub const UNKNOWN_STATUS: u32 = 255;
/// The status of a process that was killed.
const KILLED_STATUS: u32 = 137;
/// Why a container without a shim was ended.
const SHIM_DIED: &str = "the container was killed: its docker-containerd-shim has died";

/// A container of which nothing is left but its exits to announce.
#[derive(Debug)]
pub struct Ended {
    /// Where its state is now, if it could be moved.
    pub retired: Option<ContainerDir>,
    /// Exit statuses by process, as far as they are known.
    pub statuses: HashMap<String, u32>,
    /// Why it was ended, when neither its program nor a client did it; else empty.
    pub reason: String,
}

/// How the supervisor learned of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The shim said so, and has removed the container.
    Reported,
    /// The shim is gone and said nothing.
    Orphaned,
}

/// Cleans up behind a container. Never fails: what cannot be cleaned is said in the log.
pub async fn finish(shared: &Arc<Shared>, container: &Arc<Container>, processes: Vec<String>, cause: Cause) -> Ended {
    let _busy = shared.activity.begin(format!("remove container {}", container.id()));
    let _time = Metrics::time(&shared.metrics.container_delete);
    let mut statuses = HashMap::new();
    match cause {
        Cause::Reported => {
            if let Ok(shim) = container.shim() {
                shim.finish(SHIM_PATIENCE).await;
            }
        }
        Cause::Orphaned => {
            warn!(id = container.id(), "a shim has died; its container is killed");
            statuses = kill_orphan(container, &processes).await;
        }
    }
    let said = runtimes_reason(&container.dir.process(INIT));
    if let Some(reason) = &said {
        warn!(id = container.id(), reason, "the runtime has ended a container");
    }
    let reason = said.unwrap_or_else(|| match cause {
        Cause::Reported => String::new(),
        Cause::Orphaned => SHIM_DIED.to_owned(),
    });
    for process in processes {
        if let Some(status) = container.dir.process(&process).exit_status() {
            statuses.entry(process).or_insert(status);
        }
    }
    settle_checkpoint(container).await;
    let retired = match container.dir.retire(container.record.created) {
        Ok(retired) => Some(retired),
        Err(error) => {
            error!(%error, id = container.id(), "cannot move a container's state aside");
            None
        }
    };
    Ended { retired, statuses, reason }
}

/// What the runtime said in the log of a start that went well: it has ended the container later, and why. (A page daemon
/// that could not go on has.)
pub fn runtimes_reason(init: &ProcessDir) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let text = crate::bundle::read_bounded(&init.path().join("log.json"), MAX_LOG_BYTES).ok()?;
    let lines = serde_json::Deserializer::from_slice(&text).into_iter::<Line>().map_while(std::result::Result::ok);
    lines.filter(|line| line.level == "error").last().map(|line| line.msg)
}

/// Settles a checkpoint that was being made when the container ended. Its note goes with the state directory; without it,
/// nobody would find what is left of the checkpoint again.
async fn settle_checkpoint(container: &Container) {
    if !container.dir.checkpoint_note().exists() {
        return;
    }
    // Whoever makes or settles it hears of the shim's end as well, and is soon done.
    let _changing = tokio::time::timeout(SETTLE_PATIENCE, container.changing.lock()).await;
    checkpoint::recover(&container.dir, checkpoint::END_PATIENCE, container.init()).await;
}

/// Kills what the shim has left behind, and finds or makes up the exit statuses.
async fn kill_orphan(container: &Arc<Container>, processes: &[String]) -> HashMap<String, u32> {
    let mut statuses = HashMap::new();
    let mut dying = Vec::new();
    for process in processes {
        let dir = container.dir.process(process);
        let (status, host) = orphan_status(&dir);
        dying.extend(host);
        if let Err(error) = dir.write_exit_status(status) {
            warn!(%error, id = container.id(), process, "cannot note an exit status");
        }
        statuses.insert(process.clone(), status);
    }
    for host in &dying {
        let _ = host.signal(Signal::KILL);
    }
    let bundle = container.dir.runtime_bundle(&container.record.bundle);
    remove_remains(&container.runtime, container.id(), Some(bundle)).await;
    for host in dying {
        wait_for(host).await;
    }
    statuses
}

/// Removes what is left of a container whose shim has died or was killed: what the runtime knows of, and the control groups
/// that a runtime which was killed has made and not noted.
pub async fn remove_remains(runtime: &Runtime, id: &str, bundle: Option<PathBuf>) {
    if let Some(bundle) = bundle.as_ref().and_then(|bundle| bundle.canonicalize().ok()) {
        let name = id.to_owned();
        let looking = tokio::task::spawn_blocking(move || lookout::find(|process| calls(process, &name, &bundle)));
        // Fails only when the program ends.
        let dying = looking.await.unwrap_or_default();
        if !lookout::all_ended(dying, Instant::now() + KILL_PATIENCE).await {
            warn!(id, "the runtime of a shim that has died goes on");
        }
    }
    // This also thaws a frozen container, without which it would not die.
    if let Err(error) = runtime.delete_force(id).await {
        warn!(%error, id, "cannot remove a container whose shim has died");
    }
    if let Some(bundle) = bundle {
        let id = id.to_owned();
        let removing = tokio::task::spawn_blocking(move || {
            cgroup::remove_leftover(&id, bundle::cgroups_path(&bundle).as_deref());
        });
        // Fails only when the program ends.
        let _ = removing.await;
    }
}

/// Whether this is a call of a runtime about the container: a shim makes them all in the bundle.
fn calls(process: &Path, id: &str, bundle: &Path) -> bool {
    let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|argument| argument == id.as_bytes())
        && fs::read_link(process.join("cwd")).is_ok_and(|place| place == bundle)
}

/// The status of a process without a shim, and the process if it still has to be killed.
pub fn orphan_status(dir: &ProcessDir) -> (u32, Option<HostProcess>) {
    if let Some(status) = dir.exit_status() {
        return (status, None);
    }
    match dir.host_process().filter(HostProcess::is_alive) {
        Some(host) => (KILLED_STATUS, Some(host)),
        None => (UNKNOWN_STATUS, None),
    }
}

async fn wait_for(host: HostProcess) {
    let Ok(pidfd) = host.pidfd().and_then(crate::fd::watch) else { return };
    if tokio::time::timeout(KILL_PATIENCE, ended(&pidfd)).await.is_err() {
        error!(pid = host.pid, "a killed process does not die");
    }
}

/// The exit status of the first process.
pub fn init_status(ended: &Ended, reported: Option<u32>) -> u32 {
    reported.or_else(|| ended.statuses.get(INIT).copied()).unwrap_or(UNKNOWN_STATUS)
}
