//! The end of an engine.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::sync::Mutex as AsyncMutex;

use crate::table::Table;

/// How long a shutdown waits for running jobs.
pub const JOB_LIMIT: Duration = Duration::from_secs(5);
/// How long a shutdown waits for its callbacks.
pub const CALLBACK_LIMIT: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Callbacks {
    waiting: Mutex<Vec<(String, BoxFuture<'static, ()>)>>,
    running: AsyncMutex<()>,
}

impl Callbacks {
    pub fn add(&self, name: &str, callback: impl Future<Output = ()> + Send + 'static) {
        let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        waiting.push((name.to_owned(), Box::pin(callback)));
    }

    pub async fn shutdown(&self, table: &Table) {
        let _only_one = self.running.lock().await;
        if !table.close() {
            return;
        }
        if tokio::time::timeout(JOB_LIMIT, table.drained()).await.is_err() {
            for job in table.list().iter().filter(|job| job.foreground) {
                tracing::warn!(job = job.name, id = job.id, "the job still runs at shutdown and is told to stop");
            }
        }
        table.cancel_all();
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        // Tasks of their own: one that blocks or panics does not take the others with it.
        let tasks = waiting.into_iter().map(|(name, callback)| async move {
            match tokio::time::timeout(CALLBACK_LIMIT, tokio::spawn(callback)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(callback = name, %error, "a shutdown callback failed"),
                Err(_) => tracing::error!(callback = name, "a shutdown callback did not end in time"),
            }
        });
        join_all(tasks).await;
    }
}
