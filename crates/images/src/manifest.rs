//! The documents that name an image's parts: manifests and indexes of OCI and of Docker (schema 2), and the list in
//! `docker save`'s archive. All are somebody else's: sizes and counts are checked where they are read.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::platform::Platform;
use crate::{Digest, Error, Result};

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The distribution specification's limit for a manifest.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Overlay takes 500; Docker 125.
const MAX_LAYERS: usize = 500;

/// Names a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, annotations: BTreeMap::new(), platform: None }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// One image in `manifest.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SavedImage {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
}

/// A manifest or an index, told apart by what is in it.
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
    /// Docker's first formats, which nothing supports any more.
    Schema1,
}

/// Reads a manifest or index. `media_type` is what the sender calls it, and only decides where the content does not.
pub(crate) fn parse(json: &[u8], media_type: &str) -> Result<Document> {
    let invalid = |error: serde_json::Error| Error::Invalid(format!("invalid manifest: {error}"));
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Peek {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        config: Option<serde_json::Value>,
        manifests: Option<serde_json::Value>,
    }
    let peek: Peek = serde_json::from_slice(json).map_err(invalid)?;
    let said = if peek.media_type.is_empty() { media_type } else { &peek.media_type };
    if peek.schema_version == 1 {
        return Ok(Document::Schema1);
    }
    // A document that is both is an attempt to mean different things to different readers.
    match (peek.config.is_some(), peek.manifests.is_some()) {
        (true, false) if !matches!(said, OCI_INDEX | DOCKER_LIST) => {
            let manifest: Manifest = serde_json::from_slice(json).map_err(invalid)?;
            if manifest.layers.len() > MAX_LAYERS {
                return Err(Error::Invalid(format!("more than {MAX_LAYERS} layers")));
            }
            Ok(Document::Manifest(manifest))
        }
        (false, true) if !matches!(said, OCI_MANIFEST | DOCKER_MANIFEST) => {
            Ok(Document::Index(serde_json::from_slice(json).map_err(invalid)?))
        }
        _ => Err(Error::Invalid("unsupported manifest format".into())),
    }
}

impl Index {
    /// The entries that fit a platform, best first. An entry that names no platform is taken last.
    pub(crate) fn matching(&self, wanted: &Platform) -> Vec<&Descriptor> {
        let mut fitting: Vec<(u32, &Descriptor)> = self
            .manifests
            .iter()
            .filter(|entry| {
                matches!(entry.media_type.as_str(), "" | OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST)
            })
            .filter_map(|entry| match &entry.platform {
                Some(platform) => wanted.fit(platform).map(|fit| (fit, entry)),
                None => Some((u32::MAX, entry)),
            })
            .collect();
        fitting.sort_by_key(|(fit, _)| *fit);
        fitting.into_iter().map(|(_, entry)| entry).collect()
    }
}
