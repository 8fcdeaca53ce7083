//! The life of a container: which states there are, and which may follow which.
//!
//! Only this file changes a [`State`]. A transition that Docker does not allow returns its words as a conflict.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// Made, never started.
    Created {
        /// Why the only start so far failed, with the exit code that says so.
        #[serde(default)]
        failed: Option<StartFailure>,
    },
    /// Its process lives.
    Running(Running),
    /// It ended and the restart policy will start it again.
    Restarting(Exited),
    /// It ended.
    Exited(Exited),
    /// It is being removed.
    Removing(Exited),
    /// Its removal failed half-way; only a removal may follow.
    Dead(Exited),
}

/// A start that came to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartFailure {
    /// 126, 127 or 128.
    pub exit_code: i64,
    /// What went wrong.
    pub error: String,
}

/// A living container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// The host pid of its first process.
    pub pid: i32,
    /// Since when.
    pub started_at: DateTime<Utc>,
    /// Frozen by `docker pause`.
    pub paused: bool,
    /// A process of it was killed for want of memory.
    pub oom_killed: bool,
}

/// A container that ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exited {
    /// Status of its first process.
    pub exit_code: i64,
    /// Start of its last run.
    pub started_at: Option<DateTime<Utc>>,
    /// End of it.
    pub finished_at: Option<DateTime<Utc>>,
    /// It was killed for want of memory.
    pub oom_killed: bool,
    /// Why the last start failed, or why the container was ended, when neither it nor a client did it.
    pub error: String,
}

impl State {
    /// Docker's word for it.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Running(r) if r.paused => "paused",
            Self::Running(_) => "running",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing(_) => "removing",
            Self::Dead(_) => "dead",
        }
    }

    /// The living process, if there is one.
    pub fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(r) => Some(r),
            _ => None,
        }
    }

    /// Running or about to run again: what `docker ps` shows and `docker rm` refuses.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Restarting(_))
    }

    /// The last exit code: 0 before the first run.
    pub fn exit_code(&self) -> i64 {
        match self {
            Self::Created { failed } => failed.as_ref().map_or(0, |f| f.exit_code),
            Self::Running(_) => 0,
            Self::Restarting(e) | Self::Exited(e) | Self::Removing(e) | Self::Dead(e) => e.exit_code,
        }
    }

    /// The error of the last start; empty when it went well.
    pub fn error(&self) -> &str {
        match self {
            Self::Created { failed } => failed.as_ref().map_or("", |f| &f.error),
            Self::Running(_) => "",
            Self::Restarting(e) | Self::Exited(e) | Self::Removing(e) | Self::Dead(e) => &e.error,
        }
    }

    /// When the present or last run began.
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Created { .. } => None,
            Self::Running(r) => Some(r.started_at),
            Self::Restarting(e) | Self::Exited(e) | Self::Removing(e) | Self::Dead(e) => e.started_at,
        }
    }

    /// When the last run ended.
    pub fn finished_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Created { .. } | Self::Running(_) => None,
            Self::Restarting(e) | Self::Exited(e) | Self::Removing(e) | Self::Dead(e) => e.finished_at,
        }
    }

    fn past(&self) -> Exited {
        match self {
            Self::Created { .. } => {
                Exited { exit_code: self.exit_code(), error: self.error().into(), ..Exited::default() }
            }
            Self::Running(r) => {
                Exited { started_at: Some(r.started_at), oom_killed: r.oom_killed, ..Exited::default() }
            }
            Self::Restarting(e) | Self::Exited(e) | Self::Removing(e) | Self::Dead(e) => e.clone(),
        }
    }

    /// May it be started now?
    pub fn check_start(&self) -> Result<()> {
        match self {
            Self::Running(r) if r.paused => {
                Err(Error::Conflict("cannot start a paused container, try unpause instead".into()))
            }
            Self::Running(_) => Err(Error::NotModified("container is already running".into())),
            Self::Removing(_) | Self::Dead(_) => {
                Err(Error::Conflict("container is marked for removal and cannot be started".into()))
            }
            Self::Created { .. } | Self::Restarting(_) | Self::Exited(_) => Ok(()),
        }
    }

    /// Its process lives now.
    pub fn started(&self, pid: i32, at: DateTime<Utc>) -> Result<Self> {
        self.check_start()?;
        Ok(Self::Running(Running { pid, started_at: at, paused: false, oom_killed: false }))
    }

    /// Its start came to nothing.
    pub fn start_failed(&self, exit_code: i64, error: String) -> Self {
        match self {
            Self::Created { .. } => Self::Created { failed: Some(StartFailure { exit_code, error }) },
            other => Self::Exited(Exited { exit_code, error, finished_at: Some(Utc::now()), ..other.past() }),
        }
    }

    /// Its process ended; `error` says why, when neither it nor a client did it.
    pub fn exited(&self, exit_code: i64, at: DateTime<Utc>, restarting: bool, error: String) -> Self {
        let exited = Exited { exit_code, finished_at: Some(at), error, ..self.past() };
        if restarting { Self::Restarting(exited) } else { Self::Exited(exited) }
    }

    /// The restart policy gives up, or was told to.
    pub fn restart_given_up(&self) -> Self {
        match self {
            Self::Restarting(e) => Self::Exited(e.clone()),
            other => other.clone(),
        }
    }

    /// Frozen. `id` is for the words.
    pub fn paused(&self, id: &str) -> Result<Self> {
        match self {
            Self::Running(r) if r.paused => Err(Error::Conflict(format!("Container {id} is already paused"))),
            Self::Running(r) => Ok(Self::Running(Running { paused: true, ..r.clone() })),
            Self::Restarting(_) => {
                Err(Error::Conflict(format!("Container {id} is restarting, wait until the container is running")))
            }
            _ => Err(not_running(id)),
        }
    }

    /// Thawed.
    pub fn unpaused(&self, id: &str) -> Result<Self> {
        match self {
            Self::Running(r) if r.paused => Ok(Self::Running(Running { paused: false, ..r.clone() })),
            _ => Err(Error::Conflict(format!("Container {id} is not paused"))),
        }
    }

    /// One of its processes was killed for want of memory.
    pub fn oom(&self) -> Self {
        match self {
            Self::Running(r) => Self::Running(Running { oom_killed: true, ..r.clone() }),
            other => other.clone(),
        }
    }

    /// It is being removed.
    pub fn removing(&self, id: &str) -> Result<Self> {
        match self {
            Self::Removing(_) => Err(Error::Conflict(format!("removal of container {id} is already in progress"))),
            Self::Running(_) | Self::Restarting(_) => {
                Err(Error::Conflict(format!("container {id} is running and cannot be removed")))
            }
            other => Ok(Self::Removing(other.past())),
        }
    }

    /// Its removal failed.
    pub fn dead(&self, error: String) -> Self {
        Self::Dead(Exited { error, ..self.past() })
    }
}

/// Docker's words for a call that needs a running container.
pub fn not_running(id: &str) -> Error {
    Error::Conflict(format!("container {id} is not running"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life() {
        let state = State::Created { failed: None };
        let running = state.started(7, Utc::now()).unwrap();
        assert_eq!(running.status(), "running");
        assert!(matches!(running.started(8, Utc::now()), Err(Error::NotModified(_))));
        let paused = running.paused("x").unwrap();
        assert!(paused.paused("x").is_err() && paused.check_start().is_err() && paused.removing("x").is_err());
        let again = paused.unpaused("x").unwrap().oom().exited(137, Utc::now(), true, String::new());
        assert_eq!((again.status(), again.exit_code(), again.is_active()), ("restarting", 137, true));
        let State::Exited(e) = again.restart_given_up() else { panic!() };
        assert!(e.oom_killed && e.started_at.is_some());
        let removing = State::Exited(e).removing("x").unwrap();
        assert!(removing.check_start().is_err() && removing.removing("x").is_err());
        assert!(removing.dead("busy".into()).removing("x").is_ok());
    }

    #[test]
    fn a_failed_first_start_stays_created() {
        let state = State::Created { failed: None }.start_failed(127, "not found".into());
        assert_eq!((state.status(), state.exit_code(), state.error()), ("created", 127, "not found"));
        assert!(state.check_start().is_ok());
    }

    #[test]
    fn states_survive_the_database() {
        let state = State::Created { failed: None }.started(7, Utc::now()).unwrap();
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}
