//! Pull, push, log in.

use api::backend::{BoxStream, RegistryAuth};
use api::types;

use crate::Daemon;
use crate::error::{Error, Result};

impl Daemon {
    pub(super) async fn image_pull(
        &self,
        _image: &str,
        _tag: &str,
        _platform: Option<String>,
        _auth: Option<RegistryAuth>,
    ) -> Result<BoxStream<types::Progress>> {
        Err(Error::NotImplemented("pulling images is not implemented".into()))
    }

    pub(super) async fn image_push(
        &self,
        _image: &str,
        _tag: &str,
        _auth: Option<RegistryAuth>,
    ) -> Result<BoxStream<types::Progress>> {
        Err(Error::NotImplemented("pushing images is not implemented".into()))
    }

    pub(super) async fn image_distribution(
        &self,
        _name: &str,
        _auth: Option<RegistryAuth>,
    ) -> Result<types::DistributionInspect> {
        Err(Error::NotImplemented("asking registries is not implemented".into()))
    }

    /// Checks credentials against their registry.
    pub(crate) async fn registry_login(&self, _auth: RegistryAuth) -> Result<types::AuthResponse> {
        Err(Error::NotImplemented("logging in to registries is not implemented".into()))
    }
}
