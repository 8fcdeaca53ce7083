//! A container in memory: its record, and what exists only while dockerd lives.
//!
//! Reading never waits: [`Container::record`] hands out the present record as it is. Changing goes through
//! [`Container::change`], which stores first and shows afterwards. Operations that must not overlap (start, exit, remove,
//! checkpoint, …) hold [`Container::op`]; nobody holds it while waiting for the container's process.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::health::HealthState;
use super::record::Record;
use super::restart;
use super::stdio::Hub;
use crate::error::Result;
use crate::records::Records;

/// A container.
pub struct Container {
    /// Its id, which never changes.
    pub id: String,
    record: watch::Sender<Arc<Record>>,
    records: Records,
    /// Held by the one operation that changes it.
    pub op: tokio::sync::Mutex<()>,
    /// Its stdio, shared by the log and those who are attached.
    pub hub: Arc<Hub>,
    restart: Mutex<Restart>,
    copying: Mutex<Option<JoinHandle<()>>>,
    log: OnceLock<logs::Log>,
    /// What the health check knows.
    pub health: HealthState,
    /// Set when it is gone for good.
    pub removed: CancellationToken,
}

struct Restart {
    cancel: CancellationToken,
    wait: Duration,
}

impl Container {
    /// Takes a record into memory.
    pub fn new(record: Record, records: Records) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            record: watch::Sender::new(Arc::new(record)),
            records,
            op: tokio::sync::Mutex::new(()),
            hub: Arc::new(Hub::default()),
            restart: Mutex::new(Restart { cancel: CancellationToken::new(), wait: restart::FIRST_WAIT }),
            copying: Mutex::default(),
            log: OnceLock::new(),
            health: HealthState::default(),
            removed: CancellationToken::new(),
        })
    }

    /// The present record.
    pub fn record(&self) -> Arc<Record> {
        self.record.borrow().clone()
    }

    /// Follows the record's changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Record>> {
        self.record.subscribe()
    }

    /// Changes the record: computes the new one, stores it, shows it. If `edit` or the store fails, nothing changed.
    pub fn change(&self, edit: impl FnOnce(&mut Record) -> Result<()>) -> Result<Arc<Record>> {
        let mut outcome = Ok(());
        self.record.send_if_modified(|current| {
            let mut next = Record::clone(current);
            outcome = edit(&mut next).and_then(|()| self.records.put(&next));
            let changed = outcome.is_ok();
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
        outcome.map(|()| self.record())
    }

    /// Cancels a waiting restart, and lets the next one wait the shortest time.
    pub fn cancel_restart(&self) {
        let mut restart = self.restart.lock().unwrap_or_else(PoisonError::into_inner);
        restart.cancel.cancel();
        *restart = Restart { cancel: CancellationToken::new(), wait: restart::FIRST_WAIT };
    }

    /// How long to wait before the next restart of a container that ran so long, and what cancels the wait.
    pub fn next_restart(&self, ran: Duration) -> (Duration, CancellationToken) {
        let mut restart = self.restart.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = if ran >= restart::STAYED_UP { restart::FIRST_WAIT } else { restart.wait };
        restart.wait = restart::next_wait(wait, ran);
        (wait, restart.cancel.clone())
    }

    /// Keeps the task that copies the present run's output.
    pub fn set_copying(&self, task: JoinHandle<()>) {
        *self.copying.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// The task that copies the present run's output.
    pub fn take_copying(&self) -> Option<JoinHandle<()>> {
        self.copying.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Its log, opened once.
    pub fn log(&self, open: impl FnOnce() -> Result<logs::Log>) -> Result<logs::Log> {
        if let Some(log) = self.log.get() {
            return Ok(log.clone());
        }
        let log = open()?;
        Ok(self.log.get_or_init(|| log).clone())
    }

    /// Its log, if it was opened.
    pub fn opened_log(&self) -> Option<&logs::Log> {
        self.log.get()
    }
}
