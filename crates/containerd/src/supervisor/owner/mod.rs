//! The table of containers and the task that owns it: what clients ask for. What has happened is in `happenings.rs`.

mod happenings;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use containerd_api::types;
use shim::protocol::Call;
use tokio::sync::mpsc;

use super::container::Container;
use super::exits::Cause;
use super::{Internal, Reply, Shared, Task, checkpoint, exec, start, update};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::metrics::Metrics;
use crate::process::HostProcess;
use crate::shims::{Key, Notice};
use crate::statedir::INIT;
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
    /// Of little use to clients any more, but its id is not free yet.
    Ending(Arc<Container>),
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
            Task::DeleteCheckpoint(request, reply) => match self.running_or_ending(&request.id) {
                Ok(container) => answer(reply, async move {
                    checkpoint::delete(&container, request).await?;
                    Ok(types::DeleteCheckpointResponse {})
                }),
                Err(error) => refuse(reply, error),
            },
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

    /// The container, also while it is being settled what is left of it: a checkpoint that it ended with, for one.
    fn running_or_ending(&self, id: &str) -> Result<Arc<Container>> {
        match self.table.get(id) {
            Some(Entry { phase: Phase::Running(container) | Phase::Ending(container), .. }) => {
                Ok(Arc::clone(container))
            }
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

fn answer<T: Send + 'static>(reply: Reply<T>, work: impl Future<Output = Result<T>> + Send + 'static) {
    tokio::spawn(async move {
        // Whoever asked may have gone.
        let _ = reply.send(work.await);
    });
}

fn refuse<T>(reply: Reply<T>, error: Error) {
    let _ = reply.send(Err(error));
}
