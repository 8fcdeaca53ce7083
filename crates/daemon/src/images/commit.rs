//! `commit`: an image out of a container, frozen meanwhile unless asked otherwise.

use std::sync::Arc;

use api::backend::CommitOptions;
use api::types::{ContainerConfig, IdResponse, ImageConfig, List};

use super::make::new_name;
use super::show::convert;
use crate::Daemon;
use crate::error::{Result, blocking};

impl Daemon {
    pub(super) async fn image_commit(
        self: Arc<Self>,
        options: CommitOptions,
        config: Option<ContainerConfig>,
    ) -> Result<IdResponse> {
        let container = self.container(&options.container)?;
        let name = new_name(&options.repo, &options.tag)?;
        let record = container.record();
        let config: ImageConfig = convert(&merged(config.unwrap_or_default(), &record.config))?;
        let request = ::images::CommitOptions {
            name: name.clone(),
            config: Some(convert(&config)?),
            changes: options.changes,
            author: options.author,
            comment: options.comment.clone(),
            created_by: std::iter::once(&record.path).chain(&record.args).cloned().collect::<Vec<_>>().join(" "),
        };
        let mut is_to_be_frozen = options.pause && record.state.running().is_some_and(|running| !running.paused);
        if is_to_be_frozen && let Err(error) = self.container_pause(&record.id).await {
            // It may have ended meanwhile; its files can be read either way.
            tracing::warn!("{} is committed without being paused: {error}", record.short_id());
            is_to_be_frozen = false;
        }
        let (images, id) = (self.images.clone(), record.id.clone());
        let committed = blocking(move || Ok(images.commit(&id, &request)?)).await;
        if is_to_be_frozen && let Err(error) = self.container_unpause(&record.id).await {
            tracing::error!("{} stays paused after its commit: {error}", record.short_id());
        }
        let image = committed?;
        self.image_event("create", image.as_str(), image.as_str());
        let reference = name.map(|name| name.familiar()).unwrap_or_default();
        if !reference.is_empty() {
            self.image_event("tag", image.as_str(), &reference);
        }
        self.container_event(
            &record,
            "commit",
            &[("comment", options.comment), ("imageID", image.to_string()), ("imageRef", reference)],
        );
        Ok(IdResponse { id: image.to_string() })
    }
}

/// What the request says, and for the rest what the container has.
fn merged(mut wanted: ContainerConfig, own: &ContainerConfig) -> ContainerConfig {
    let text = |wanted: &mut String, own: &String| {
        if wanted.is_empty() {
            wanted.clone_from(own);
        }
    };
    text(&mut wanted.user, &own.user);
    text(&mut wanted.working_dir, &own.working_dir);
    text(&mut wanted.stop_signal, &own.stop_signal);
    for (port, set) in &own.exposed_ports {
        wanted.exposed_ports.insert(port.clone(), *set);
    }
    for (path, set) in &own.volumes {
        wanted.volumes.insert(path.clone(), *set);
    }
    for (key, value) in &own.labels {
        wanted.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let inherited: Vec<_> = own
        .env
        .iter()
        .filter(|variable| !wanted.env.iter().any(|other| key(other) == key(variable)))
        .cloned()
        .collect();
    wanted.env = inherited.into_iter().chain(wanted.env).collect::<List<_>>();
    if wanted.entrypoint.is_empty() {
        if wanted.cmd.is_empty() {
            wanted.cmd = own.cmd.clone();
        }
        wanted.entrypoint = own.entrypoint.clone();
    }
    wanted.healthcheck = wanted.healthcheck.or_else(|| own.healthcheck.clone());
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_wins_and_the_container_fills_in() {
        let own = ContainerConfig {
            user: "u".into(),
            env: vec!["A=1".to_owned(), "B=2".to_owned()].into(),
            cmd: vec!["sh".to_owned()].into(),
            ..Default::default()
        };
        let wanted = ContainerConfig { env: vec!["B=3".to_owned()].into(), ..Default::default() };
        let merged = merged(wanted, &own);
        assert_eq!(merged.env.as_slice(), ["A=1", "B=3"]);
        assert_eq!((merged.user.as_str(), merged.cmd.as_slice()), ("u", &["sh".to_owned()][..]));
    }
}
