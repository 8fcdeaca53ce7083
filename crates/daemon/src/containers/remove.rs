//! `rm`: the container's row goes first in meaning and last in fact: state `removing` is stored, everything of it is deleted,
//! then the row. A removal that was cut short is finished at the next boot.

use std::sync::Arc;

use api::backend::RemoveOptions;
use api::filters::Filters;
use api::types::ContainersPruneResponse;

use super::container::Container;
use super::mounts::Source;
use super::record::Record;
use super::state::State;
use crate::Daemon;
use crate::error::{Context, Error, Result, blocking};

impl Daemon {
    /// Removes a container.
    pub(crate) async fn container_remove(self: &Arc<Self>, name: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(name).await;
        }
        let container = self.container(name)?;
        let record = container.record();
        if record.state.is_active() {
            if !options.force {
                let (state, advice) = match &record.state {
                    State::Running(r) if r.paused => {
                        ("paused", "unpause and then stop the container before removing or force remove")
                    }
                    State::Restarting(_) => ("restarting", "stop the container before removing or force remove"),
                    _ => ("running", "stop the container before removing or force remove"),
                };
                return Err(Error::Conflict(format!(
                    "cannot remove container \"{}\": container is {state}: {advice}",
                    record.name
                )));
            }
            self.stop(&container, Some(libc::SIGKILL as u32), Some(30), true).await?;
        }
        let _op = container.op.lock().await;
        if container.removed.is_cancelled() {
            return Ok(());
        }
        container.change(|r| {
            r.state = r.state.removing(&r.id)?;
            Ok(())
        })?;
        self.remove_held(&container, options.volumes).await
    }

    /// Removes a container that is in state `removing` and whose lock is held.
    pub(crate) async fn remove_held(self: &Arc<Self>, container: &Arc<Container>, volumes: bool) -> Result<()> {
        // One that goes to a `--checkpoint-dir` outlives the container.
        if let Err(e) = self.settle_making(container).await {
            tracing::warn!("settling a checkpoint of {}: {e}", container.record().short_id());
        }
        let record = container.record();
        self.clean_up(&record).await;
        if let Err(e) = self.delete_files(&record).await {
            container.change(|r| {
                r.state = r.state.dead(e.to_string());
                Ok(())
            })?;
            return Err(e);
        }
        if let Err(e) = self.networks.unreserve(&record.id).await {
            tracing::warn!("giving back the addresses of {}: {e}", record.short_id());
        }
        self.records.delete(&record.id)?;
        self.containers.remove(container);
        if volumes {
            self.remove_anonymous_volumes(&record);
        }
        self.execs.forget(&record.id);
        self.container_event(&record, "destroy", &[]);
        container.removed.cancel();
        Ok(())
    }

    async fn delete_files(self: &Arc<Self>, record: &Record) -> Result<()> {
        let (images, id, dir) = (self.images.clone(), record.id.clone(), self.container_dir(&record.id));
        blocking(move || {
            images.remove_layer(&id)?;
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(e).context(|| format!("remove {}", dir.display()))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    fn remove_anonymous_volumes(&self, record: &Record) {
        for plan in &record.mounts {
            let Source::Volume { name, .. } = &plan.source else { continue };
            let anonymous = self.volumes.get(name).is_ok_and(|v| v.anonymous);
            if anonymous && self.volume_users(name).is_empty() {
                match self.volumes.remove(name) {
                    Ok(_) => {
                        let driver = api::types::Map::from_iter([("driver", "local".to_owned())]);
                        self.events.emit("volume", "destroy", name, driver);
                    }
                    Err(e) => tracing::warn!("removing volume {name}: {e}"),
                }
            }
        }
    }

    /// The containers that have a volume mounted, running or not.
    pub(crate) fn volume_users(&self, volume: &str) -> Vec<String> {
        let uses = |c: &&Arc<Container>| c.record().mounts.iter().any(|m| m.volume() == Some(volume));
        self.containers.all().iter().filter(uses).map(|c| c.id.clone()).collect()
    }

    /// Removes a container of `--rm`, after its end was told.
    pub(crate) fn remove_later(self: &Arc<Self>, container: &Arc<Container>) {
        let (daemon, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let options = RemoveOptions { force: true, volumes: true, link: false };
            match daemon.container_remove(&container.id, options).await {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(e) => tracing::error!("removing {}: {e}", container.record().short_id()),
            }
        });
    }

    /// Removes all containers that do not run and match.
    pub(crate) async fn container_prune(self: &Arc<Self>, filters: Filters) -> Result<ContainersPruneResponse> {
        filters.validate(&["label", "label!", "until"]).map_err(|e| Error::InvalidParameter(e.to_string()))?;
        let until = crate::system::until_filter(&filters)?;
        let mut response = ContainersPruneResponse::default();
        for container in self.containers.all() {
            let record = container.record();
            let label = |key: &str| record.config.labels.get(key).map(String::as_str);
            let wanted = !record.state.is_active()
                && until.is_none_or(|until| record.created < until)
                && filters.matches_pairs("label", label)
                && filters.excludes_pairs("label!", label);
            if !wanted {
                continue;
            }
            let (images, id) = (self.images.clone(), record.id.clone());
            let size = blocking(move || Ok(images.layer_size(&id)?.writable_bytes)).await.unwrap_or(0);
            match self.container_remove(&container.id, RemoveOptions::default()).await {
                Ok(()) => {
                    response.containers_deleted.push(container.id.clone());
                    response.space_reclaimed += size;
                }
                Err(e) => tracing::warn!("prune: {e}"),
            }
        }
        self.events.emit(
            "container",
            "prune",
            "",
            api::types::Map::from_iter([("reclaimed", response.space_reclaimed.to_string())]),
        );
        Ok(response)
    }
}
