//! Preparing a job, running it, and its two lines in the log.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use errors::Kinded;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::engine::Engine;
use crate::env::Env;
use crate::error::{Error, Failure, Result};
use crate::table::Status;

/// A job that has not begun. Running takes it: no job runs twice.
#[must_use = "a job does nothing until it is run"]
pub struct JobBuilder {
    engine: Engine,
    name: String,
    args: Vec<String>,
    env: Env,
    cancel: CancellationToken,
    foreground: bool,
}

/// A job that runs in a task of its own.
pub struct Running {
    context: Context,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl JobBuilder {
    pub(crate) fn new(engine: Engine, name: String) -> Self {
        let cancel = CancellationToken::new();
        Self { engine, name, args: Vec::new(), env: Env::default(), cancel, foreground: true }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.set(name, value);
        self
    }

    /// Is told to stop when this token fires too.
    pub fn cancelled_by(mut self, token: &CancellationToken) -> Self {
        self.cancel = token.child_token();
        self
    }

    /// A job that runs as long as the engine does (such as serving the API): a shutdown does not wait for it.
    pub fn background(mut self) -> Self {
        self.foreground = false;
        self
    }

    /// Runs the registered handler to its end. When the future that this returns is dropped, the job ends too.
    pub async fn run(self) -> Result<()> {
        let Some(handler) = self.engine.handler(&self.name) else { return Err(self.not_found()) };
        self.run_with(move |context| handler(context)).await
    }

    /// Runs `work` under this job's name, arguments and environment; no handler is looked up.
    pub async fn run_with<T, R>(self, work: impl FnOnce(Context) -> R) -> Result<T>
    where
        R: Future<Output = Result<T, Failure>>,
    {
        let begun = self.begin()?;
        let context = begun.context.clone();
        // Made inside, so that a panic in making the future is caught as well.
        let work = AssertUnwindSafe(async { work(context.clone()).await }).catch_unwind();
        let outcome = tokio::select! {
            // What has ended has ended: a token that fires at the same moment does not undo it.
            biased;
            done = work => match done {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(_)) if context.cancel_token().is_cancelled() => Err(Error::Cancelled(context.name().to_owned())),
                Ok(Err(failure)) => Err(Error::Failed { job: context.name().to_owned(), failure }),
                Err(panic) => Err(Error::Panicked(context.name().to_owned(), panic_text(&*panic))),
            },
            () = context.cancel_token().cancelled() => Err(Error::Cancelled(context.name().to_owned())),
        };
        begun.end(outcome.as_ref().err());
        outcome
    }

    /// Runs the registered handler in a task of its own.
    pub fn spawn(self) -> Result<Running> {
        let Some(handler) = self.engine.handler(&self.name) else { return Err(self.not_found()) };
        if self.engine.is_shutdown() {
            return Err(Error::Shutdown);
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let task = self.run_with(move |context| {
            let _ = sender.send(context.clone());
            handler(context)
        });
        let mut task = Box::pin(task);
        // The first poll begins the job: after this it is listed.
        let first = task.as_mut().now_or_never();
        match (receiver.try_recv(), first) {
            (Ok(context), Some(done)) => Ok(Running { context, task: tokio::spawn(async { done }) }),
            (Ok(context), None) => Ok(Running { context, task: tokio::spawn(task) }),
            (Err(_), Some(Err(error))) => Err(error),
            (Err(_), _) => Err(Error::Shutdown),
        }
    }

    fn not_found(&self) -> Error {
        tracing::error!("{}: command not found", self.name);
        Error::NotFound(self.name.clone())
    }

    fn begin(self) -> Result<Begun> {
        let engine = self.engine.clone();
        let added = self
            .engine
            .table()
            .add(self.foreground, |id| Context::new(id, self.name, self.args, self.env, self.cancel, engine.clone()));
        let context = added.ok_or(Error::Shutdown)?;
        tracing::info!(id = context.id(), "+job {}", context.call());
        Ok(Begun { context, since: Instant::now(), ended: false })
    }
}

impl Running {
    /// Its number, for [`Engine::cancel`].
    pub fn id(&self) -> u64 {
        self.context.id()
    }

    /// Its context: progress, cancelling.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Waits for its end. Dropping the future does not end the job.
    pub async fn wait(self) -> Result<()> {
        match self.task.await {
            Ok(outcome) => outcome,
            // The runtime is going down.
            Err(_) => Err(Error::Cancelled(self.context.name().to_owned())),
        }
    }
}

/// A job that has begun. However it goes away, it leaves the table and its end is logged.
struct Begun {
    context: Context,
    since: Instant,
    ended: bool,
}

impl Begun {
    fn end(mut self, error: Option<&Error>) {
        self.log_end(Status(error.map_or(0, Error::status)), error);
    }

    fn log_end(&mut self, status: Status, error: Option<&Error>) {
        self.ended = true;
        let (id, milliseconds) = (self.context.id(), self.since.elapsed().as_millis() as u64);
        match error {
            None => tracing::info!(id, milliseconds, "-job {} = {status}", self.context.call()),
            Some(error) => {
                tracing::info!(id, milliseconds, %error, kind = ?error.kind(), "-job {} = {status}", self.context.call());
            }
        }
        self.context.engine().table().remove(id);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.ended {
            let error = Error::Cancelled(self.context.name().to_owned());
            self.log_end(Status(error.status()), Some(&error));
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".to_owned())
}
