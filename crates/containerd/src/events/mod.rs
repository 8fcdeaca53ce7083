//! Events: what happened to containers, remembered, replayed and fanned out.
//!
//! The hub is the only writer of the journal and gives every event its time; times never repeat and never go back, so
//! that "everything after T" is exact: a client that resumes from the last event it saw misses none and sees none twice.

mod hub;
mod journal;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};

pub use hub::{Hub, Lost, Subscription};
pub use journal::Journal;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A container was started or restored.
    StartContainer,
    /// A process was added.
    StartProcess,
    /// A process ended.
    Exit,
    /// A container was frozen.
    Pause,
    /// A container was thawed.
    Resume,
    /// The kernel killed for want of memory.
    Oom,
    /// A kind that an older journal knows and this program does not.
    #[serde(untagged)]
    Other(String),
}

impl EventKind {
    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            EventKind::StartContainer => "start-container",
            EventKind::StartProcess => "start-process",
            EventKind::Exit => "exit",
            EventKind::Pause => "pause",
            EventKind::Resume => "resume",
            EventKind::Oom => "oom",
            EventKind::Other(name) => name,
        }
    }
}

/// One event, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The container.
    pub id: String,
    /// What happened to it.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When; unique.
    pub timestamp: DateTime<Utc>,
    /// The process, for [`EventKind::Exit`] and [`EventKind::StartProcess`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pid: String,
    /// The exit status.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "status")]
    pub status: u32,
    /// Why a container was ended, when neither its program nor a client did it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

fn is_zero(status: &u32) -> bool {
    *status == 0
}

/// Journals of the original hold −1 for "unknown".
fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let status = i64::deserialize(deserializer)?;
    Ok(u32::try_from(status).ok().filter(|s| *s <= 255).unwrap_or(255))
}

impl From<&Event> for containerd_api::types::Event {
    fn from(event: &Event) -> Self {
        containerd_api::types::Event {
            r#type: event.kind.name().to_owned(),
            id: event.id.clone(),
            status: event.status,
            pid: event.pid.clone(),
            reason: event.reason.clone(),
            timestamp: Some(crate::time::to_proto(event.timestamp)),
        }
    }
}
