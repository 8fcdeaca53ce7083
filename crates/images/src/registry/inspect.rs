//! What a registry has under a name, without pulling it (`/distribution/{name}/json`).

use super::session::Session;
use super::{Credentials, Registry};
use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::manifest::{Descriptor, Document, OCI_INDEX, OCI_MANIFEST};
use crate::{Platform, Reference, Result};

/// What a registry has under a name.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// The platforms there are images for.
    pub platforms: Vec<Platform>,
}

impl Registry {
    /// Asks a registry what it has under a name.
    pub async fn inspect(&self, reference: &Reference, credentials: Credentials) -> Result<RemoteImage> {
        let reference = reference.clone().or_latest();
        let session = Session::open(&self.options, reference.domain(), reference.path(), credentials, "pull").await?;
        let (digest, document, size) = session.manifest_with_size(&reference).await?;
        let (media_type, platforms) = match document {
            Document::Index(index) => {
                let kind = if index.media_type.is_empty() { OCI_INDEX.into() } else { index.media_type };
                (kind, index.manifests.into_iter().filter_map(|entry| entry.platform).collect())
            }
            Document::Manifest(manifest) => {
                let config = session.small_blob(&manifest.config, MAX_CONFIG_BYTES).await?;
                let config = ImageConfig::parse(&config)?;
                let os = config.operating_system().to_owned();
                let platform = Platform { os, architecture: config.architecture, variant: config.variant };
                let kind = if manifest.media_type.is_empty() { OCI_MANIFEST.into() } else { manifest.media_type };
                (kind, vec![platform])
            }
            Document::Schema1 => (String::new(), Vec::new()),
        };
        Ok(RemoteImage { descriptor: Descriptor::new(&media_type, digest, size), platforms })
    }
}
