//! The supervisor: the one owner of the table of containers.
//!
//! It is a single task that takes typed messages, decides, and hands everything that takes time to a task of its own:
//! starts to one of ten workers, everything else to a task per call. It never waits for a container, a runtime or a disk
//! longer than a rename takes, so that one container's trouble delays no call about another. State changes of a container
//! happen here and nowhere else.

mod checkpoint;
mod container;
mod exec;
mod exits;
pub(crate) mod fuzz;
mod owner;
mod restore;
mod start;
mod update;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use containerd_api::types;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use checkpoint::Record as CheckpointRecord;

use crate::activity::Activity;
use crate::error::{Error, Result};
use crate::events::Hub;
use crate::metrics::Metrics;
use crate::shims::{Key, NoticeQueue};
use crate::statedir::StateDir;

/// Messages that may wait for the supervisor.
const QUEUE: usize = 2048;
/// How many containers may be starting at once.
const START_WORKERS: usize = 10;

/// What the supervisor works with.
#[derive(Debug)]
pub struct Config {
    /// Where it keeps what it needs to know after a restart.
    pub state_dir: StateDir,
    /// The runtime of containers that name none.
    pub runtime: String,
    /// Its global arguments.
    pub runtime_args: Vec<String>,
    /// The shim.
    pub shim: String,
    /// How long a start may take.
    pub start_timeout: Duration,
}

/// What every task of the supervisor shares.
#[derive(Debug)]
pub struct Shared {
    /// Settings.
    pub config: Config,
    /// Where events go.
    pub hub: Arc<Hub>,
    /// Measurements.
    pub metrics: Arc<Metrics>,
    /// What is going on.
    pub activity: Activity,
    notices: NoticeQueue,
    internal: mpsc::Sender<Internal>,
    start_workers: Semaphore,
}

type Reply<T> = oneshot::Sender<Result<T>>;

/// What clients may ask for.
#[derive(Debug)]
pub enum Task {
    /// Start or restore a container.
    Start(types::CreateContainerRequest, Reply<types::CreateContainerResponse>),
    /// Add a process.
    AddProcess(types::AddProcessRequest, Reply<types::AddProcessResponse>),
    /// Pause, resume, change limits.
    UpdateContainer(types::UpdateContainerRequest, Reply<types::UpdateContainerResponse>),
    /// Resize a terminal, close a standard input.
    UpdateProcess(types::UpdateProcessRequest, Reply<types::UpdateProcessResponse>),
    /// Signal a process.
    Signal(types::SignalRequest, Reply<types::SignalResponse>),
    /// Make a checkpoint.
    CreateCheckpoint(types::CreateCheckpointRequest, Reply<types::CreateCheckpointResponse>),
    /// Remove a checkpoint.
    DeleteCheckpoint(types::DeleteCheckpointRequest, Reply<types::DeleteCheckpointResponse>),
    /// List checkpoints.
    ListCheckpoint(types::ListCheckpointRequest, Reply<types::ListCheckpointResponse>),
    /// Measure a container.
    Stats(types::StatsRequest, Reply<types::StatsResponse>),
    /// Tell what runs.
    State(types::StateRequest, Reply<types::StateResponse>),
}

/// What the supervisor's own tasks report to it.
#[derive(Debug)]
enum Internal {
    Started { key: Key, result: Result<start::Started>, reply: Reply<types::CreateContainerResponse> },
    Added { key: Key, pid: String, result: Result<exec::Added>, reply: Reply<types::AddProcessResponse> },
    Ended { key: Key, ended: exits::Ended, reported: Option<u32> },
    Oom(Key),
    Adopt { adopted: restore::Adopted, done: oneshot::Sender<()> },
}

/// The way to the supervisor.
#[derive(Debug, Clone)]
pub struct Supervisor {
    tasks: mpsc::Sender<Task>,
}

impl Supervisor {
    /// Starts the supervisor and adopts what an earlier one has left running. When this returns, every container that
    /// survived is in the table again, and every exit that was missed is announced or about to be.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub async fn start(config: Config, hub: Arc<Hub>, metrics: Arc<Metrics>, activity: Activity) -> Result<Supervisor> {
        let (tasks, task_receiver) = mpsc::channel(QUEUE);
        let (notices, notice_receiver) = mpsc::channel(QUEUE);
        let (internal, internal_receiver) = mpsc::channel(QUEUE);
        let start_workers = Semaphore::new(START_WORKERS);
        let shared = Arc::new(Shared { config, hub, metrics, activity, notices, internal, start_workers });
        let owner = owner::Owner::new(Arc::clone(&shared));
        tokio::spawn(owner.run(task_receiver, notice_receiver, internal_receiver));
        restore::restore(&shared).await?;
        Ok(Supervisor { tasks })
    }

    /// Hands a task over and waits for what comes of it.
    ///
    /// # Errors
    /// What the task ends with.
    pub async fn ask<T>(&self, task: impl FnOnce(Reply<T>) -> Task) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.tasks.send(task(reply)).await.map_err(|_| Error::Closing)?;
        answer.await.map_err(|_| Error::Closing)?
    }
}
