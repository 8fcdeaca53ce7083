//! Pull, push, log in. A client that goes away cancels its pull or push.

use std::future::Future;

use ::images::registry::{Credentials, ProgressSender, PullRequest, SearchResult};
use ::images::{Platform, Reference};
use api::backend::{BoxStream, RegistryAuth};
use api::filters::Filters;
use api::types;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::work::{self, WAITING, show};
use crate::Daemon;
use crate::error::{Error, Result};

/// As many results as Docker gives who does not say.
const DEFAULT_RESULTS: usize = 25;
/// And at most.
const MAX_RESULTS: usize = 100;

impl Daemon {
    pub(super) async fn image_pull(
        &self,
        image: &str,
        tag: &str,
        platform: Option<String>,
        auth: Option<RegistryAuth>,
    ) -> Result<BoxStream<types::Progress>> {
        let reference = if tag.is_empty() { Reference::parse(image)? } else { Reference::from_parts(image, tag)? };
        let platform = platform.as_deref().map(Platform::parse).transpose()?;
        let request = PullRequest { reference, platform, credentials: credentials(auth) };
        let daemon = self.arc();
        transfer(move |progress| async move {
            let reference = &request.reference;
            let pull = async { Ok(daemon.registry.pull(&request, &progress).await?) };
            daemon.job("pull", &reference.familiar(), pull).await?;
            daemon.image_event("pull", &reference.familiar(), &reference.familiar_name());
            Ok(())
        })
        .await
    }

    pub(super) async fn image_push(
        &self,
        image: &str,
        tag: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<BoxStream<types::Progress>> {
        let reference =
            if tag.is_empty() { Reference::parse(image)? } else { Reference::parse(image)?.with_tag(tag)? };
        let daemon = self.arc();
        transfer(move |progress| async move {
            let push = async { Ok(daemon.registry.push(&reference, credentials(auth), &progress).await?) };
            daemon.job("push", &reference.familiar(), push).await?;
            daemon.image_event("push", &reference.familiar(), &reference.familiar_name());
            Ok(())
        })
        .await
    }

    pub(super) async fn image_distribution(
        &self,
        name: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<types::DistributionInspect> {
        let remote = self.registry.inspect(&Reference::parse(name)?, credentials(auth)).await?;
        let platform = |platform: Platform| types::Platform {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            ..Default::default()
        };
        Ok(types::DistributionInspect {
            descriptor: types::Descriptor {
                media_type: remote.descriptor.media_type,
                digest: remote.descriptor.digest.to_string(),
                size: i64::try_from(remote.descriptor.size).unwrap_or(i64::MAX),
                ..Default::default()
            },
            platforms: remote.platforms.into_iter().map(platform).collect(),
        })
    }

    pub(super) async fn image_search(
        &self,
        term: &str,
        limit: Option<usize>,
        filters: Filters,
    ) -> Result<Vec<types::ImageSearchItem>> {
        let invalid = |error: api::Error| Error::InvalidParameter(error.message);
        filters.validate(&["is-automated", "is-official", "stars"]).map_err(invalid)?;
        // As Docker: a filter that is not given asks for nothing.
        let wanted = |name: &str| match filters.contains(name) {
            true => filters.bool_or(name, true).map(Some).map_err(invalid),
            false => Ok(None),
        };
        let (automated, official) = (wanted("is-automated")?, wanted("is-official")?);
        let stars = filters.get("stars").map(|text| {
            text.parse::<i64>().map_err(|_| Error::InvalidParameter(format!("invalid filter 'stars=[{text}]'")))
        });
        let stars = stars.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        let limit = limit.filter(|limit| *limit != 0).unwrap_or(DEFAULT_RESULTS);
        if limit > MAX_RESULTS {
            return Err(Error::InvalidParameter(format!("limit {limit} is outside the range of [1, {MAX_RESULTS}]")));
        }
        // Nothing says of itself any more that it was built automatically.
        if automated == Some(true) {
            return Ok(Vec::new());
        }
        let found = self.registry.search(term, limit).await?.into_iter();
        let found = found
            .filter(|image| official.is_none_or(|official| image.is_official == official) && image.star_count >= stars);
        let item = |image: SearchResult| types::ImageSearchItem {
            name: image.name,
            description: image.description,
            star_count: image.star_count,
            is_official: image.is_official,
            ..Default::default()
        };
        Ok(found.map(item).collect())
    }

    /// Checks credentials against their registry.
    pub(crate) async fn registry_login(&self, auth: RegistryAuth) -> Result<types::AuthResponse> {
        let server = auth.server_address.clone();
        let login = self.registry.login(&server, credentials(Some(auth))).await?;
        Ok(types::AuthResponse { identity_token: login.identity_token, status: login.status })
    }
}

fn credentials(auth: Option<RegistryAuth>) -> Credentials {
    let auth = auth.unwrap_or_default();
    Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}

/// Runs a transfer that tells of its progress, for as long as the client listens.
async fn transfer<F>(work: impl FnOnce(ProgressSender) -> F) -> Result<BoxStream<types::Progress>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (tell, mut progress) = ProgressSender::channel();
    let (sender, receiver) = mpsc::channel(WAITING);
    // The sender goes into the work, so that its messages end when it does.
    let work = work(tell);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let forward = async {
            while let Some(message) = progress.recv().await {
                if sender.send(Ok(show(message))).await.is_err() {
                    break;
                }
            }
        };
        let (outcome, ()) = tokio::join!(work, forward);
        if let Err(error) = outcome {
            let _ = sender.send(Err(error)).await;
        }
    }));
    let messages = work::stream(receiver).await?;
    let kept = messages.map(move |message| {
        let _ = &task;
        message
    });
    Ok(kept.boxed())
}
