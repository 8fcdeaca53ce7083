//! What containers ask about images.

use api::types::ContainerConfig;

use crate::Daemon;
use crate::error::{Error, Result};

/// An image, as far as a container made from it is concerned.
pub struct Found {
    /// Its id.
    pub id: ::images::Digest,
    /// What its containers run as.
    pub config: ContainerConfig,
}

impl Daemon {
    /// An image by name, id or the start of its id.
    pub(crate) fn image(&self, name: &str) -> Result<Found> {
        let id = self.images.resolve(name)?;
        let config = self.images.config(&id)?;
        let config = wire_config(&config.config)?;
        Ok(Found { id, config })
    }

    /// The image of that name and all images made on top of it, for `ps --filter ancestor`.
    pub(crate) fn image_descendants(&self, name: &str) -> Vec<String> {
        let Ok(ancestor) = self.images.inspect(name) else { return Vec::new() };
        let layers = &ancestor.config.rootfs.diff_ids;
        let all = self.images.list(&::images::ListFilter { all: true, ..Default::default() }).unwrap_or_default();
        let on_top = |id: &::images::Digest| {
            *id == ancestor.id
                || self
                    .images
                    .config(id)
                    .is_ok_and(|c| c.rootfs.diff_ids.len() > layers.len() && c.rootfs.diff_ids.starts_with(layers))
        };
        all.into_iter().filter(|image| on_top(&image.id)).map(|image| image.id.to_string()).collect()
    }
}

/// The image's configuration as the API writes it: both are the same JSON.
pub(crate) fn wire_config(config: &::images::ContainerConfig) -> Result<ContainerConfig> {
    serde_json::to_value(config)
        .and_then(serde_json::from_value)
        .map_err(|e| Error::System(format!("the image's configuration cannot be read: {e}")))
}
