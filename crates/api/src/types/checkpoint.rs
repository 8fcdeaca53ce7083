//! Checkpoints. Docker's list has the name only; the other fields are ours, and additive.

use super::time::Timestamp;
use super::wire::{Map, omit, wire};

wire! {
    /// `POST /containers/{id}/checkpoints`.
    pub struct CheckpointCreateRequest {
        #[serde(rename = "CheckpointID")]
        checkpoint_id: String,
        #[serde(skip_serializing_if = "omit")]
        checkpoint_dir: String,
        /// Stop the container afterwards.
        exit: bool,
    }

    /// What a checkpoint or a wake cost. It answers `POST …/checkpoints` (Docker's answer is empty), and is in `inspect`.
    pub struct CheckpointTiming {
        name: String,
        /// When it was done.
        at: Timestamp,
        /// How long the processes stood still.
        #[serde(skip_serializing_if = "omit")]
        frozen_micros: Option<u64>,
        total_micros: u64,
        #[serde(skip_serializing_if = "omit")]
        bytes: Option<u64>,
    }

    /// `Checkpoints` in `inspect`: the last of each.
    pub struct CheckpointTimings {
        #[serde(skip_serializing_if = "omit")]
        last_checkpoint: Option<CheckpointTiming>,
        #[serde(skip_serializing_if = "omit")]
        last_wake: Option<CheckpointTiming>,
    }

    pub struct CheckpointSummary {
        name: String,
        #[serde(skip_serializing_if = "omit")]
        created: Option<Timestamp>,
        #[serde(skip_serializing_if = "omit")]
        size_bytes: Option<u64>,
        /// The image that the container was made from.
        #[serde(skip_serializing_if = "omit")]
        image: String,
        /// How it was taken (`tcp`, `file_locks`, …).
        #[serde(skip_serializing_if = "omit")]
        options: Map<String>,
        /// Whether it can be restored.
        #[serde(skip_serializing_if = "omit")]
        valid: Option<bool>,
        /// Why not.
        #[serde(skip_serializing_if = "omit")]
        error: String,
        /// How long the container stood still, and how long the whole took.
        #[serde(skip_serializing_if = "omit")]
        frozen_micros: Option<u64>,
        #[serde(skip_serializing_if = "omit")]
        total_micros: Option<u64>,
    }

    /// `GET /containers/{id}/checkpoints/preflight`.
    pub struct CheckpointPreflight {
        /// Whether nothing stands in the way.
        possible: bool,
        /// What does.
        obstacles: Vec<CheckpointFinding>,
        /// What works, but should be known.
        warnings: Vec<CheckpointFinding>,
        /// What would be chosen.
        options: Map<String>,
    }

    pub struct CheckpointFinding {
        /// A stable word for programs.
        code: String,
        /// A sentence for people.
        message: String,
        /// What to do about it.
        #[serde(skip_serializing_if = "omit")]
        advice: String,
        #[serde(skip_serializing_if = "omit")]
        pid: Option<i64>,
    }
}
