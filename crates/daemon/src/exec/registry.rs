//! The exec'd processes there are, and were until lately. They do not outlive dockerd, as in Docker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::types::ExecCreateRequest;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::containers::stdio::Hub;
use crate::error::{Error, Result};

/// How long an ended one can be asked about.
const KEPT: Duration = Duration::from_secs(300);

/// One of them.
pub struct Exec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its container.
    pub container_id: String,
    /// What was asked for.
    pub config: ExecCreateRequest,
    /// Its stdio.
    pub hub: Arc<Hub>,
    /// Where it is in its life.
    pub state: watch::Sender<ExecState>,
    /// Copies its output.
    pub copying: Mutex<Option<JoinHandle<()>>>,
}

/// Where an exec'd process is in its life.
#[derive(Debug, Clone, Copy)]
pub enum ExecState {
    /// Asked for.
    Created,
    /// On its way; only one may start it.
    Starting,
    /// It lives.
    Running {
        /// Its host pid.
        pid: i32,
    },
    /// It ended.
    Exited {
        /// Its status.
        code: i64,
        /// When.
        at: Instant,
    },
}

impl Exec {
    /// The program and its arguments, for people.
    pub fn command(&self) -> String {
        // Docker has a blank after the program even if nothing follows.
        let (program, args) = self.config.cmd.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
        format!("{program} {}", args.join(" "))
    }

    /// Its exit code, once it has one.
    pub fn exit_code(&self) -> Option<i64> {
        match *self.state.borrow() {
            ExecState::Exited { code, .. } => Some(code),
            _ => None,
        }
    }

    /// It ended; told once.
    pub fn exited(&self, code: i64) -> bool {
        self.state.send_if_modified(|state| {
            let first = !matches!(state, ExecState::Exited { .. });
            if first {
                *state = ExecState::Exited { code, at: Instant::now() };
            }
            first
        })
    }
}

/// All of them.
#[derive(Default)]
pub struct Execs {
    all: Mutex<HashMap<String, Arc<Exec>>>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, and forgets those that ended long ago.
    pub fn add(&self, exec: Arc<Exec>) {
        let mut all = self.lock();
        all.retain(|_, e| !matches!(*e.state.borrow(), ExecState::Exited { at, .. } if at.elapsed() > KEPT));
        all.insert(exec.id.clone(), exec);
    }

    /// By id, or the start of it.
    pub fn get(&self, id: &str) -> Result<Arc<Exec>> {
        let all = self.lock();
        let found = all.get(id).cloned().or_else(|| {
            let mut matching = all.values().filter(|e| !id.is_empty() && e.id.starts_with(id));
            matching.next().filter(|_| matching.next().is_none()).cloned()
        });
        found.ok_or_else(|| Error::NotFound(format!("No such exec instance: {id}")))
    }

    /// Waits for the end of one.
    pub async fn wait(&self, id: &str) -> Result<i64> {
        let exec = self.get(id)?;
        let mut watch = exec.state.subscribe();
        let ended = watch.wait_for(|s| matches!(s, ExecState::Exited { .. })).await;
        match ended.map(|s| *s) {
            Ok(ExecState::Exited { code, .. }) => Ok(code),
            _ => Err(Error::System(format!("exec {id} is gone"))),
        }
    }

    fn of(&self, container_id: &str) -> Vec<Arc<Exec>> {
        self.lock().values().filter(|e| e.container_id == container_id).cloned().collect()
    }

    /// The ids of a container's living ones.
    pub fn ids_of(&self, container_id: &str) -> Vec<String> {
        let lives = |e: &Arc<Exec>| e.exit_code().is_none();
        let mut ids: Vec<String> = self.of(container_id).into_iter().filter(lives).map(|e| e.id.clone()).collect();
        ids.sort();
        ids
    }

    /// The running ones of a container: ids and commands.
    pub fn running(&self, container_id: &str) -> Vec<(String, String)> {
        let lives = |e: &Arc<Exec>| matches!(*e.state.borrow(), ExecState::Starting | ExecState::Running { .. });
        self.of(container_id).into_iter().filter(lives).map(|e| (e.id.clone(), e.command())).collect()
    }

    /// A container ended: so did its execs.
    pub fn ended(&self, container_id: &str) -> Vec<Arc<Exec>> {
        self.of(container_id)
    }

    /// Forgets those of a container.
    pub fn forget(&self, container_id: &str) {
        self.lock().retain(|_, e| e.container_id != container_id);
    }

    /// Forgets one.
    pub fn remove(&self, id: &str) {
        self.lock().remove(id);
    }
}
