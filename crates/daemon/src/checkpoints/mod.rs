//! Putting containers to sleep and waking them.
//!
//! A checkpoint is made in a staging directory and renamed into place when it is whole; the container's operation lock is
//! held meanwhile, so that an end caused by the checkpoint is dealt with afterwards. What a checkpoint is on disk is
//! crate `checkpoint`'s business.

mod backend;
mod create;
mod wake;

use std::path::Path;

use checkpoint::Directory;

use crate::Daemon;

pub use wake::Wake;

impl Daemon {
    /// Where a container's checkpoints are: its own directory, or `<dir>/<container id>/checkpoints` as in Docker.
    fn checkpoints_of(&self, id: &str, dir: Option<&Path>) -> Directory {
        match dir.filter(|d| !d.as_os_str().is_empty()) {
            Some(dir) => Directory::new(dir.join(id).join("checkpoints")),
            None => Directory::new(self.container_dir(id).join("checkpoints")),
        }
    }
}

/// Keeps or removes checkpoints that were in the making when dockerd was killed, below the directory of all containers.
pub fn settle(containers: &Path) {
    for entry in std::fs::read_dir(containers).into_iter().flatten().flatten() {
        Directory::new(entry.path().join("checkpoints")).settle();
    }
}
