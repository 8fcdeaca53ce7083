//! Checkpoints as the API sees them.

use std::path::{Path, PathBuf};

use api::backend::CheckpointBackend;
use api::types::{CheckpointCreateRequest, CheckpointPreflight, CheckpointSummary, CheckpointTiming, Timestamp};
use async_trait::async_trait;
use checkpoint::{Depth, Directory, Found};

use super::show_timing;
use crate::Daemon;
use crate::containers::detached;
use crate::containers::record::Record;
use crate::error::blocking;

type Result<T> = std::result::Result<T, api::Error>;

#[async_trait]
impl CheckpointBackend for Daemon {
    async fn create(&self, container: &str, request: CheckpointCreateRequest) -> Result<CheckpointTiming> {
        let CheckpointCreateRequest { checkpoint_id, checkpoint_dir, exit } = request;
        let work = move |daemon: std::sync::Arc<Self>, name: String| async move {
            let asked = format!("{checkpoint_id} of {name}");
            // In a task of its own: the job is told to stop at shutdown, but a dump goes on without whoever asked for it,
            // and what it writes must not be taken away.
            let making = detached(daemon.clone(), &name, |daemon, name| async move {
                let dir = Some(Path::new(&checkpoint_dir)).filter(|d| !d.as_os_str().is_empty());
                daemon.checkpoint_create(&name, &checkpoint_id, dir, exit).await
            });
            daemon.job("checkpoint", &asked, making).await
        };
        Ok(show_timing(&detached(self.arc(), container, work).await?))
    }

    async fn list(&self, container: &str, dir: Option<PathBuf>, verify: bool) -> Result<Vec<CheckpointSummary>> {
        let container = self.container(container)?;
        if container.record().state.running().is_none() {
            self.arc().settle_unfinished(&container).await?;
        }
        let directory = self.checkpoints_of(&container.id, dir.as_deref());
        let daemon = self.arc();
        let depth = if verify { Depth::Full } else { Depth::Quick };
        let listed = blocking(move || {
            let record = container.record();
            let found = directory.list(depth)?;
            Ok(found.into_iter().map(|found| summary(&daemon, &directory, &record, found)).collect())
        });
        Ok(listed.await?)
    }

    async fn remove(&self, container: &str, checkpoint: &str, dir: Option<PathBuf>) -> Result<()> {
        let container = self.container(container)?;
        let directory = self.checkpoints_of(&container.id, dir.as_deref());
        let checkpoint = checkpoint.to_owned();
        let removed = blocking(move || {
            directory.remove(&checkpoint)?;
            if dir.is_some() {
                // The user's directory is left as it was found: what Docker's layout put between goes when it is empty.
                let mut path = directory.path();
                while std::fs::remove_dir(path).is_ok() && path.ends_with("checkpoints") {
                    let Some(parent) = path.parent() else { break };
                    path = parent;
                }
            }
            Ok(())
        });
        Ok(removed.await?)
    }

    async fn preflight(&self, container: &str) -> Result<CheckpointPreflight> {
        let container = self.container(container)?;
        Ok(self.arc().checkpoint_preflight(&container).await?)
    }
}

fn summary(daemon: &Daemon, directory: &Directory, record: &Record, found: Found) -> CheckpointSummary {
    let mut summary = CheckpointSummary {
        name: found.name,
        size_bytes: Some(found.size_bytes),
        options: found.options.into_iter().collect(),
        ..CheckpointSummary::default()
    };
    match found.manifest {
        Ok(manifest) => {
            let obstacle = daemon.unfit(directory, &manifest, record);
            summary.created = Some(Timestamp::from(manifest.created));
            summary.valid = Some(obstacle.is_none());
            summary.error = obstacle.unwrap_or_default();
            summary.image = manifest.image_id;
            if let Some(measured) = manifest.measured {
                summary.frozen_micros = measured.frozen_us;
                summary.total_micros = measured.total_us;
            }
        }
        Err(e) => {
            summary.valid = Some(false);
            summary.error = e.to_string();
        }
    }
    summary
}
