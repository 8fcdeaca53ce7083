//! What runs now.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

use crate::context::Context;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(
    /// 0 is good, as with a Unix process.
    pub i32,
);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("OK (0)"),
            status => write!(f, "ERR ({status})"),
        }
    }
}

/// One running job, for a list.
#[derive(Debug, Clone, Serialize)]
pub struct JobInfo {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// When it began.
    pub started: SystemTime,
    /// What it said last.
    pub progress: Option<String>,
    /// Shutdown waits for it.
    pub foreground: bool,
}

/// The table of running jobs.
#[derive(Debug)]
pub struct Table {
    rows: Mutex<Rows>,
    /// How many jobs run that a shutdown waits for.
    foreground: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Rows {
    last_id: u64,
    closed: bool,
    running: BTreeMap<u64, Row>,
}

struct Row {
    context: Context,
    started: SystemTime,
    foreground: bool,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.context.call())
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { rows: Mutex::default(), foreground: watch::channel(0).0 }
    }
}

impl Table {
    /// Adds a job; `None` after [`Table::close`].
    pub fn add(&self, foreground: bool, make: impl FnOnce(u64) -> Context) -> Option<Context> {
        let mut rows = self.lock();
        if rows.closed {
            return None;
        }
        rows.last_id += 1;
        let id = rows.last_id;
        let context = make(id);
        rows.running.insert(id, Row { context: context.clone(), started: SystemTime::now(), foreground });
        if foreground {
            self.foreground.send_modify(|count| *count += 1);
        }
        Some(context)
    }

    /// Takes a job out.
    pub fn remove(&self, id: u64) {
        let row = self.lock().running.remove(&id);
        if row.is_some_and(|row| row.foreground) {
            self.foreground.send_modify(|count| *count -= 1);
        }
    }

    /// No more jobs; false when that was so before.
    pub fn close(&self) -> bool {
        !std::mem::replace(&mut self.lock().closed, true)
    }

    /// Whether jobs are refused.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until no foreground job runs.
    pub async fn drained(&self) {
        // The sender is held by `self`: this cannot fail.
        let _ = self.foreground.subscribe().wait_for(|count| *count == 0).await;
    }

    /// What runs, oldest first.
    pub fn list(&self) -> Vec<JobInfo> {
        let info = |(id, row): (&u64, &Row)| JobInfo {
            id: *id,
            name: row.context.name().to_owned(),
            args: row.context.args().to_vec(),
            started: row.started,
            progress: row.context.progress_carrier().last(),
            foreground: row.foreground,
        };
        self.lock().running.iter().map(info).collect()
    }

    /// A running job.
    pub fn get(&self, id: u64) -> Option<Context> {
        self.lock().running.get(&id).map(|row| row.context.clone())
    }

    /// Tells every job to stop.
    pub fn cancel_all(&self) {
        let contexts: Vec<Context> = self.lock().running.values().map(|row| row.context.clone()).collect();
        contexts.iter().for_each(|context| context.cancel_token().cancel());
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        // Nothing under the lock leaves the rows half-changed.
        self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
