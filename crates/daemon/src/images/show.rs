//! Lists, descriptions and histories in the API's terms.

use std::collections::HashMap;

use ::images::{Digest, GraphDriver, ImageDetails, ImageSummary, ListFilter};
use api::filters::Filters;
use api::types::{self, List, Map, Timestamp};

use crate::Daemon;
use crate::error::{Error, Result, blocking};

impl Daemon {
    pub(super) async fn image_list(&self, all: bool, filters: Filters) -> Result<Vec<types::ImageSummary>> {
        let invalid = |error: api::Error| Error::InvalidParameter(error.message);
        filters.validate(&["dangling", "label", "label!", "before", "since", "reference", "until"]).map_err(invalid)?;
        let values = |name: &str| filters.get(name).map(str::to_owned).collect::<Vec<_>>();
        let until = crate::system::until_filter(&filters)?;
        let filter = ListFilter {
            all,
            dangling: match filters.contains("dangling") {
                true => Some(filters.bool_or("dangling", false).map_err(invalid)?),
                false => None,
            },
            labels: values("label"),
            without_labels: values("label!"),
            references: values("reference"),
            before: values("before"),
            since: values("since"),
            until_ns: until.map(|until| Timestamp::from(until).unix_nanos()),
            shared_size: false,
        };
        let images = self.images.clone();
        let listed = blocking(move || Ok(images.list(&filter)?)).await?;
        Ok(self.show_images(listed))
    }

    /// Lines of a list, with how many containers use each.
    pub(crate) fn show_images(&self, images: Vec<ImageSummary>) -> Vec<types::ImageSummary> {
        let mut users: HashMap<String, i64> = HashMap::new();
        for container in self.containers.all() {
            *users.entry(container.record().image_id.clone()).or_default() += 1;
        }
        images
            .into_iter()
            .map(|image| types::ImageSummary {
                containers: users.get(image.id.as_str()).copied().unwrap_or(0),
                created: image.created,
                id: image.id.to_string(),
                labels: image.labels.map_or_else(Map::null, Map::from),
                parent_id: image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
                repo_digests: image.repo_digests,
                repo_tags: image.repo_tags,
                shared_size: image.shared_size.map_or(-1, signed),
                size: signed(image.size),
                ..Default::default()
            })
            .collect()
    }

    pub(super) async fn image_inspect(&self, name: &str) -> Result<types::ImageInspect> {
        let (images, name) = (self.images.clone(), name.to_owned());
        let details = blocking(move || Ok(images.inspect(&name)?)).await?;
        show_details(details)
    }

    pub(super) async fn image_history(&self, name: &str) -> Result<Vec<types::ImageHistoryItem>> {
        let (images, name) = (self.images.clone(), name.to_owned());
        let items = blocking(move || Ok(images.history(&name)?)).await?;
        let show = |item: ::images::HistoryItem| types::ImageHistoryItem {
            comment: item.comment,
            created: item.created,
            created_by: item.created_by,
            id: item.id,
            size: signed(item.size),
            tags: if item.tags.is_empty() { List::null() } else { item.tags.into() },
        };
        Ok(items.into_iter().map(show).collect())
    }

    /// Tells that something happened to an image; `name` is what it was called then.
    pub(super) fn image_event(&self, action: &str, id: &str, name: &str) {
        // An image that is gone has no labels any more.
        let labels = Digest::parse(id).ok().and_then(|id| self.images.config(&id).ok()?.config.labels);
        let mut attributes: Map<String> = labels.unwrap_or_default().into();
        if !name.is_empty() {
            attributes.insert("name".into(), name.to_owned());
        }
        self.events.emit("image", action, id, attributes);
    }
}

fn show_details(details: ImageDetails) -> Result<types::ImageInspect> {
    let config = details.config;
    let last_tag_time =
        details.last_tagged_ns.map_or_else(Timestamp::default, |at| Timestamp::from_unix_nanos(at.into()));
    Ok(types::ImageInspect {
        id: details.id.to_string(),
        repo_tags: details.repo_tags,
        repo_digests: details.repo_digests,
        parent: details.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        comment: config.comment,
        created: config.created.unwrap_or_default(),
        docker_version: config.docker_version,
        author: config.author,
        config: Some(convert(&config.config)?),
        architecture: config.architecture,
        variant: config.variant,
        os: if config.os.is_empty() { "linux".into() } else { config.os },
        os_version: config.os_version,
        size: signed(details.size),
        graph_driver: graph_driver(details.graph_driver),
        root_fs: types::RootFs {
            r#type: config.rootfs.kind,
            layers: config.rootfs.diff_ids.iter().map(Digest::to_string).collect(),
        },
        metadata: types::ImageMetadata { last_tag_time },
        ..Default::default()
    })
}

fn graph_driver(driver: Option<GraphDriver>) -> types::DriverData {
    let Some(driver) = driver else {
        return types::DriverData { name: "overlay2".into(), data: Map::null() };
    };
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let lower: Vec<_> = driver.lower.iter().map(|path| text(path)).collect();
    let mut data = Map::from_iter([
        ("MergedDir", text(&driver.merged)),
        ("UpperDir", text(&driver.upper)),
        ("WorkDir", text(&driver.work)),
    ]);
    if !lower.is_empty() {
        data.insert("LowerDir".into(), lower.join(":"));
    }
    types::DriverData { name: driver.name.into(), data }
}

/// One model of a configuration in the terms of another: both are the same JSON.
pub(super) fn convert<A: serde::Serialize, B: serde::de::DeserializeOwned>(config: &A) -> Result<B> {
    let converted = serde_json::to_value(config).and_then(serde_json::from_value);
    converted.map_err(|error| Error::System(format!("cannot convert a container configuration: {error}")))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
