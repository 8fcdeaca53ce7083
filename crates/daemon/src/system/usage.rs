//! `docker system df`.

use api::backend::{ContainerBackend, ListOptions};
use api::types::{List, SystemDataUsage};

use crate::Daemon;
use crate::error::{Error, Result, blocking};

impl Daemon {
    pub(super) async fn system_disk_usage(&self, types: Vec<String>) -> Result<SystemDataUsage> {
        let wants = |name: &str| types.is_empty() || types.iter().any(|wanted| wanted == name);
        let mut usage = SystemDataUsage::default();
        if wants("image") {
            let images = self.images.clone();
            let filter = ::images::ListFilter { shared_size: true, ..Default::default() };
            let (listed, disk) = blocking(move || Ok((images.list(&filter)?, images.disk_usage()))).await?;
            usage.layers_size = i64::try_from(disk.layers_bytes).unwrap_or(i64::MAX);
            usage.images = self.show_images(listed).into();
        }
        if wants("container") {
            let options = ListOptions { all: true, size: true, ..Default::default() };
            let containers = ContainerBackend::list(self, options).await;
            let mut containers = containers.map_err(|error| Error::System(error.to_string()))?;
            let daemon = self.arc();
            containers = blocking(move || {
                // What a container takes on the disk: its checkpoints go with it.
                for container in &mut containers {
                    let bytes = i64::try_from(daemon.checkpoint_bytes(&container.id)).unwrap_or(i64::MAX);
                    container.size_rw = container.size_rw.saturating_add(bytes);
                }
                Ok(containers)
            })
            .await?;
            usage.containers = containers.into();
        }
        if wants("volume") {
            usage.volumes = self.volume_usage().await?.into();
        }
        if wants("build-cache") {
            usage.build_cache = List::empty();
        }
        Ok(usage)
    }
}
