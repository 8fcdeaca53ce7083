//! Removing images. Which containers use them is known here only.

use ::images::{Digest, ImageUser, PruneFilter, Removed};
use api::filters::Filters;
use api::types::{ImageDeleteItem, ImagesPruneResponse, Map, Timestamp};

use crate::Daemon;
use crate::error::{Error, Result, blocking};

impl Daemon {
    pub(super) async fn image_remove(&self, name: &str, force: bool, prune: bool) -> Result<Vec<ImageDeleteItem>> {
        let (images, users, name) = (self.images.clone(), self.image_users(), name.to_owned());
        let removed = blocking(move || Ok(images.remove(&name, force, prune, &users)?)).await?;
        Ok(self.tell_removed(removed))
    }

    pub(super) async fn image_prune(&self, filters: Filters) -> Result<ImagesPruneResponse> {
        let invalid = |error: api::Error| Error::InvalidParameter(error.message);
        filters.validate(&["dangling", "label", "label!", "until"]).map_err(invalid)?;
        let values = |name: &str| filters.get(name).map(str::to_owned).collect();
        let until = crate::system::until_filter(&filters)?;
        let filter = PruneFilter {
            dangling: filters.bool_or("dangling", true).map_err(invalid)?,
            until_ns: until.map(|until| Timestamp::from(until).unix_nanos()),
            labels: values("label"),
            without_labels: values("label!"),
        };
        let (images, users) = (self.images.clone(), self.image_users());
        let (removed, bytes) = blocking(move || Ok(images.prune(&filter, &users)?)).await?;
        let images_deleted = self.tell_removed(removed);
        self.events.emit("image", "prune", "", Map::from_iter([("reclaimed", bytes.to_string())]));
        let images_deleted = if images_deleted.is_empty() { Default::default() } else { images_deleted.into() };
        Ok(ImagesPruneResponse { images_deleted, space_reclaimed: bytes })
    }

    fn image_users(&self) -> Vec<ImageUser> {
        let user = |container: std::sync::Arc<crate::containers::Container>| {
            let record = container.record();
            let image = Digest::parse(&record.image_id).ok()?;
            Some(ImageUser { container: record.id.clone(), running: record.state.is_active(), image })
        };
        self.containers.all().into_iter().filter_map(user).collect()
    }

    /// Events for what was removed, and the lines for the client.
    fn tell_removed(&self, removed: Vec<Removed>) -> Vec<ImageDeleteItem> {
        let line = |removed| match removed {
            Removed::Untagged { name, image } => {
                self.image_event("untag", image.as_str(), image.as_str());
                ImageDeleteItem { untagged: name, ..Default::default() }
            }
            Removed::Image(id) => {
                self.image_event("delete", id.as_str(), id.as_str());
                ImageDeleteItem { deleted: id.to_string(), ..Default::default() }
            }
            Removed::Layer(chain) => ImageDeleteItem { deleted: chain.to_string(), ..Default::default() },
        };
        removed.into_iter().map(line).collect()
    }
}
