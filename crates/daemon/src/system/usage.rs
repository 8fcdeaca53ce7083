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
            usage.containers = containers.map_err(|error| Error::System(error.to_string()))?.into();
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
