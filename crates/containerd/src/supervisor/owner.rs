//! The table of containers and the task that owns it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use containerd_api::types;
use shim::protocol::{Call, Exit};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::container::Container;
use super::exits::{self, Cause, Ended};
use super::restore::Adopted;
use super::{Internal, Reply, Shared, Task, checkpoint, exec, start, update};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::metrics::Metrics;
use crate::process::HostProcess;
use crate::shims::{Key, Notice};
use crate::statedir::{INIT, ProcessDir};
use crate::{machine, names};

/// One line of the table.
#[derive(Debug)]
struct Entry {
    key: Key,
    phase: Phase,
    /// Empty while the container starts.
    processes: BTreeMap<String, Process>,
    /// The end of the first process or of the shim, heard of before the start was announced.
    early: Option<Cause>,
    early_status: Option<u32>,
}

#[derive(Debug)]
enum Phase {
    Starting,
    Running(Arc<Container>),
    /// Of no use to clients any more, but its id is not free yet.
    Ending,
}

#[derive(Debug)]
enum Process {
    /// The runtime is making it; with its exit, if that was heard of first.
    Starting {
        exit: Option<u32>,
    },
    Running {
        api: Box<types::Process>,
        host: Option<HostProcess>,
    },
}

/// The owner of the table.
#[derive(Debug)]
pub struct Owner {
    shared: Arc<Shared>,
    table: HashMap<Arc<str>, Entry>,
    generation: u64,
}

impl Owner {
    /// An empty table.
    pub fn new(shared: Arc<Shared>) -> Owner {
        Owner { shared, table: HashMap::new(), generation: 0 }
    }

    /// Works until the last client handle is gone.
    pub async fn run(
        mut self,
        mut tasks: mpsc::Receiver<Task>,
        mut notices: mpsc::Receiver<(Key, Notice)>,
        mut internal: mpsc::Receiver<Internal>,
    ) {
        loop {
            tokio::select! {
                // What has happened goes before what is wanted.
                biased;
                Some(message) = internal.recv() => self.internal(message),
                Some((key, notice)) = notices.recv() => self.notice(&key, notice),
                task = tasks.recv() => match task {
                    Some(task) => self.task(task),
                    None => break,
                },
            }
            let metrics = &self.shared.metrics;
            metrics.containers.store(self.table.len() as i64, Ordering::Relaxed);
        }
    }

    fn task(&mut self, task: Task) {
        self.shared.metrics.tasks.fetch_add(1, Ordering::Relaxed);
        match task {
            Task::Start(request, reply) => self.start(request, reply),
            Task::AddProcess(request, reply) => self.add_process(request, reply),
            Task::UpdateContainer(request, reply) => self.update_container(request, reply),
            Task::UpdateProcess(request, reply) => self.update_process(request, reply),
            Task::Signal(request, reply) => self.signal(request, reply),
            Task::CreateCheckpoint(request, reply) => {
                self.with_container(&request.id.clone(), reply, |shared, c| async move {
                    let stats = checkpoint::create(&shared, &c, request).await?;
                    Ok(types::CreateCheckpointResponse { stats })
                })
            }
            Task::DeleteCheckpoint(request, reply) => {
                self.with_container(&request.id.clone(), reply, |_, c| async move {
                    checkpoint::delete(&c, request).await?;
                    Ok(types::DeleteCheckpointResponse {})
                })
            }
            Task::ListCheckpoint(request, reply) => match self.running(&request.id) {
                Ok(container) => answer(reply, async move { checkpoint::list(&container, request).await }),
                Err(_) => refuse(reply, Error::NoSuchContainers),
            },
            Task::Stats(request, reply) => self.with_container(&request.id, reply, |shared, c| async move {
                let reading = tokio::task::spawn_blocking(move || {
                    let _time = Metrics::time(&shared.metrics.container_stats);
                    cgroup::stats(&c.cgroups())
                });
                reading.await.unwrap_or(Err(Error::Closing))
            }),
            Task::State(request, reply) => self.state(&request, reply),
        }
    }

    fn running(&self, id: &str) -> Result<Arc<Container>> {
        match self.table.get(id) {
            Some(Entry { phase: Phase::Running(container), .. }) => Ok(Arc::clone(container)),
            _ => Err(Error::ContainerNotFound),
        }
    }

    /// The container and its running process.
    fn running_process(&self, id: &str, pid: &str) -> Result<(Arc<Container>, Option<HostProcess>)> {
        let container = self.running(id)?;
        match self.table.get(id).and_then(|entry| entry.processes.get(pid)) {
            Some(Process::Running { host, .. }) => Ok((container, *host)),
            _ => Err(Error::ProcessNotFound),
        }
    }

    fn with_container<T, F>(&self, id: &str, reply: Reply<T>, work: impl FnOnce(Arc<Shared>, Arc<Container>) -> F)
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match self.running(id) {
            Ok(container) => answer(reply, work(Arc::clone(&self.shared), container)),
            Err(error) => refuse(reply, error),
        }
    }

    fn start(&mut self, request: types::CreateContainerRequest, mut reply: Reply<types::CreateContainerResponse>) {
        let state_dir = &self.shared.config.state_dir;
        if request.bundle_path.is_empty() {
            return refuse(reply, Error::EmptyBundlePath);
        }
        if let Err(error) = names::container_id(state_dir.path(), &request.id) {
            return refuse(reply, error);
        }
        if self.table.contains_key(request.id.as_str()) {
            return refuse(reply, Error::exists(state_dir.container(&request.id).path()));
        }
        self.generation += 1;
        let key = Key { id: request.id.as_str().into(), generation: self.generation };
        let entry = Entry {
            key: key.clone(),
            phase: Phase::Starting,
            processes: BTreeMap::new(),
            early: None,
            early_status: None,
        };
        self.table.insert(Arc::clone(&key.id), entry);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let result = match shared.start_workers.acquire().await {
                Ok(_worker) => start::start(&shared, key.clone(), request, &mut reply).await,
                Err(_) => Err(Error::Closing),
            };
            // The supervisor outlives its tasks but for the end of the program.
            let _ = shared.internal.send(Internal::Started { key, result, reply }).await;
        });
    }

    fn add_process(&mut self, request: types::AddProcessRequest, reply: Reply<types::AddProcessResponse>) {
        let container = match self.check_add(&request) {
            Ok(container) => container,
            Err(error) => return refuse(reply, error),
        };
        if let Some(entry) = self.table.get_mut(request.id.as_str()) {
            entry.processes.insert(request.pid.clone(), Process::Starting { exit: None });
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let (key, pid) = (container.key.clone(), request.pid.clone());
            let result = exec::add(&shared, &container, request).await;
            let _ = shared.internal.send(Internal::Added { key, pid, result, reply }).await;
        });
    }

    fn check_add(&self, request: &types::AddProcessRequest) -> Result<Arc<Container>> {
        if request.id.is_empty() {
            return Err(Error::EmptyContainerId);
        }
        if request.pid.is_empty() {
            return Err(Error::EmptyProcessId);
        }
        let container = self.running(&request.id)?;
        names::process_id(&request.pid)?;
        let known = self.table.get(request.id.as_str()).is_some_and(|e| e.processes.contains_key(&request.pid));
        if known || request.pid == INIT {
            return Err(Error::exists(container.dir.process(&request.pid).path()));
        }
        if request.args.is_empty() {
            return Err(Error::InvalidParameter("args are missing".into()));
        }
        Ok(container)
    }

    fn update_container(&self, request: types::UpdateContainerRequest, reply: Reply<types::UpdateContainerResponse>) {
        self.with_container(&request.id.clone(), reply, |shared, container| async move {
            match request.status.as_str() {
                "paused" | "running" => {
                    let freeze = request.status == "paused";
                    update::pause(&shared, &container, freeze).await?;
                    let kind = if freeze { EventKind::Pause } else { EventKind::Resume };
                    shared.hub.publish(kind, container.id(), "", 0);
                }
                "" => {
                    if let Some(resources) = &request.resources {
                        update::resources(&shared, &container, resources).await?;
                    }
                }
                _ => return Err(Error::UnknownStatus),
            }
            Ok(types::UpdateContainerResponse {})
        });
    }

    fn update_process(&self, request: types::UpdateProcessRequest, reply: Reply<types::UpdateProcessResponse>) {
        let container = match self.running_process(&request.id, &request.pid) {
            Ok((container, _)) => container,
            Err(error) => return refuse(reply, error),
        };
        answer(reply, async move {
            let process = request.pid;
            let size = |n: u32| u16::try_from(n).map_err(|_| Error::InvalidParameter(format!("{n} columns or rows")));
            let (width, height) = (size(request.width)?, size(request.height)?);
            if request.close_stdin {
                container.shim()?.call(Call::CloseStdin { process: process.clone() }).await?;
            }
            if width > 0 || height > 0 {
                container.shim()?.call(Call::Resize { process, width, height }).await?;
            }
            Ok(types::UpdateProcessResponse {})
        });
    }

    fn signal(&self, request: types::SignalRequest, reply: Reply<types::SignalResponse>) {
        let (container, host) = match self.running_process(&request.id, &request.pid) {
            Ok(found) => found,
            Err(error) => return refuse(reply, error),
        };
        answer(reply, async move {
            let gone = || Error::Signal(std::io::Error::from_raw_os_error(nix::libc::ESRCH));
            let host = host.ok_or_else(gone)?;
            container.signal(&request.pid, host, request.signal).await?;
            Ok(types::SignalResponse {})
        });
    }

    fn state(&self, request: &types::StateRequest, reply: Reply<types::StateResponse>) {
        if !request.id.is_empty() {
            if let Err(error) = self.running(&request.id) {
                return refuse(reply, error);
            }
        }
        let wanted = self.table.values().filter(|e| request.id.is_empty() || *e.key.id == *request.id);
        let found: Vec<_> = wanted
            .filter_map(|entry| match &entry.phase {
                Phase::Running(container) => Some((Arc::clone(container), entry.to_api(container))),
                _ => None,
            })
            .collect();
        answer(reply, async move {
            let reading = tokio::task::spawn_blocking(move || {
                let mut containers = Vec::with_capacity(found.len());
                for (container, mut api) in found {
                    api.pids = container.cgroups().pids().map_err(|e| Error::Pids(e.to_string()))?;
                    containers.push(api);
                }
                containers.sort_by(|a, b| a.id.cmp(&b.id));
                Ok(types::StateResponse { containers, machine: Some(machine::machine()?) })
            });
            reading.await.unwrap_or(Err(Error::Closing))
        });
    }

    fn internal(&mut self, message: Internal) {
        match message {
            Internal::Started { key, result, reply } => self.started(&key, result, reply),
            Internal::Added { key, pid, result, reply } => self.added(&key, &pid, result, reply),
            Internal::Ended { key, ended, reported } => self.ended(&key, ended, reported),
            Internal::Oom(key) => {
                if let Some(Entry { phase: Phase::Running(_) | Phase::Ending, .. }) = self.entry(&key) {
                    info!(id = %key.id, "a container is out of memory");
                    self.shared.hub.publish(EventKind::Oom, &key.id, "", 0);
                }
            }
            Internal::Adopt { adopted, done } => {
                self.adopt(adopted);
                // The restorer waits for it unless the program ends.
                let _ = done.send(());
            }
        }
    }

    fn entry(&mut self, key: &Key) -> Option<&mut Entry> {
        self.table.get_mut(&key.id).filter(|entry| entry.key == *key)
    }

    fn started(&mut self, key: &Key, result: Result<start::Started>, reply: Reply<types::CreateContainerResponse>) {
        let started = match result {
            Ok(started) => started,
            Err(error) => {
                debug!(id = %key.id, %error, "a container was not started");
                self.table.remove(&key.id);
                return refuse(reply, error);
            }
        };
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else { return refuse(reply, Error::Closing) };
        let start::Started { container, process, restore_stats } = started;
        let host = container.init();
        entry.processes.insert(INIT.to_owned(), Process::Running { api: Box::new(process), host });
        let api = entry.to_api(&container);
        entry.phase = Phase::Running(Arc::clone(&container));
        let early = entry.early.take();
        let status = entry.early_status;
        shared.hub.publish(EventKind::StartContainer, &key.id, "", 0);
        container.dir.process(INIT).mark_announced();
        // A client that has gone meanwhile sees the container in the next State.
        let _ = reply.send(Ok(types::CreateContainerResponse { container: Some(api), restore_stats }));
        if let Some(cause) = early {
            self.end(key, cause, status);
        }
    }

    fn added(&mut self, key: &Key, pid: &str, result: Result<exec::Added>, reply: Reply<types::AddProcessResponse>) {
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else {
            return refuse(reply, result.err().unwrap_or(Error::ContainerNotFound));
        };
        let early = match entry.processes.remove(pid) {
            Some(Process::Starting { exit }) => exit,
            _ => None,
        };
        let added = match result {
            Ok(added) => added,
            Err(error) => return refuse(reply, error),
        };
        let system_pid = added.process.system_pid;
        let process = Process::Running { api: Box::new(added.process), host: added.host };
        entry.processes.insert(pid.to_owned(), process);
        let dir = shared.config.state_dir.container(&key.id).process(pid);
        shared.hub.publish(EventKind::StartProcess, &key.id, pid, 0);
        dir.mark_announced();
        let _ = reply.send(Ok(types::AddProcessResponse { system_pid }));
        if let Some(status) = early {
            self.process_exited(key, pid, status);
        }
    }

    fn notice(&mut self, key: &Key, notice: Notice) {
        match notice {
            Notice::Exit(Exit { process, status, .. }) if process == INIT => {
                self.end(key, Cause::Reported, Some(u32::from(status)));
            }
            Notice::Exit(Exit { process, status, .. }) => self.process_exited(key, &process, u32::from(status)),
            Notice::Gone => self.end(key, Cause::Orphaned, None),
        }
    }

    /// A process that was added has ended.
    fn process_exited(&mut self, key: &Key, pid: &str, status: u32) {
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else { return };
        match entry.processes.get_mut(pid) {
            None => return,
            Some(Process::Starting { exit }) => {
                *exit = Some(status);
                return;
            }
            Some(Process::Running { .. }) => drop(entry.processes.remove(pid)),
        }
        let _time = Metrics::time(&shared.metrics.exit_process);
        let dir = shared.config.state_dir.container(&key.id).process(pid);
        announce_process_exit(&shared, &key.id, pid, status, &dir);
    }

    /// The first process has ended, or the shim has.
    fn end(&mut self, key: &Key, cause: Cause, status: Option<u32>) {
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else { return };
        let container = match &entry.phase {
            Phase::Running(container) => Arc::clone(container),
            Phase::Starting => {
                // A reported exit is followed by the end of the shim.
                entry.early.get_or_insert(cause);
                entry.early_status = entry.early_status.or(status);
                return;
            }
            Phase::Ending => return,
        };
        entry.phase = Phase::Ending;
        let processes = entry.processes.keys().cloned().collect();
        let key = key.clone();
        tokio::spawn(async move {
            let ended = exits::finish(&shared, &container, processes, cause).await;
            let _ = shared.internal.send(Internal::Ended { key, ended, reported: status }).await;
        });
    }

    /// Nothing is left of the container but to say so.
    fn ended(&mut self, key: &Key, ended: Ended, reported: Option<u32>) {
        if self.entry(key).is_none() {
            return;
        }
        let Some(entry) = self.table.remove(&key.id) else { return };
        let shared = &self.shared;
        let _time = Metrics::time(&shared.metrics.exit_process);
        for (pid, process) in &entry.processes {
            if pid == INIT || matches!(process, Process::Starting { .. }) {
                continue;
            }
            let status = ended.statuses.get(pid).copied().unwrap_or(exits::UNKNOWN_STATUS);
            shared.hub.publish(EventKind::Exit, &key.id, pid, status);
        }
        let status = exits::init_status(&ended, reported);
        info!(id = %key.id, status, "container ended");
        shared.hub.publish(EventKind::Exit, &key.id, INIT, status);
        if let Some(retired) = ended.retired {
            remove_later(move || retired.remove());
        }
    }

    /// Enters a container that was running before this program was started.
    fn adopt(&mut self, adopted: Adopted) {
        self.generation = self.generation.max(adopted.container.key.generation);
        let processes = adopted
            .processes
            .into_iter()
            .map(|(pid, api, host)| (pid, Process::Running { api: Box::new(api), host }))
            .collect();
        let key = adopted.container.key.clone();
        let entry = Entry {
            key: key.clone(),
            phase: Phase::Running(adopted.container),
            processes,
            early: None,
            early_status: None,
        };
        self.table.insert(key.id, entry);
    }
}

impl Entry {
    fn to_api(&self, container: &Container) -> types::Container {
        let process = |process: &Process| match process {
            Process::Running { api, .. } => Some((**api).clone()),
            Process::Starting { .. } => None,
        };
        types::Container {
            id: container.id().to_owned(),
            bundle_path: container.record.bundle.to_string_lossy().into_owned(),
            processes: self.processes.values().filter_map(process).collect(),
            // A paused container's status is "running", too; clients rely on it.
            status: "running".to_owned(),
            labels: container.record.labels.clone(),
            pids: Vec::new(),
            runtime: container.record.runtime.clone(),
        }
    }
}

/// Moves the process's directory aside, announces the exit, removes the directory: see [`exits`] for the order.
fn announce_process_exit(shared: &Shared, id: &str, pid: &str, status: u32, dir: &ProcessDir) {
    let retired = dir.retire();
    shared.hub.publish(EventKind::Exit, id, pid, status);
    if let Ok(retired) = retired {
        remove_later(move || retired.remove());
    }
}

fn remove_later(remove: impl FnOnce() -> Result<()> + Send + 'static) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = remove() {
            tracing::warn!(%error, "cannot remove the state of what has ended");
        }
    });
}

fn answer<T: Send + 'static>(reply: Reply<T>, work: impl Future<Output = Result<T>> + Send + 'static) {
    tokio::spawn(async move {
        // Whoever asked may have gone.
        let _ = reply.send(work.await);
    });
}

fn refuse<T>(reply: Reply<T>, error: Error) {
    let _ = reply.send(Err(error));
}
