//! A start worker: makes the container's directory, launches its shim, creates and starts (or restores) the first process.
//!
//! It works on one container only and tells the supervisor what came of it. Whatever fails half way is undone before
//! the client is told, so that the id is free again by then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use containerd_api::types;
use rustix::process::Signal;
use shim::protocol::{Call, Restore};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::container::Container;
use super::{Shared, checkpoint, exits};
use crate::bundle;
use crate::cgroup::oom;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::shims::{Key, Launch, ShimClient};
use crate::statedir::{ContainerRecord, INIT, ProcessRecord};

/// How long a shim whose container could not be started may take to clean up and end.
const SHIM_PATIENCE: Duration = Duration::from_secs(5);
/// How long a start that nobody waits for any more may take to come to its end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    /// The container.
    pub container: Arc<Container>,
    /// Its first process.
    pub process: types::Process,
    /// What the runtime measured of a restore.
    pub restore_stats: String,
}

/// What is prepared before anything runs.
struct Prepared {
    container: Arc<Container>,
    process: ProcessRecord,
    restore: Option<Restore>,
}

/// Starts a container. Gives up when `reply` is closed: then nobody waits for it any more.
pub async fn start<T>(
    shared: &Arc<Shared>,
    key: Key,
    request: types::CreateContainerRequest,
    reply: &mut oneshot::Sender<T>,
) -> Result<Started> {
    let _busy = shared.activity.begin(format!("start container {}", key.id));
    let _time = Metrics::time(&shared.metrics.container_start);
    let began = Instant::now();
    let preparing = {
        let (shared, key) = (Arc::clone(shared), key.clone());
        tokio::task::spawn_blocking(move || prepare(&shared, key, &request))
    };
    let Prepared { container, process, restore } = preparing.await.map_err(|_| Error::Closing)??;
    let restoring = restore.is_some();
    let mut running = Box::pin(run(shared, &container, &process, restore.clone()));
    let result = tokio::select! {
        result = &mut running => result,
        () = tokio::time::sleep(shared.config.start_timeout) => Err(Error::StartTimeout),
        () = reply.closed() => {
            // A runtime that is killed half way leaves what nobody finds again.
            let _ = tokio::time::timeout(CANCEL_PATIENCE, &mut running).await;
            Err(Error::Cancelled)
        }
    };
    drop(running);
    match result {
        Ok(pid) => {
            if restoring {
                shared.metrics.restore.update(began.elapsed());
            }
            let process = process.to_api(INIT, pid.unsigned_abs());
            let restore_stats = restore.map(|r| checkpoint::stats(&r.work_path, &r.image_path)).unwrap_or_default();
            info!(id = container.id(), pid, restored = restoring, "container started");
            Ok(Started { container, process, restore_stats })
        }
        Err(error) => {
            undo(&container, &error).await;
            Err(error.of_a_start())
        }
    }
}

/// Everything that needs only files.
fn prepare(shared: &Shared, key: Key, request: &types::CreateContainerRequest) -> Result<Prepared> {
    let config = &shared.config;
    let _time = Metrics::time(&shared.metrics.container_create);
    let (runtime_name, runtime_args) = match request.runtime.as_str() {
        "" => (config.runtime.as_str(), &config.runtime_args),
        name => (name, &request.runtime_args),
    };
    let bundle_path = PathBuf::from(&request.bundle_path);
    let dir = config.state_dir.container(&key.id);
    let record = ContainerRecord {
        bundle: bundle_path.clone(),
        labels: request.labels.clone(),
        stdin: String::new(),
        stdout: String::new(),
        stderr: String::new(),
        runtime: runtime_name.to_owned(),
        runtime_args: runtime_args.clone(),
        shim: config.shim.clone(),
        no_pivot_root: request.no_pivot_root,
        created: shared.hub.now(),
    };
    dir.create(&record)?;
    let prepared = (|| {
        let bundle = bundle::open(&bundle_path)?;
        let runtime = Runtime::find(runtime_name, runtime_args)?;
        let restore = match request.checkpoint.as_str() {
            "" => None,
            name => Some(restore_from(&bundle_path, name, &request.checkpoint_dir, request.auto)?),
        };
        let checkpoint = restore.as_ref().map(|r| r.image_path.to_string_lossy().into_owned());
        let process = ProcessRecord {
            spec: bundle.process,
            exec: false,
            containerd_stdin: request.stdin.clone(),
            containerd_stdout: request.stdout.clone(),
            containerd_stderr: request.stderr.clone(),
            runtime_args: runtime_args.clone(),
            no_pivot_root: request.no_pivot_root,
            checkpoint: checkpoint.unwrap_or_default(),
            root_uid: bundle.root_uid,
            root_gid: bundle.root_gid,
            created: record.created,
        };
        if let Some(config) = &bundle.translated {
            dir.create_bundle(config)?;
        }
        dir.process(INIT).create(&process)?;
        Ok((process, restore, runtime))
    })();
    match prepared {
        Ok((process, restore, runtime)) => {
            Ok(Prepared { container: Container::new(key, dir, record, runtime), process, restore })
        }
        Err(error) => {
            if let Err(error) = dir.remove() {
                warn!(%error, id = %key.id, "cannot remove the state of a container that was not started");
            }
            Err(error)
        }
    }
}

fn restore_from(bundle: &Path, name: &str, dir: &str, auto: bool) -> Result<Restore> {
    crate::names::checkpoint(name)?;
    let image_path = checkpoint::directory(bundle, dir)?.join(name);
    // In the words of the shim, which used to read this file.
    let record = checkpoint::read_record(&image_path).map_err(|e| Error::Shim(e.to_string()))?;
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
    let work_path = image_path.join("criu.work").join(format!("restore-{now}"));
    std::fs::create_dir_all(&work_path).map_err(Error::path("mkdir", &work_path))?;
    let args = record.restore_args(auto);
    Ok(Restore { image_path, work_path, args })
}

async fn run(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    process: &ProcessRecord,
    restore: Option<Restore>,
) -> Result<i32> {
    let launch = Launch {
        program: &container.record.shim,
        id: container.id(),
        bundle: &container.dir.runtime_bundle(&container.record.bundle),
        runtime: &container.runtime,
        dir: container.dir.path(),
    };
    let connected = launch.run().await?;
    let shim = ShimClient::new(connected, container.key.clone(), shared.notices.clone())?;
    container.set_shim(shim.clone());
    let restoring = restore.is_some();
    let mut restore = restore;
    if let Some(restore) = &mut restore {
        if restore.args.iter().any(|arg| arg == "--auto") && !container.runtime.chooses_checkpoint_options().await {
            restore.args.retain(|arg| arg != "--auto");
        }
    }
    let create = Call::Create { stdio: process.stdio(), no_pivot: container.record.no_pivot_root, restore };
    let pid = shim.call_for_pid(create).await?;
    match container.dir.process(INIT).note_process(pid) {
        Ok(init) => container.set_init(init),
        // A restored program may have ended already; its exit is on its way.
        Err(error) if restoring => warn!(%error, id = container.id(), "the restored process is gone already"),
        Err(error) => return Err(error),
    }
    watch_memory(shared, container);
    if !restoring {
        shim.call(Call::Start).await?;
    }
    Ok(pid)
}

/// Announces every kill for want of memory, for as long as the container's group exists.
pub fn watch_memory(shared: &Arc<Shared>, container: &Arc<Container>) {
    let mut watch = match oom::Watch::arm(&container.cgroups()) {
        Ok(Some(watch)) => watch,
        Ok(None) => return,
        Err(error) => return warn!(%error, id = container.id(), "cannot watch a container's memory group"),
    };
    let (shared, key) = (Arc::clone(shared), container.key.clone());
    tokio::spawn(async move {
        while let Ok(Some(())) = watch.next().await {
            if shared.internal.send(super::Internal::Oom(key.clone())).await.is_err() {
                break;
            }
        }
    });
}

/// Leaves nothing of a container that could not be started.
async fn undo(container: &Arc<Container>, error: &Error) {
    let _undo = container.changing.lock().await;
    let interrupted = matches!(error, Error::StartTimeout | Error::Cancelled | Error::ShimLost);
    let host = container.dir.process(INIT).host_process();
    if let Ok(shim) = container.shim() {
        // After a failure of the runtime the shim has cleaned up and ends by itself.
        if interrupted || host.is_some() || matches!(error, Error::Shim(_)) {
            shim.kill();
        }
        shim.finish(SHIM_PATIENCE).await;
    }
    if let Some(host) = host {
        let _ = host.signal(Signal::KILL);
    }
    // Only what this start may have made: the id may belong to a container of somebody else's in the same runtime.
    if interrupted || host.is_some() {
        let bundle = container.dir.runtime_bundle(&container.record.bundle);
        exits::remove_remains(&container.runtime, container.id(), Some(bundle)).await;
    }
    let dir = container.dir.clone();
    let removed = tokio::task::spawn_blocking(move || dir.remove()).await;
    if let Ok(Err(error)) = removed {
        warn!(%error, id = container.id(), "cannot remove the state of a container that was not started");
    }
}
