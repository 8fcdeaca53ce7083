//! The containers as the API sees them: each method names the file that does it.

use std::sync::Arc;

use api::backend::{
    ArchivePutOptions, AttachOptions, Attached, BoxStream, Changed, ContainerBackend, ListOptions, LogOptions, Output,
    Reader, RemoveOptions, StartOptions, WaitCondition,
};
use api::filters::Filters;
use api::types;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use super::{names, wait};
use crate::Daemon;
use crate::containerd::INIT;
use crate::error::Error;

type Result<T> = std::result::Result<T, api::Error>;

#[async_trait]
impl ContainerBackend for Daemon {
    async fn list(&self, options: ListOptions) -> Result<Vec<types::ContainerSummary>> {
        Ok(self.arc().container_list(options).await?)
    }
    async fn create(
        &self,
        name: Option<String>,
        platform: Option<String>,
        request: types::ContainerCreateRequest,
    ) -> Result<types::ContainerCreateResponse> {
        Ok(self.arc().container_create(name, platform, request).await?)
    }
    async fn inspect(&self, name: &str, size: bool) -> Result<types::ContainerInspect> {
        Ok(self.arc().container_inspect(name, size).await?)
    }
    async fn start(&self, name: &str, options: StartOptions) -> Result<Changed> {
        let start = |daemon: Arc<Daemon>, name: String| async move {
            let Some(checkpoint) = options.checkpoint.clone() else {
                return daemon.container_start(&name, options).await;
            };
            let from = format!("{name} from {checkpoint}");
            daemon.job("restore", &from, daemon.container_start(&name, options)).await
        };
        Ok(detached(self.arc(), name, start).await?)
    }
    async fn stop(&self, name: &str, signal: Option<String>, timeout_seconds: Option<i64>) -> Result<Changed> {
        Ok(self.arc().container_stop(name, signal, timeout_seconds).await?)
    }
    async fn restart(&self, name: &str, signal: Option<String>, timeout_seconds: Option<i64>) -> Result<()> {
        Ok(detached(
            self.arc(),
            name,
            |d, name| async move { d.container_restart(&name, signal, timeout_seconds).await },
        )
        .await?)
    }
    async fn kill(&self, name: &str, signal: Option<String>) -> Result<()> {
        Ok(self.container_kill(name, signal).await?)
    }
    async fn pause(&self, name: &str) -> Result<()> {
        Ok(detached(self.arc(), name, |d, name| async move { d.container_pause(&name).await }).await?)
    }
    async fn unpause(&self, name: &str) -> Result<()> {
        Ok(detached(self.arc(), name, |d, name| async move { d.container_unpause(&name).await }).await?)
    }
    async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        if new_name.is_empty() {
            return Err(Error::InvalidParameter("Neither old nor new names may be empty".into()).into());
        }
        let container = self.container(name)?;
        let new_name = names::check(&format!("/{}", new_name.trim_start_matches('/')))
            .map_err(|e| Error::InvalidParameter(format!("Error when allocating new name: {e}")))?
            .to_owned();
        let new_name = new_name.as_str();
        let _op = container.op.lock().await;
        let old = container.record().name.clone();
        if old == new_name {
            return Err(
                Error::InvalidParameter("Renaming a container with the same name as its current name".into()).into()
            );
        }
        self.containers.take_name(new_name, &container.id)?;
        let changed = container.change(|r| {
            r.name = new_name.to_owned();
            Ok(())
        });
        match changed {
            Ok(record) => {
                self.containers.free_name(&old, &container.id);
                self.networks.rename(&container.id, new_name).await?;
                self.container_event(&record, "rename", &[("oldName", format!("/{old}"))]);
                Ok(())
            }
            Err(e) => {
                self.containers.free_name(new_name, &container.id);
                Err(e.into())
            }
        }
    }
    async fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        Ok(detached(self.arc(), name, |d, name| async move { d.container_remove(&name, options).await }).await?)
    }
    async fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, types::ContainerWaitResponse>> {
        Ok(wait::wait(&self.container(name)?, condition))
    }
    async fn update(
        &self,
        name: &str,
        request: types::ContainerUpdateRequest,
    ) -> Result<types::ContainerUpdateResponse> {
        Ok(self.container_update(name, request).await?)
    }
    async fn top(&self, name: &str, ps_args: &str) -> Result<types::ContainerTop> {
        Ok(self.container_top(name, ps_args).await?)
    }
    async fn stats(&self, name: &str, stream: bool, one_shot: bool) -> Result<BoxStream<types::ContainerStats>> {
        Ok(self.arc().container_stats(name, stream, one_shot).await?)
    }
    async fn logs(&self, name: &str, options: LogOptions) -> Result<(bool, BoxStream<Output>)> {
        Ok(self.container_logs(name, options)?)
    }
    async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        Ok(self.arc().container_attach(name, options).await?)
    }
    async fn resize(&self, name: &str, height: u16, width: u16) -> Result<()> {
        let container = self.running(name)?;
        self.containerd.resize(&container.id, INIT, width, height).await?;
        let size = [("height", height.to_string()), ("width", width.to_string())];
        self.container_event(&container.record(), "resize", &size);
        Ok(())
    }
    async fn changes(&self, name: &str) -> Result<Vec<types::FilesystemChange>> {
        Ok(self.arc().container_changes(name).await?)
    }
    async fn export(&self, name: &str) -> Result<BoxStream<Bytes>> {
        Ok(self.arc().container_export(name).await?)
    }
    async fn archive_stat(&self, name: &str, path: &str) -> Result<types::PathStat> {
        Ok(self.arc().archive_stat(name, path).await?)
    }
    async fn archive_get(&self, name: &str, path: &str) -> Result<(types::PathStat, BoxStream<Bytes>)> {
        Ok(self.arc().archive_get(name, path).await?)
    }
    async fn archive_put(&self, name: &str, path: &str, options: ArchivePutOptions, tar: Reader) -> Result<()> {
        Ok(self.arc().archive_put(name, path, options, tar).await?)
    }
    async fn prune(&self, filters: Filters) -> Result<types::ContainersPruneResponse> {
        Ok(self.job("prune", "containers", self.arc().container_prune(filters)).await?)
    }
}

/// Runs an operation to its end even if the client goes away: half a start is nobody's wish.
pub(crate) async fn detached<T, F, W>(daemon: Arc<Daemon>, name: &str, work: W) -> crate::Result<T>
where
    T: Send + 'static,
    F: Future<Output = crate::Result<T>> + Send + 'static,
    W: FnOnce(Arc<Daemon>, String) -> F,
{
    match tokio::spawn(work(daemon, name.to_owned())).await {
        Ok(result) => result,
        Err(e) => Err(Error::System(format!("the operation failed: {e}"))),
    }
}
