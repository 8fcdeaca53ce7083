//! Checkpoints as the API sees them.

use std::path::{Path, PathBuf};

use api::backend::CheckpointBackend;
use api::types::{CheckpointCreateRequest, CheckpointFinding, CheckpointPreflight, CheckpointSummary, Map, Timestamp};
use async_trait::async_trait;
use checkpoint::Found;

use crate::Daemon;
use crate::containers::detached;
use crate::error::{Error, blocking};

type Result<T> = std::result::Result<T, api::Error>;

#[async_trait]
impl CheckpointBackend for Daemon {
    async fn create(&self, container: &str, request: CheckpointCreateRequest) -> Result<()> {
        let CheckpointCreateRequest { checkpoint_id, checkpoint_dir, exit } = request;
        let work = move |daemon: std::sync::Arc<Self>, name: String| async move {
            let dir = Some(Path::new(&checkpoint_dir)).filter(|d| !d.as_os_str().is_empty());
            daemon.checkpoint_create(&name, &checkpoint_id, dir, exit).await
        };
        Ok(detached(self.arc(), container, work).await?)
    }

    async fn list(&self, container: &str, dir: Option<PathBuf>) -> Result<Vec<CheckpointSummary>> {
        let container = self.container(container)?;
        let directory = self.checkpoints_of(&container.id, dir.as_deref());
        let found = blocking(move || Ok(directory.list()?)).await?;
        Ok(found.into_iter().map(summary).collect())
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
        let record = container.record();
        let mut preflight = CheckpointPreflight::default();
        let mut obstacle = |code: &str, error: Error, advice: &str| {
            preflight.obstacles.push(CheckpointFinding {
                code: code.into(),
                message: error.to_string(),
                advice: advice.into(),
                pid: None,
            });
        };
        if record.state.running().is_none() {
            let error = Error::Conflict(format!("Container {} not running", record.name));
            obstacle("not-running", error, "start it first");
        }
        if let Err(error) = self.refuse_running_execs(&container) {
            obstacle("exec-running", error, "end the exec sessions");
        }
        if let Err(error) = crate::system::find_criu() {
            obstacle("criu-missing", error, "install CRIU 4 or newer");
        }
        preflight.possible = preflight.obstacles.is_empty();
        Ok(preflight)
    }
}

fn summary(found: Found) -> CheckpointSummary {
    let mut summary =
        CheckpointSummary { name: found.name, size_bytes: Some(found.size_bytes), ..CheckpointSummary::default() };
    match found.manifest {
        Ok(manifest) => {
            summary.created = Some(Timestamp::from(manifest.created));
            summary.image = manifest.image_id;
            summary.valid = Some(true);
            summary.options = Map::empty();
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
