//! Volumes as the API sees them.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use api::backend::VolumeBackend;
use api::filters::Filters;
use api::types::{self, Map, VolumeUsageData};
use async_trait::async_trait;

use super::Volume;
use crate::Daemon;
use crate::error::{Error, Result, blocking};

#[async_trait]
impl VolumeBackend for Daemon {
    async fn list(&self, filters: Filters) -> api::Result<types::VolumeListResponse> {
        filters.validate(&["dangling", "driver", "label", "name"])?;
        let dangling = if filters.contains("dangling") { Some(filters.bool_or("dangling", false)?) } else { None };
        let used = dangling.map(|_| self.used_volumes());
        let is_wanted = |volume: &Volume| {
            dangling.is_none_or(|dangling| used.as_ref().is_none_or(|used| used.contains(&volume.name) != dangling))
                && filters.matches_exactly("driver", "local")
                && filters.matches_substring("name", &volume.name)
                && filters.matches_pairs("label", |key| volume.labels.get(key).map(String::as_str))
        };
        let volumes =
            self.volumes.list().into_iter().filter(is_wanted).map(|volume| self.show_volume(volume)).collect();
        Ok(types::VolumeListResponse { volumes, ..Default::default() })
    }

    async fn inspect(&self, name: &str) -> api::Result<types::Volume> {
        Ok(self.show_volume(self.volumes.get(name)?))
    }

    async fn create(&self, request: types::VolumeCreateRequest) -> api::Result<types::Volume> {
        let (options, labels) = (request.driver_opts.into_map(), request.labels.into_map());
        let (volume, is_new) = self.volumes.create(&request.name, &request.driver, options, labels)?;
        if is_new {
            self.volume_event("create", &volume.name);
        }
        Ok(self.show_volume(volume))
    }

    async fn remove(&self, name: &str, force: bool) -> api::Result<()> {
        if self.volumes.get(name).is_err() && force {
            return Ok(());
        }
        let users = self.volume_users(name);
        if !users.is_empty() {
            let users = users.join(", ");
            return Err(Error::Conflict(format!("remove {name}: volume is in use - [{users}]")).into());
        }
        self.volumes.remove(name)?;
        self.volume_event("destroy", name);
        Ok(())
    }

    async fn prune(&self, filters: Filters) -> api::Result<types::VolumesPruneResponse> {
        filters.validate(&["all", "label", "label!"])?;
        let all = filters.bool_or("all", false)?;
        Ok(self.job("prune", "volumes", self.volume_prune(all, &filters)).await?)
    }
}

impl Daemon {
    async fn volume_prune(&self, all: bool, filters: &Filters) -> Result<types::VolumesPruneResponse> {
        let mut response = types::VolumesPruneResponse::default();
        for volume in self.volumes.list() {
            let label = |key: &str| volume.labels.get(key).map(String::as_str);
            // One with options is somebody's own mount: Docker's prune leaves it alone.
            let is_wanted = (all || volume.anonymous)
                && volume.options.is_empty()
                && filters.matches_pairs("label", label)
                && filters.excludes_pairs("label!", label)
                && self.volume_users(&volume.name).is_empty();
            if !is_wanted {
                continue;
            }
            let bytes = self.volume_bytes(&volume.name).await;
            match self.volumes.remove(&volume.name) {
                Ok(_) => {
                    self.volume_event("destroy", &volume.name);
                    response.volumes_deleted.push(volume.name);
                    response.space_reclaimed += bytes;
                }
                Err(error) => tracing::warn!("pruning volume {}: {error}", volume.name),
            }
        }
        let reclaimed = [("reclaimed", response.space_reclaimed.to_string())];
        self.events.emit("volume", "prune", "", Map::from_iter(reclaimed));
        Ok(response)
    }

    /// All volumes with what they cost and how many containers use them.
    pub(crate) async fn volume_usage(&self) -> Result<Vec<types::Volume>> {
        let mut shown = Vec::new();
        for volume in self.volumes.list() {
            let bytes = self.volume_bytes(&volume.name).await;
            let usage = VolumeUsageData {
                ref_count: i64::try_from(self.volume_users(&volume.name).len()).unwrap_or(i64::MAX),
                size: i64::try_from(bytes).unwrap_or(i64::MAX),
            };
            shown.push(types::Volume { usage_data: Some(usage), ..self.show_volume(volume) });
        }
        Ok(shown)
    }

    fn show_volume(&self, volume: Volume) -> types::Volume {
        let or_null = |map: BTreeMap<String, String>| if map.is_empty() { Map::null() } else { map.into() };
        let mut labels = volume.labels;
        if volume.anonymous {
            labels.insert("com.docker.volume.anonymous".into(), String::new());
        }
        types::Volume {
            created_at: types::Timestamp::from(volume.created).truncated_to_seconds(),
            driver: "local".into(),
            labels: or_null(labels),
            mountpoint: self.volumes.mountpoint(&volume.name).to_string_lossy().into_owned(),
            name: volume.name,
            options: or_null(volume.options),
            scope: "local".into(),
            ..Default::default()
        }
    }

    /// Bytes of a volume's files; 0 when they cannot be read.
    async fn volume_bytes(&self, name: &str) -> u64 {
        let path = self.volumes.mountpoint(name);
        blocking(move || Ok(tree_bytes(&path))).await.unwrap_or(0)
    }

    fn used_volumes(&self) -> HashSet<String> {
        let records = self.containers.all().into_iter().map(|container| container.record());
        records
            .flat_map(|r| r.mounts.iter().filter_map(|m| m.volume().map(str::to_owned)).collect::<Vec<_>>())
            .collect()
    }

    fn volume_event(&self, action: &str, name: &str) {
        self.events.emit("volume", action, name, Map::from_iter([("driver", "local".to_owned())]));
    }
}

/// Bytes of all files in a tree, a file with several names counted once. What cannot be read counts nothing; no link is
/// followed.
fn tree_bytes(root: &Path) -> u64 {
    let mut bytes = 0;
    let mut seen = HashSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(stat) = entry.metadata() else { continue };
            if stat.is_dir() {
                pending.push(entry.path());
            } else if stat.nlink() == 1 || seen.insert((stat.dev(), stat.ino())) {
                bytes += stat.len();
            }
        }
    }
    bytes
}
