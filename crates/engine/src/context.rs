//! What a job knows of itself while it runs.

use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::env::Env;

/// Progress lines that a slow listener may lag behind before it loses the oldest.
const PROGRESS_BACKLOG: usize = 64;

/// A running job, seen from inside. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    id: u64,
    name: String,
    args: Vec<String>,
    env: Env,
    cancel: CancellationToken,
    progress: Progress,
    engine: Engine,
}

/// What a job says about how far it is: the last word for who asks, every word for who listens.
#[derive(Debug, Clone)]
pub struct Progress {
    last: watch::Sender<Option<String>>,
    all: broadcast::Sender<String>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { last: watch::channel(None).0, all: broadcast::channel(PROGRESS_BACKLOG).0 }
    }

    /// The last thing that was said.
    pub fn last(&self) -> Option<String> {
        self.last.borrow().clone()
    }

    /// Everything that is said from now on.
    pub fn listen(&self) -> broadcast::Receiver<String> {
        self.all.subscribe()
    }

    fn say(&self, line: String) {
        self.last.send_replace(Some(line.clone()));
        // Nobody listening is no error.
        let _ = self.all.send(line);
    }
}

impl Context {
    pub(crate) fn new(
        id: u64,
        name: String,
        args: Vec<String>,
        env: Env,
        cancel: CancellationToken,
        engine: Engine,
    ) -> Self {
        Self(Arc::new(Inner { id, name, args, env, cancel, progress: Progress::new(), engine }))
    }

    /// Its number in this engine.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its arguments.
    pub fn args(&self) -> &[String] {
        &self.0.args
    }

    /// Its environment.
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// Where it runs; to run other jobs.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Fires when the job shall stop. A handler may look at it; one that does not is dropped at its next await.
    pub fn cancel_token(&self) -> &CancellationToken {
        &self.0.cancel
    }

    /// Says how far it is.
    pub fn progress(&self, line: impl Into<String>) {
        self.0.progress.say(line.into());
    }

    /// For others to read how far it is.
    pub fn progress_carrier(&self) -> &Progress {
        &self.0.progress
    }

    /// `name(arg, arg)`, as in the log.
    pub(crate) fn call(&self) -> String {
        format!("{}({})", self.0.name, self.0.args.join(", "))
    }
}
