//! At the start of docker-containerd: takes over what an earlier one has left, and announces what nobody was there to announce.
//!
//! A container whose start was never announced was never answered for either: it is half-made, and is removed without a
//! word. Every other one is in the table again afterwards, or its exit is announced, exactly once: the journal tells what
//! was announced before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containerd_api::types;
use rustix::process::Signal;
use shim::protocol::Exit;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::container::Container;
use super::{Internal, Shared, checkpoint, exits, start};
use crate::appear::appear;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::process::HostProcess;
use crate::runtime::Runtime;
use crate::shims::{self, Key, Notice, ShimClient};
use crate::statedir::{ContainerDir, ContainerRecord, Found, INIT, ProcessDir, retired_processes};

const SHIM_PATIENCE: Duration = Duration::from_secs(5);
/// How long a dump that an earlier docker-containerd has begun may still take, while a runtime is at it: longer than ours
/// gives CRIU. What it writes must not be taken from under its hands.
const DUMP_PATIENCE: Duration = Duration::from_secs(20 * 60);
/// The same, when the container has ended already.
const DUMP_END_PATIENCE: Duration = Duration::from_secs(1);
/// How long a runtime may take to finish what an earlier docker-containerd has asked for.
const CREATE_PATIENCE: Duration = Duration::from_secs(5);

/// A container for the table.
#[derive(Debug)]
pub struct Adopted {
    /// The container.
    pub container: Arc<Container>,
    /// Its processes: id, as `State` shows it, on the host.
    pub processes: Vec<(String, types::Process, Option<HostProcess>)>,
}

/// Takes over everything in the state directory. One broken container does not stop the rest.
pub async fn restore(shared: &Arc<Shared>) -> Result<()> {
    let mut discarding = JoinSet::new();
    for (number, found) in shared.config.state_dir.list()?.into_iter().enumerate() {
        match found {
            Found::Gone(id, dir) => {
                checkpoint::recover(&dir, DUMP_END_PATIENCE, None).await;
                announce_gone(shared, &id, &dir);
            }
            Found::Container(id, dir) => {
                let key = Key { id: id.as_str().into(), generation: number as u64 + 1 };
                let keep = restore_container(shared, key, &dir).await.unwrap_or_else(|error| {
                    warn!(%error, id, "cannot take over a container; what is left of it is removed");
                    false
                });
                if !keep {
                    let shared = Arc::clone(shared);
                    discarding.spawn(async move { discard(&shared, &id, &dir).await });
                }
            }
        }
    }
    discarding.join_all().await;
    Ok(())
}

/// False when the container has to be discarded.
async fn restore_container(shared: &Arc<Shared>, key: Key, dir: &ContainerDir) -> Result<bool> {
    let id = Arc::clone(&key.id);
    let record = dir.record()?;
    let init = dir.process(INIT);
    if was_announced(shared, &id, &record, EventKind::Exit, INIT) {
        // Announced, but not removed any more.
        return dir.remove().map(|()| true);
    }
    if !init.is_announced() && !was_announced(shared, &id, &record, EventKind::StartContainer, "") {
        warn!(%id, "removing a container that was never started");
        return Ok(false);
    }
    init.mark_announced();
    for (pid, retired) in retired_processes(dir) {
        announce_gone_process(shared, &id, &pid, &retired);
        retired.remove()?;
    }
    let container = Container::new(key.clone(), dir.clone(), record.clone(), runtime(&record));
    if let Some(host) = init.host_process().filter(HostProcess::is_alive) {
        container.set_init(host);
    }
    let shim = match shims::reconnect(dir.path()) {
        Some(connected) => Some(ShimClient::new(connected, key.clone(), shared.notices.clone())?),
        None => None,
    };
    if let Some(shim) = &shim {
        container.set_shim(shim.clone());
    }
    // Before anybody can ask for the container: who does waits until it is settled what became of an earlier request.
    let changing = Arc::clone(&container.changing).lock_owned().await;
    let adopted = Adopted { container: Arc::clone(&container), processes: processes(shared, &id, dir) };
    let pids: Vec<String> = adopted.processes.iter().map(|(pid, ..)| pid.clone()).collect();
    let (done, adopting) = oneshot::channel();
    shared.internal.send(Internal::Adopt { adopted, done }).await.map_err(|_| Error::Closing)?;
    adopting.await.map_err(|_| Error::Closing)?;
    let Some(shim) = shim else {
        checkpoint::recover(dir, DUMP_END_PATIENCE, container.init()).await;
        drop(changing);
        return notify(shared, &key, Notice::Gone).await.map(|()| true);
    };
    start::watch_memory(shared, &container);
    let (settling, settlers_shim) = (Arc::clone(&container), shim.clone());
    tokio::spawn(async move {
        let _changing = changing;
        // Nothing goes on without the shim.
        let recover = |patience| checkpoint::recover(&settling.dir, patience, settling.init());
        tokio::select! {
            () = recover(DUMP_PATIENCE) => {}
            () = settlers_shim.ended() => recover(DUMP_END_PATIENCE).await,
        }
    });
    info!(%id, "took over a running container");
    let (asking, dir) = (Arc::clone(shared), dir.clone());
    let mut telling = tokio::spawn(async move { tell_exits(&asking, &key, &shim, &dir, &pids).await });
    // A shim that does not answer (stopped, or starved) must not keep everybody from all the other containers.
    match tokio::time::timeout(SHIM_PATIENCE, &mut telling).await {
        Ok(told) => told.unwrap_or(Err(Error::Closing))?,
        Err(_) => warn!(%id, "a shim does not answer yet"),
    }
    Ok(true)
}

/// Announces the exits that came before. From here on the shim tells of every exit; what it told before is in its answer or
/// in files.
async fn tell_exits(shared: &Shared, key: &Key, shim: &ShimClient, dir: &ContainerDir, pids: &[String]) -> Result<()> {
    let known = shim.processes().await.unwrap_or_default();
    let exit_of = |pid: &String| {
        let told = known.iter().find(|p| p.process == *pid).and_then(|p| p.exit.clone());
        told.or_else(|| {
            let status = dir.process(pid).exit_status()?;
            Some(Exit { process: pid.clone(), status: u8::try_from(status).unwrap_or(u8::MAX), timestamp_ns: 0 })
        })
    };
    // `init` sorts anywhere; it has to come last.
    let (last, first): (Vec<_>, Vec<_>) = pids.iter().partition(|pid| *pid == INIT);
    for exit in first.into_iter().filter_map(exit_of) {
        notify(shared, key, Notice::Exit(exit)).await?;
    }
    // While the shim lives it has not finished with `init`, whatever is in the file.
    let init_exit = last.first().and_then(|_| known.iter().find(|p| p.process == INIT)?.exit.clone());
    if let Some(exit) = init_exit {
        notify(shared, key, Notice::Exit(exit)).await?;
    }
    if shim.is_gone() {
        notify(shared, key, Notice::Gone).await?;
    }
    Ok(())
}

async fn notify(shared: &Shared, key: &Key, notice: Notice) -> Result<()> {
    shared.notices.send((key.clone(), notice)).await.map_err(|_| Error::Closing)
}

/// The container's processes. One that was made while nobody was there to announce it is announced now; one that was only
/// about to be made is removed.
fn processes(shared: &Shared, id: &str, dir: &ContainerDir) -> Vec<(String, types::Process, Option<HostProcess>)> {
    let mut found = Vec::new();
    for pid in dir.processes() {
        let process = dir.process(&pid);
        let host = process.host_process();
        let Ok(record) = process.record() else { continue };
        let exists = host.is_some() || process.exit_status().is_some();
        if pid != INIT && !exists {
            if let Err(error) = process.remove() {
                warn!(%error, id, pid, "cannot remove the state of a process that was not started");
            }
            continue;
        }
        let announced = || shared.hub.happened_since(record.created, &EventKind::StartProcess, id, &pid);
        if pid != INIT && !process.is_announced() && !announced() {
            shared.hub.publish(EventKind::StartProcess, id, &pid, 0);
            process.mark_announced();
        }
        let system_pid = host.map_or(0, |host| host.pid.unsigned_abs());
        found.push((pid.clone(), record.to_api(&pid, system_pid), host));
    }
    found
}

fn was_announced(shared: &Shared, id: &str, record: &ContainerRecord, kind: EventKind, pid: &str) -> bool {
    shared.hub.happened_since(record.created, &kind, id, pid)
}

/// The runtime of a container, even if it is not installed any more.
fn runtime(record: &ContainerRecord) -> Runtime {
    Runtime::find(&record.runtime, &record.runtime_args).unwrap_or_else(|error| {
        warn!(%error, "the runtime of a running container is gone");
        Runtime { path: PathBuf::from(&record.runtime), args: record.runtime_args.clone() }
    })
}

/// A container that had ended: announces what was not announced yet.
fn announce_gone(shared: &Shared, id: &str, dir: &ContainerDir) {
    let init = dir.process(INIT);
    let announced = match dir.record() {
        Ok(record) => init.is_announced() || was_announced(shared, id, &record, EventKind::StartContainer, ""),
        Err(_) => false,
    };
    if announced {
        for (pid, retired) in retired_processes(dir) {
            announce_gone_process(shared, id, &pid, &retired);
        }
        for pid in dir.processes().into_iter().filter(|pid| pid != INIT) {
            announce_gone_process(shared, id, &pid, &dir.process(&pid));
        }
        announce_gone_process(shared, id, INIT, &init);
    }
    if let Err(error) = dir.remove() {
        warn!(%error, id, "cannot remove the state of a container that has ended");
    }
}

fn announce_gone_process(shared: &Shared, id: &str, pid: &str, dir: &ProcessDir) {
    let Ok(record) = dir.record() else { return };
    let happened = |kind| shared.hub.happened_since(record.created, &kind, id, pid);
    let started = pid == INIT || dir.is_announced() || happened(EventKind::StartProcess);
    if started && !happened(EventKind::Exit) {
        let (status, _) = exits::orphan_status(dir);
        let reason = exits::runtimes_reason(dir).unwrap_or_default();
        shared.hub.publish_end(EventKind::Exit, id, pid, status, reason);
    }
}

/// Removes a container that nobody was told of.
async fn discard(shared: &Shared, id: &str, dir: &ContainerDir) {
    let shim = shims::reconnect(dir.path());
    let init = dir.process(INIT);
    if shim.is_some() && init.path().exists() {
        // The runtime may be at work; killed now, it would leave what nobody finds again.
        let _ = tokio::time::timeout(CREATE_PATIENCE, appear(&init.path().join("pid"))).await;
    }
    let host = init.host_process();
    // The runtime is only ever called with the process's directory there.
    let may_exist = shim.is_some() || init.path().exists();
    if let Some(connected) = shim {
        let key = Key { id: id.into(), generation: 0 };
        if let Ok(shim) = ShimClient::new(connected, key, shared.notices.clone()) {
            shim.kill();
            shim.finish(SHIM_PATIENCE).await;
        }
    }
    if let Some(host) = host {
        let _ = host.signal(Signal::KILL);
    }
    if may_exist {
        let record = dir.record();
        let runtime = match &record {
            Ok(record) => runtime(record),
            Err(_) => {
                let path = PathBuf::from(&shared.config.runtime);
                Runtime { path, args: shared.config.runtime_args.clone() }
            }
        };
        let bundle = record.ok().map(|record| dir.runtime_bundle(&record.bundle));
        exits::remove_remains(&runtime, id, bundle).await;
    }
    if let Err(error) = dir.remove() {
        warn!(%error, id, "cannot remove the state of a container");
    }
}
