//! `docker pull`.
//!
//! The manifest names the configuration, the configuration names the layers' plain digests: both are read first, so that
//! a layer that is here already is not downloaded. Layers come in parallel and are unpacked in order, each as soon as it
//! and the one below are there. The image is recorded at the end; until then a lease keeps its parts.

use futures::{FutureExt, StreamExt};
use reqwest::Method;
use reqwest::header::{ACCEPT, LINK};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::session::{RequestError, Session, body};
use super::{Credentials, DOCKER_DOMAIN, ProgressSender, Registry, Throttle};
use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::content::StagedBlob;
use crate::extract::{LAYER_GZIP, LAYER_OCI_GZIP, LAYER_OCI_PLAIN, LAYER_OCI_ZSTD, Source, extract};
use crate::manifest::{
    self, DOCKER_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, MAX_MANIFEST_BYTES, Manifest, OCI_CONFIG,
    OCI_INDEX, OCI_MANIFEST,
};
use crate::shared::Lease;
use crate::{Digest, Error, Platform, Reference, Result};

/// How deep an index may name indexes.
const MAX_DEPTH: usize = 4;
const MAX_TAG_LIST_BYTES: usize = 4 << 20;

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Name with a tag or a digest; with neither, all tags are pulled.
    pub reference: Reference,
    /// Of several images the one for this platform; this machine's when not given.
    pub platform: Option<Platform>,
    /// Who asks.
    pub credentials: Credentials,
}

/// What was pulled (the last one, of several).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: Digest,
    /// The digest of what the registry has under the name.
    pub digest: Digest,
    /// Whether anything changed here.
    pub newer: bool,
}

/// A layer that has to be downloaded, or not.
struct Wanted {
    descriptor: Descriptor,
    id: String,
    diff_id: Digest,
    chain: Digest,
    parent: Option<Digest>,
    present: bool,
}

impl Registry {
    /// Pulls an image. Progress is exactly what the docker CLI draws. Dropping the future cancels the pull.
    pub async fn pull(&self, request: &PullRequest, progress: &ProgressSender) -> Result<Pulled> {
        let reference = &request.reference;
        if reference.familiar_name() == "scratch" {
            return Err(Error::Forbidden("'scratch' is a reserved name".into()));
        }
        if reference.domain() == DOCKER_DOMAIN {
            for mirror in &self.options.mirrors {
                let outcome = match Session::open_mirror(&self.options, mirror, reference.path()).await {
                    Ok(session) => self.pull_from(&session, request, progress).await,
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(pulled) => return Ok(pulled),
                    Err(error) => tracing::info!(mirror, %error, "not from this mirror"),
                }
            }
        }
        let credentials = request.credentials.clone();
        let session = Session::open(&self.options, reference.domain(), reference.path(), credentials, "pull").await?;
        self.pull_from(&session, request, progress).await
    }

    async fn pull_from(&self, session: &Session, request: &PullRequest, progress: &ProgressSender) -> Result<Pulled> {
        let reference = &request.reference;
        let mut newer = false;
        let mut last = None;
        if reference.tag().is_some() || reference.digest().is_some() {
            let pulled = self.pull_one(session, reference, request, progress).await?;
            newer = pulled.newer;
            last = Some(pulled);
        } else {
            for tag in session.tags(reference).await? {
                let tagged = reference.clone().with_tag(&tag)?;
                let pulled = self.pull_one(session, &tagged, request, progress).await?;
                newer |= pulled.newer;
                last = Some(pulled);
            }
        }
        let status = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
        progress.status("", format!("Status: {status} {}", reference.familiar())).await;
        let last = last.ok_or_else(|| Error::NotFound(format!("no tags for {}", reference.familiar_name())))?;
        Ok(Pulled { newer, ..last })
    }

    async fn pull_one(
        &self,
        session: &Session,
        reference: &Reference,
        request: &PullRequest,
        progress: &ProgressSender,
    ) -> Result<Pulled> {
        let wanted = request.platform.clone().unwrap_or_else(Platform::host);
        let _alone = self.alone(format!("pull {} {}", reference, wanted.spell())).await;
        let (digest, document) = session.manifest(reference, None).await?;
        let name = reference.digest().map(Digest::as_str).or(reference.tag()).unwrap_or_default();
        progress.status(name, format!("Pulling from {}", reference.path())).await;
        let manifest = session.select(reference, document, &wanted).await?;

        let known = self.images.shared.state().images.contains_key(&manifest.config.digest);
        let id = if known {
            manifest.config.digest.clone()
        } else {
            self.pull_image(session, reference, &manifest, progress).await?
        };
        progress.status("", format!("Digest: {digest}")).await;
        let newer = self.name(reference, &digest, &id).await?;
        Ok(Pulled { id, digest, newer })
    }

    /// Files the image under its name and digest; says whether the name is new or pointed elsewhere.
    async fn name(&self, reference: &Reference, digest: &Digest, id: &Digest) -> Result<bool> {
        let images = self.images.clone();
        let (reference, digest, id) = (reference.clone(), digest.clone(), id.clone());
        blocking(move || {
            let mut state = images.shared.state();
            if !state.images.contains_key(&id) {
                return Err(Error::NoSuchImage(id.to_string()));
            }
            let by_digest = reference.clone().with_digest(digest);
            let had_digest = state.references.get(&by_digest) == Some(&id);
            if !had_digest {
                state.set_reference(&by_digest, &id)?;
            }
            if reference.digest().is_some() {
                return Ok(!had_digest);
            }
            let new = state.references.get(&reference) != Some(&id);
            if new {
                state.set_reference(&reference, &id)?;
            }
            Ok(new)
        })
        .await
    }

    async fn pull_image(
        &self,
        session: &Session,
        reference: &Reference,
        manifest: &Manifest,
        progress: &ProgressSender,
    ) -> Result<Digest> {
        check_config_type(manifest)?;
        let fetched = session.small_blob(&manifest.config, MAX_CONFIG_BYTES).await;
        let json = fetched.map_err(|error| pull_error(error, reference))?;
        let config = ImageConfig::parse(&json)?;
        if config.operating_system() != "linux" {
            return Err(Error::Invalid(format!(
                "image operating system {:?} cannot be used on this platform: operating system is not supported",
                config.operating_system()
            )));
        }
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::Invalid("layers from manifest don't match image configuration".into()));
        }
        let mut lease = self.images.shared.lease();
        let wanted = wanted_layers(manifest, &config, &mut lease)?;
        for (n, layer) in wanted.iter().enumerate() {
            progress.status(&layer.id, if layer.present { "Already exists" } else { "Pulling fs layer" }).await;
            if !layer.present && n >= self.options.concurrent_downloads {
                progress.status(&layer.id, "Waiting").await;
            }
        }

        // Each layer's download hands its outcome to the unpacking below, which takes them in order.
        let (senders, receivers): (Vec<_>, Vec<_>) = wanted.iter().map(|_| oneshot::channel()).unzip();
        let mut downloads = Vec::new();
        for (layer, sender) in wanted.iter().zip(senders).filter(|(layer, _)| !layer.present) {
            let download = async move {
                // The receiver is gone when another layer has failed.
                let _ = sender.send(self.download_layer(session, layer, progress).await);
            };
            downloads.push(download.boxed());
        }
        let downloads =
            futures::stream::iter(downloads).buffer_unordered(self.options.concurrent_downloads.max(1)).collect::<()>();
        let unpacking = async {
            for (layer, receiver) in wanted.iter().zip(receivers) {
                if layer.present {
                    continue;
                }
                let downloaded =
                    receiver.await.map_err(|_| Error::Registry("a download ended without an outcome".into()))?;
                if let Some((blob, alone)) = downloaded.map_err(|error| pull_error(error, reference))? {
                    lease = self.unpack(layer, blob, lease, progress).await?;
                    drop(alone);
                } else {
                    lease.layer(&layer.chain).ok_or_else(|| Error::Registry("a layer went away".into()))?;
                }
                progress.status(&layer.id, "Pull complete").await;
            }
            Ok::<Lease, Error>(lease)
        };
        let (_, mut lease) = futures::future::try_join(downloads.map(Ok), unpacking).await?;

        let images = self.images.clone();
        let repository = reference.name();
        let blobs: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        blocking(move || {
            let id = images.shared.record_image(&json, None, &mut lease)?;
            let state = images.shared.state();
            for blob in blobs {
                state.add_layer_repository(&blob, &repository)?;
            }
            Ok(id)
        })
        .await
    }

    /// Downloads a layer; `None` when another pull has made the same layer meanwhile. The guard keeps other pulls from
    /// the same blob until the layer is unpacked.
    async fn download_layer(
        &self,
        session: &Session,
        layer: &Wanted,
        progress: &ProgressSender,
    ) -> std::result::Result<Option<(StagedBlob, tokio::sync::OwnedMutexGuard<()>)>, RequestError> {
        let alone = self.alone(format!("layer {}", layer.chain)).await;
        if self.images.shared.state().layers.contains_key(&layer.chain) {
            progress.status(&layer.id, "Download complete").await;
            return Ok(None);
        }
        let dir = self.images.shared.content.ingest_dir().to_owned();
        let attempts = self.options.attempts;
        let blob = session.download(&layer.descriptor, &dir, &layer.id, attempts, progress).await?;
        Ok(Some((blob, alone)))
    }

    async fn unpack(&self, layer: &Wanted, blob: StagedBlob, lease: Lease, progress: &ProgressSender) -> Result<Lease> {
        let images = self.images.clone();
        let (id, total, progress) = (layer.id.clone(), layer.descriptor.size, progress.clone());
        let (parent, diff_id) = (layer.parent.clone(), layer.diff_id.clone());
        let mut lease = lease;
        blocking(move || {
            let reader = Extracting { inner: blob.reopen()?, bytes: 0, total, id, progress, throttle: Throttle::new() };
            let source = Source::Blob(blob, Box::new(reader));
            extract(&images.shared, &mut lease, parent.as_ref(), source, Some(&diff_id)).map_err(
                |error| match error {
                    Error::Archive(error) => Error::Invalid(format!("failed to register layer: {error}")),
                    other => other,
                },
            )?;
            Ok(lease)
        })
        .await
    }
}

impl Session {
    /// What the registry has under a name, or under a descriptor of an index, verified.
    pub(super) async fn manifest(
        &self,
        reference: &Reference,
        entry: Option<&Descriptor>,
    ) -> Result<(Digest, Document)> {
        let (digest, document, _) = self.fetch_manifest(reference, entry).await?;
        Ok((digest, document))
    }

    /// As [`Session::manifest`] by name, with its size.
    pub(super) async fn manifest_with_size(&self, reference: &Reference) -> Result<(Digest, Document, u64)> {
        self.fetch_manifest(reference, None).await
    }

    async fn fetch_manifest(
        &self,
        reference: &Reference,
        entry: Option<&Descriptor>,
    ) -> Result<(Digest, Document, u64)> {
        let expected = entry.map(|entry| &entry.digest).or(reference.digest());
        let target = expected.map(Digest::as_str).or(reference.tag()).unwrap_or("latest");
        let url = self.url(&format!("manifests/{target}"))?;
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].map(|kind| (ACCEPT, kind.to_owned()));
        let response = self.request(Method::GET, &url, &accept, None).await.map_err(|e| pull_error(e, reference))?;
        let said = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = said.split(';').next().unwrap_or_default().trim().to_owned();
        let json = body(response, MAX_MANIFEST_BYTES as usize).await?;
        let digest = Digest::of(&json);
        let wrong_size = entry.is_some_and(|entry| entry.size != json.len() as u64);
        if let Some(expected) = expected.filter(|expected| **expected != digest || wrong_size) {
            return Err(Error::Corrupt(format!("manifest verification failed for digest {expected}")));
        }
        match manifest::parse(&json, &media_type)? {
            Document::Schema1 => Err(Error::Invalid(format!(
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest \
                 the author of {reference} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. \
                 More information at https://docs.docker.com/go/deprecated-image-specs/"
            ))),
            document => Ok((digest, document, json.len() as u64)),
        }
    }

    /// Follows indexes to the manifest that fits the platform.
    async fn select(&self, reference: &Reference, document: Document, wanted: &Platform) -> Result<Manifest> {
        let mut document = document;
        for _ in 0..MAX_DEPTH {
            let index = match document {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(index) => index,
                Document::Schema1 => return Err(Error::Invalid("unsupported manifest format".into())),
            };
            let best = index.matching(wanted).first().copied().cloned();
            let best = best.ok_or_else(|| {
                let words = format!("no matching manifest for {} in the manifest list entries", wanted.spell());
                Error::NotFound(words)
            })?;
            document = self.manifest(reference, Some(&best)).await?.1;
        }
        Err(Error::Invalid("indexes name each other too deeply".into()))
    }

    /// All tags of the repository.
    async fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut url = self.url("tags/list")?;
        // A registry that sends us round in circles is left after so many pages.
        for _ in 0..1000 {
            let response = self.request(Method::GET, &url, &[], None).await.map_err(|e| pull_error(e, reference))?;
            let link = response.headers().get(LINK).and_then(|value| value.to_str().ok()).and_then(next_page);
            let page: Page = serde_json::from_slice(&body(response, MAX_TAG_LIST_BYTES).await?)
                .map_err(|error| Error::Registry(format!("invalid tag list: {error}")))?;
            tags.extend(page.tags.unwrap_or_default());
            match link.and_then(|link| url.join(&link).ok()).filter(|next| next.origin() == self.base.origin()) {
                Some(next) => url = next,
                None => break,
            }
        }
        Ok(tags)
    }
}

/// The target of `<…>; rel="next"`.
pub(super) fn next_page(link: &str) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| target.to_owned())
}

fn wanted_layers(manifest: &Manifest, config: &ImageConfig, lease: &mut Lease) -> Result<Vec<Wanted>> {
    let mut parent = None;
    let mut wanted = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        match descriptor.media_type.as_str() {
            "" | LAYER_GZIP | LAYER_OCI_GZIP | LAYER_OCI_ZSTD | LAYER_OCI_PLAIN => {}
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {}
            other => return Err(Error::Invalid(format!("unsupported media type {other}"))),
        }
        let chain = Digest::chain(parent.as_ref(), diff_id);
        wanted.push(Wanted {
            descriptor: descriptor.clone(),
            id: descriptor.digest.short().to_owned(),
            diff_id: diff_id.clone(),
            parent: parent.replace(chain.clone()),
            present: lease.layer(&chain).is_some(),
            chain,
        });
    }
    Ok(wanted)
}

fn check_config_type(manifest: &Manifest) -> Result<()> {
    match manifest.config.media_type.as_str() {
        // Some old registries' software gives these.
        OCI_CONFIG | DOCKER_CONFIG | "application/octet-stream" | "application/json" | "text/html" | "" => Ok(()),
        other => Err(Error::Invalid(format!("Encountered remote {other:?}(unknown) when fetching"))),
    }
}

fn pull_error(error: RequestError, reference: &Reference) -> Error {
    match error {
        RequestError::Refused(failure) => failure.of_pull(reference),
        RequestError::Failed(error) => error,
    }
}

/// Runs what may block where it may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::Registry(format!("a worker ended: {error}"))),
    }
}

/// Tells how much of a layer is unpacked.
struct Extracting {
    inner: std::fs::File,
    bytes: u64,
    total: u64,
    id: String,
    progress: ProgressSender,
    throttle: Throttle,
}

impl std::io::Read for Extracting {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        if self.throttle.due() || self.bytes == self.total {
            self.progress.bytes(&self.id, "Extracting", self.bytes, self.total);
        }
        Ok(n)
    }
}
