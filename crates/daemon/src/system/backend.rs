//! The engine as the API sees it: each method names the file that does it.

use api::backend::{BoxStream, EventsOptions, RegistryAuth, SystemBackend};
use api::types;
use async_trait::async_trait;

use crate::Daemon;

#[async_trait]
impl SystemBackend for Daemon {
    async fn info(&self) -> api::Result<types::SystemInfo> {
        Ok(self.system_info())
    }
    async fn version(&self) -> api::Result<types::SystemVersion> {
        Ok(self.system_version())
    }
    async fn disk_usage(&self, types: Vec<String>) -> api::Result<types::SystemDataUsage> {
        Ok(self.system_disk_usage(types).await?)
    }
    async fn events(&self, options: EventsOptions) -> api::Result<BoxStream<types::EventMessage>> {
        Ok(self.events.follow(options)?)
    }
    async fn auth(&self, auth: RegistryAuth) -> api::Result<types::AuthResponse> {
        Ok(self.registry_login(auth).await?)
    }
}
