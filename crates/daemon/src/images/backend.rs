//! The images as the API sees them: each method names the file that does it.

use api::backend::{BoxStream, CommitOptions, ImageBackend, ImportSource, Reader, RegistryAuth};
use api::filters::Filters;
use api::types;
use async_trait::async_trait;
use bytes::Bytes;

use crate::Daemon;
use crate::containers::detached;
use crate::error::blocking;

#[async_trait]
impl ImageBackend for Daemon {
    async fn list(&self, all: bool, _digests: bool, filters: Filters) -> api::Result<Vec<types::ImageSummary>> {
        Ok(self.image_list(all, filters).await?)
    }
    async fn inspect(&self, name: &str) -> api::Result<types::ImageInspect> {
        Ok(self.image_inspect(name).await?)
    }
    async fn history(&self, name: &str) -> api::Result<Vec<types::ImageHistoryItem>> {
        Ok(self.image_history(name).await?)
    }
    async fn tag(&self, name: &str, repo: &str, tag: &str) -> api::Result<()> {
        let images = self.images.clone();
        let (name, repo, tag) = (name.to_owned(), repo.to_owned(), tag.to_owned());
        let (reference, id) = blocking(move || {
            let reference = images.tag(&name, &repo, &tag)?;
            Ok((reference, images.resolve(&name)?))
        })
        .await?;
        self.image_event("tag", id.as_str(), &reference.familiar());
        Ok(())
    }
    async fn remove(&self, name: &str, force: bool, prune_parents: bool) -> api::Result<Vec<types::ImageDeleteItem>> {
        Ok(self.image_remove(name, force, prune_parents).await?)
    }
    async fn pull(
        &self,
        image: &str,
        tag: &str,
        platform: Option<String>,
        auth: Option<RegistryAuth>,
    ) -> api::Result<BoxStream<types::Progress>> {
        Ok(self.image_pull(image, tag, platform, auth).await?)
    }
    async fn push(
        &self,
        image: &str,
        tag: &str,
        auth: Option<RegistryAuth>,
    ) -> api::Result<BoxStream<types::Progress>> {
        Ok(self.image_push(image, tag, auth).await?)
    }
    async fn import(
        &self,
        repo: &str,
        tag: &str,
        message: &str,
        changes: Vec<String>,
        platform: Option<String>,
        source: ImportSource,
    ) -> api::Result<BoxStream<types::Progress>> {
        Ok(self.image_import(repo, tag, message, changes, platform, source).await?)
    }
    async fn load(&self, quiet: bool, tar: Reader) -> api::Result<BoxStream<types::Progress>> {
        Ok(self.image_load(quiet, tar).await?)
    }
    async fn save(&self, names: Vec<String>) -> api::Result<BoxStream<Bytes>> {
        Ok(self.image_save(names).await?)
    }
    async fn commit(
        &self,
        options: CommitOptions,
        config: Option<types::ContainerConfig>,
    ) -> api::Result<types::IdResponse> {
        let name = options.container.clone();
        Ok(detached(self.arc(), &name, |daemon, _| async move { daemon.image_commit(options, config).await }).await?)
    }
    async fn prune(&self, filters: Filters) -> api::Result<types::ImagesPruneResponse> {
        Ok(self.job("prune", "images", self.image_prune(filters)).await?)
    }
    async fn search(
        &self,
        term: &str,
        limit: Option<usize>,
        filters: Filters,
    ) -> api::Result<Vec<types::ImageSearchItem>> {
        Ok(self.image_search(term, limit, filters).await?)
    }
    async fn distribution(&self, name: &str, auth: Option<RegistryAuth>) -> api::Result<types::DistributionInspect> {
        Ok(self.image_distribution(name, auth).await?)
    }
}
