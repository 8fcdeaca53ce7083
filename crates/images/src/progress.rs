//! What a long operation tells its caller while it goes on.

use serde_json::Value;

/// One message of a long operation. The daemon turns it into a line of Docker's JSON stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// What the message is about (a short layer id, a tag); empty for the whole operation.
    pub id: String,
    /// What is going on (`status`).
    pub status: String,
    /// Bytes done and, if known, bytes in all (`progressDetail`).
    pub bytes: Option<(u64, Option<u64>)>,
    /// Plain text (`stream`), instead of a status.
    pub stream: String,
    /// A value for programs (`aux`).
    pub aux: Option<Value>,
}

impl Progress {
    /// A status of `id`.
    pub fn status(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: id.into(), status: status.into(), ..Self::default() }
    }

    /// A status of `id` with how far it got.
    pub fn bytes(id: impl Into<String>, status: impl Into<String>, current: u64, total: Option<u64>) -> Self {
        Self { bytes: Some((current, total)), ..Self::status(id, status) }
    }

    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { stream: text.into(), ..Self::default() }
    }

    /// A value for programs.
    pub fn aux(value: Value) -> Self {
        Self { aux: Some(value), ..Self::default() }
    }
}

/// Where progress goes.
pub type ProgressSink<'a> = &'a mut (dyn FnMut(Progress) + Send);
