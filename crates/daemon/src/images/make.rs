//! Images out of archives, and archives out of images.

use ::images::{ImportOptions, Reference};
use api::backend::{BoxStream, ImportSource, Reader};
use api::types;
use bytes::Bytes;
use tokio_util::io::SyncIoBridge;

use super::work::{self, show};
use crate::Daemon;
use crate::containers::stream_out;
use crate::error::{Error, Result, blocking};

impl Daemon {
    pub(super) async fn image_import(
        &self,
        repo: &str,
        tag: &str,
        message: &str,
        changes: Vec<String>,
        platform: Option<String>,
        source: ImportSource,
    ) -> Result<BoxStream<types::Progress>> {
        let name = new_name(repo, tag)?;
        let mut options = ImportOptions { name, message: message.to_owned(), changes, platform, bytes_total: None };
        let (tar, from): (Reader, _) = match source {
            ImportSource::Body(tar) => (tar, None),
            ImportSource::Url(url) => {
                let fetched = self.registry.fetch(&url).await?;
                options.bytes_total = fetched.bytes_total;
                let from = fetched.url.clone();
                (Box::pin(fetched.into_reader()), Some(from))
            }
        };
        let (daemon, tar) = (self.arc(), SyncIoBridge::new(tar));
        work::run(move |tell| {
            if let Some(url) = from {
                tell(types::Progress { status: format!("Downloading from {url}"), ..Default::default() });
            }
            let id = daemon.images.import(tar, &options, &mut |progress| tell(show(progress)))?;
            daemon.image_event("import", id.as_str(), id.as_str());
            if let Some(name) = options.name {
                daemon.image_event("tag", id.as_str(), &name.or_latest().familiar());
            }
            tell(types::Progress { status: id.to_string(), ..Default::default() });
            Ok(())
        })
        .await
    }

    pub(super) async fn image_load(&self, quiet: bool, tar: Reader) -> Result<BoxStream<types::Progress>> {
        let (daemon, tar) = (self.arc(), SyncIoBridge::new(tar));
        work::run(move |tell| {
            let loaded = daemon.images.load(tar, &mut |progress| {
                // Quiet leaves out the bars, not the result.
                if !quiet || !progress.stream.is_empty() {
                    tell(show(progress));
                }
            })?;
            for image in loaded {
                daemon.image_event("load", image.id.as_str(), image.id.as_str());
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn image_save(&self, names: Vec<String>) -> Result<BoxStream<Bytes>> {
        if names.is_empty() {
            return Err(Error::InvalidParameter("no images specified".into()));
        }
        // What does not exist is an answer, not a broken archive.
        let (images, wanted) = (self.images.clone(), names.clone());
        blocking(move || wanted.iter().try_for_each(|name| Ok(images.resolve(name).map(drop)?))).await?;
        let daemon = self.arc();
        Ok(stream_out(move |out| {
            for id in daemon.images.save(&names, out)? {
                daemon.image_event("save", id.as_str(), id.as_str());
            }
            Ok(())
        }))
    }
}

/// The name a new image is to get; none when no repository is given.
pub(super) fn new_name(repo: &str, tag: &str) -> Result<Option<Reference>> {
    if repo.is_empty() {
        return Ok(None);
    }
    let name = Reference::parse(repo)?;
    if name.digest().is_some() {
        return Err(Error::InvalidParameter("cannot import digest reference".into()));
    }
    Ok(Some(if tag.is_empty() { name.or_latest() } else { name.with_tag(tag)? }))
}
