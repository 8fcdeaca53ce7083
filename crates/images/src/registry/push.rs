//! `docker push`: blobs first, each only if the registry does not have it, then the manifest under the tag.

use futures::{StreamExt, TryStreamExt};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use serde_json::json;
use url::Url;

use super::pull::blocking;
use super::session::{RequestError, Session};
use super::{Credentials, ProgressSender, Registry, Throttle};
use crate::config::MAX_CONFIG_BYTES;
use crate::extract::{LAYER_GZIP, LAYER_OCI_GZIP};
use crate::manifest::{DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::shared::{Layer, Lease};
use crate::{Digest, Error, Reference, Result};

/// What was pushed (the last one, of several).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Registry {
    /// Pushes a tag, or all tags of a name without one.
    pub async fn push(
        &self,
        reference: &Reference,
        credentials: Credentials,
        progress: &ProgressSender,
    ) -> Result<Pushed> {
        if reference.digest().is_some() {
            return Err(Error::Invalid("cannot push a digest reference".into()));
        }
        let tags: Vec<(Reference, Digest)> = {
            let state = self.images.shared.state();
            let named = state.references.iter().filter(|(name, _)| {
                name.tag().is_some()
                    && name.name() == reference.name()
                    && (reference.tag().is_none() || reference.tag() == name.tag())
            });
            named.map(|(name, id)| (name.clone(), id.clone())).collect()
        };
        if tags.is_empty() {
            let known = self.images.shared.state().references.keys().any(|name| name.name() == reference.name());
            return Err(Error::NotFound(match reference.tag() {
                Some(_) if known => format!("tag does not exist: {}", reference.familiar()),
                _ => format!("An image does not exist locally with the tag: {}", reference.familiar_name()),
            }));
        }
        progress.status("", format!("The push refers to repository [{}]", reference.name())).await;
        let session =
            Session::open(&self.options, reference.domain(), reference.path(), credentials, "pull,push").await?;
        let mut pushed = None;
        for (name, id) in tags {
            pushed = Some(self.push_one(&session, &name, &id, progress).await?);
        }
        pushed.ok_or_else(|| Error::NotFound(format!("no tags to push for {}", reference.familiar_name())))
    }

    async fn push_one(
        &self,
        session: &Session,
        name: &Reference,
        id: &Digest,
        progress: &ProgressSender,
    ) -> Result<Pushed> {
        let mut lease = self.images.shared.lease();
        let layers = self.hold(id, &mut lease)?;
        for layer in layers.iter().rev() {
            progress.status(layer.diff_id.short(), "Preparing").await;
        }
        let images = self.images.clone();
        let (layers, _lease) = blocking(move || {
            let layers: Result<Vec<Layer>> =
                layers.into_iter().map(|layer| images.compressed(layer, &mut lease)).collect();
            Ok((layers?, lease))
        })
        .await?;
        // Collected first: with the closure inside, the compiler cannot see that the future may change threads.
        let uploads: Vec<_> =
            layers.iter().rev().map(|layer| self.push_layer(session, name, layer, progress)).collect();
        futures::stream::iter(uploads)
            .buffer_unordered(self.options.concurrent_uploads.max(1))
            .try_collect::<Vec<()>>()
            .await?;

        let images = self.images.clone();
        let wanted = id.clone();
        let config = blocking(move || images.shared.content.read_small(&wanted, MAX_CONFIG_BYTES)).await?;
        if !session.has_blob(id).await? {
            let url = session.start_upload(None).await?.map_err(|_| Error::Registry("unexpected mount".into()))?;
            session.finish_upload(&url, id, config.len() as u64, || reqwest::Body::from(config.clone())).await?;
        }
        let manifest = manifest_of(id, config.len() as u64, &layers);
        let json = serde_json::to_vec(&manifest).map_err(|error| Error::Invalid(error.to_string()))?;
        let tag = name.tag().unwrap_or("latest");
        let url = session.url(&format!("manifests/{tag}"))?;
        let headers = [(CONTENT_TYPE, manifest.media_type.clone())];
        session.request(Method::PUT, &url, &headers, Some(&json)).await?;
        let pushed = Pushed { digest: Digest::of(&json), size: json.len() as u64 };
        progress.status("", format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size)).await;

        let images = self.images.clone();
        let (by_digest, wanted) = (name.clone().with_digest(pushed.digest.clone()), id.clone());
        blocking(move || {
            let mut state = images.shared.state();
            if state.images.contains_key(&wanted) {
                state.set_reference(&by_digest, &wanted)?;
            }
            Ok(())
        })
        .await?;
        progress.aux(json!({"Tag": tag, "Digest": pushed.digest.as_str(), "Size": pushed.size})).await;
        Ok(pushed)
    }

    /// The image's layers, bottom first, kept for the time of the push.
    fn hold(&self, id: &Digest, lease: &mut Lease) -> Result<Vec<Layer>> {
        lease.keep_blob(id);
        let chains = {
            let state = self.images.shared.state();
            let image = state.images.get(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
            image.chains.clone()
        };
        chains.iter().map(|chain| lease.layer(chain).ok_or_else(|| Error::NoSuchImage(id.to_string()))).collect()
    }

    async fn push_layer(
        &self,
        session: &Session,
        name: &Reference,
        layer: &Layer,
        progress: &ProgressSender,
    ) -> Result<()> {
        let id = layer.diff_id.short();
        if session.has_blob(&layer.blob).await? {
            progress.status(id, "Layer already exists").await;
            return self.remember(name, layer).await;
        }
        let known = self.images.shared.state().layer_repository(&layer.blob, name.domain(), &name.name())?;
        let source = known.as_deref().and_then(|known| known.split_once('/')).map(|(_, path)| path);
        let mount = source.map(|path| (&layer.blob, path));
        let mut attempt = 1;
        loop {
            match session.start_upload(mount.filter(|_| attempt == 1)).await? {
                Err(Mounted) => {
                    progress.status(id, format!("Mounted from {}", source.unwrap_or_default())).await;
                    break;
                }
                Ok(url) => {
                    let path = self.images.shared.content.path(&layer.blob);
                    let body = || uploading(path.clone(), id.to_owned(), layer.blob_bytes, progress.clone());
                    match session.finish_upload(&url, &layer.blob, layer.blob_bytes, body).await {
                        Ok(()) => {
                            progress.status(id, "Pushed").await;
                            break;
                        }
                        Err(error @ Error::Registry(_)) if attempt < self.options.attempts => {
                            tracing::debug!(blob = %layer.blob, %error, "upload broke; starting it again");
                            attempt += 1;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        self.remember(name, layer).await
    }

    async fn remember(&self, name: &Reference, layer: &Layer) -> Result<()> {
        let (images, blob, repository) = (self.images.clone(), layer.blob.clone(), name.name());
        blocking(move || images.shared.state().add_layer_repository(&blob, &repository)).await
    }
}

/// The registry took the blob from another repository.
struct Mounted;

impl Session {
    pub(super) async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let url = self.url(&format!("blobs/{digest}"))?;
        match self.request(Method::HEAD, &url, &[], None).await {
            Ok(_) => Ok(true),
            Err(RequestError::Refused(failure)) if failure.status == 404 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins an upload, or mounts the blob from another repository.
    async fn start_upload(&self, mount: Option<(&Digest, &str)>) -> Result<std::result::Result<Url, Mounted>> {
        let mut url = self.url("blobs/uploads/")?;
        if let Some((digest, from)) = mount {
            url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        }
        let response = self.request(Method::POST, &url, &[(CONTENT_LENGTH, "0".into())], None).await?;
        if response.status() == reqwest::StatusCode::CREATED {
            return Ok(Err(Mounted));
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| Error::Registry(format!("Post \"{url}\": no upload location")))?;
        let target =
            url.join(location).map_err(|_| Error::Registry(format!("invalid upload location {location:?}")))?;
        Ok(Ok(target))
    }

    /// Sends a blob in one piece.
    async fn finish_upload(
        &self,
        location: &Url,
        digest: &Digest,
        bytes: u64,
        body: impl Fn() -> reqwest::Body,
    ) -> Result<()> {
        let mut url = location.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, bytes.to_string())];
        self.request_with(Method::PUT, &url, &headers, || Some(body())).await?;
        Ok(())
    }
}

/// A blob's bytes, telling progress as they are taken.
fn uploading(path: std::path::PathBuf, id: String, total: u64, progress: ProgressSender) -> reqwest::Body {
    let opened = futures::stream::once(tokio::fs::File::open(path));
    let chunks = opened.map_ok(|file| tokio_util::io::ReaderStream::with_capacity(file, 64 << 10)).try_flatten();
    let (mut sent, mut throttle) = (0, Throttle::new());
    reqwest::Body::wrap_stream(chunks.inspect_ok(move |chunk| {
        sent += chunk.len() as u64;
        if throttle.due() || sent == total {
            progress.bytes(&id, "Pushing", sent, total);
        }
    }))
}

/// Docker's manifest where it can say it, so that the oldest clients understand it; OCI's for zstd and plain layers.
fn manifest_of(id: &Digest, config_bytes: u64, layers: &[Layer]) -> Manifest {
    let docker = layers.iter().all(|layer| layer.media_type == LAYER_GZIP);
    let (media_type, config) = if docker { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (OCI_MANIFEST, OCI_CONFIG) };
    let layer = |layer: &Layer| {
        let kind = if !docker && layer.media_type == LAYER_GZIP { LAYER_OCI_GZIP } else { &layer.media_type };
        Descriptor::new(kind, layer.blob.clone(), layer.blob_bytes)
    };
    Manifest {
        schema_version: 2,
        media_type: media_type.into(),
        config: Descriptor::new(config, id.clone(), config_bytes),
        layers: layers.iter().map(layer).collect(),
    }
}
