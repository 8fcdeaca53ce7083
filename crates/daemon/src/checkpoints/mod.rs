//! Putting containers to sleep and waking them.
//!
//! A checkpoint is made in a staging directory and renamed into place when it is whole; the container's operation lock is
//! held meanwhile, so that an end caused by the checkpoint is dealt with afterwards. What a checkpoint is on disk is
//! crate `checkpoint`'s business.

mod backend;
mod create;
mod preflight;
mod settle;
mod wake;

use std::path::Path;

use checkpoint::Directory;

use crate::Daemon;
use crate::containers::record::Timing;

pub use wake::Wake;

impl Daemon {
    /// Where a container's checkpoints are: its own directory, or `<dir>/<container id>/checkpoints` as in Docker.
    fn checkpoints_of(&self, id: &str, dir: Option<&Path>) -> Directory {
        match dir.filter(|d| !d.as_os_str().is_empty()) {
            Some(dir) => Directory::foreign(dir.join(id).join("checkpoints"), &self.seal_key),
            None => Directory::own(self.container_dir(id).join("checkpoints"), &self.seal_key),
        }
    }

    /// Bytes that a container's checkpoints take in the data root.
    pub(crate) fn checkpoint_bytes(&self, id: &str) -> u64 {
        self.checkpoints_of(id, None).size_bytes()
    }
}

/// As the API tells it.
pub(crate) fn show_timing(timing: &Timing) -> api::types::CheckpointTiming {
    api::types::CheckpointTiming {
        name: timing.checkpoint.clone(),
        at: timing.at.into(),
        frozen_micros: timing.frozen_us,
        total_micros: timing.total_us,
        bytes: timing.bytes,
    }
}
