//! The register of handlers by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;

use crate::context::Context;
use crate::error::{Error, Failure, Result};
use crate::job::JobBuilder;
use crate::shutdown::Callbacks;
use crate::table::{JobInfo, Table};

/// A handler: an async function of the job's context.
pub(crate) type Handler = Arc<dyn Fn(Context) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// The register of handlers, and what runs. Cheap to clone; all clones are the same engine.
#[derive(Clone, Default)]
pub struct Engine(Arc<Inner>);

#[derive(Default)]
struct Inner {
    handlers: Mutex<BTreeMap<String, Handler>>,
    table: Table,
    callbacks: Callbacks,
}

impl Engine {
    /// An engine without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a handler. A name has one.
    pub fn register<F, R>(&self, name: &str, handler: F) -> Result<()>
    where
        F: Fn(Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let mut handlers = self.handlers();
        if handlers.contains_key(name) {
            return Err(Error::Registered(name.to_owned()));
        }
        handlers.insert(name.to_owned(), Arc::new(move |context| Box::pin(handler(context))));
        Ok(())
    }

    /// The registered names, sorted.
    pub fn commands(&self) -> Vec<String> {
        self.handlers().keys().cloned().collect()
    }

    /// Prepares a job.
    pub fn job(&self, name: &str) -> JobBuilder {
        JobBuilder::new(self.clone(), name.to_owned())
    }

    /// What runs now, oldest first.
    pub fn jobs(&self) -> Vec<JobInfo> {
        self.table().list()
    }

    /// Tells a running job to stop; false when there is none with that number.
    pub fn cancel(&self, id: u64) -> bool {
        let context = self.table().get(id);
        context.inspect(|context| context.cancel_token().cancel()).is_some()
    }

    /// A running job's context, to listen to its progress.
    pub fn running(&self, id: u64) -> Option<Context> {
        self.table().get(id)
    }

    /// To be called at shutdown, at the same time as the others, when no job runs any more.
    pub fn on_shutdown<R>(&self, name: &str, callback: impl FnOnce() -> R + Send + 'static)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        self.0.callbacks.add(name, async move { callback().await });
    }

    /// Refuses new jobs, waits for the running ones (at most [`crate::JOB_LIMIT`], then they are told to stop), runs the
    /// shutdown callbacks (at most [`crate::CALLBACK_LIMIT`]). A second call waits for the first.
    pub async fn shutdown(&self) {
        self.0.callbacks.shutdown(self.table()).await;
    }

    /// Whether new jobs are refused.
    pub fn is_shutdown(&self) -> bool {
        self.table().is_closed()
    }

    pub(crate) fn handler(&self, name: &str) -> Option<Handler> {
        self.handlers().get(name).cloned()
    }

    pub(crate) fn table(&self) -> &Table {
        &self.0.table
    }

    fn handlers(&self) -> MutexGuard<'_, BTreeMap<String, Handler>> {
        // Nothing under the lock can panic halfway.
        self.0.handlers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("commands", &self.commands()).field("table", self.table()).finish()
    }
}
