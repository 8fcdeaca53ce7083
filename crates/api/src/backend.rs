//! What the routes need from the engine behind them: one trait per noun.
//!
//! A route parses, calls one method here and turns the answer into HTTP. No HTTP type appears in these traits, so that a
//! route can be read and tested without a daemon, and the daemon can be driven without HTTP.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::types;

/// A stream of items; an error ends it.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;
/// Bytes coming in, such as a request's body.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// Bytes going out to a process.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// Everything the router is given.
#[derive(Clone)]
pub struct Backends {
    /// `/containers`.
    pub containers: Arc<dyn ContainerBackend>,
    /// `/exec`.
    pub exec: Arc<dyn ExecBackend>,
    /// `/containers/{id}/checkpoints`.
    pub checkpoints: Arc<dyn CheckpointBackend>,
    /// `/images`, `/build`, `/commit`.
    pub images: Arc<dyn ImageBackend>,
    /// `/networks`.
    pub networks: Arc<dyn NetworkBackend>,
    /// `/volumes`.
    pub volumes: Arc<dyn VolumeBackend>,
    /// `/info`, `/version`, `/events`, `/system/df`, `/auth`.
    pub system: Arc<dyn SystemBackend>,
}

/// Which of a process's outputs a piece of output belongs to. The numbers are those of the multiplexed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// Only in the numbering; never sent by Docker.
    Stdin = 0,
    /// Standard output, and everything when there is a terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the engine, told on the stream because the headers are gone.
    Systemerr = 3,
}

/// A piece of output.
#[derive(Debug, Clone)]
pub struct Output {
    /// Where it came from.
    pub stream: StreamKind,
    /// The bytes.
    pub data: Bytes,
}

/// A connection to a process's stdio.
pub struct Attached {
    /// With a terminal the output is sent raw, without one multiplexed.
    pub tty: bool,
    /// Where to write what the client sends; `None` when stdin was not asked for. Dropping (shutting down) it closes
    /// the process's stdin as far as the container's `StdinOnce` says so.
    pub stdin: Option<Writer>,
    /// What to send to the client. Ends when the process's output ends, or at the detach keys.
    pub output: BoxStream<Output>,
}

/// `GET /containers/json`.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The newest n, whether they run or not.
    pub limit: Option<usize>,
    /// Compute sizes.
    pub size: bool,
    /// The filters.
    pub filters: Filters,
}

/// `POST /containers/{id}/attach`.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// Replay what was logged.
    pub logs: bool,
    /// Stay for what comes.
    pub stream: bool,
    /// Connect stdin.
    pub stdin: bool,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr.
    pub stderr: bool,
    /// In Docker's notation (`ctrl-p,ctrl-q`); `None` is the default.
    pub detach_keys: Option<String>,
}

/// `GET /containers/{id}/logs`.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Stay for what comes.
    pub follow: bool,
    /// Include stdout.
    pub stdout: bool,
    /// Include stderr.
    pub stderr: bool,
    /// Not before this instant, nanoseconds since the epoch.
    pub since_ns: Option<i128>,
    /// Not after this instant, nanoseconds since the epoch.
    pub until_ns: Option<i128>,
    /// Prefix each line with its RFC 3339 time.
    pub timestamps: bool,
    /// Prefix each line with the log's labels and environment.
    pub details: bool,
    /// Only the last n lines; `None` is all.
    pub tail: Option<usize>,
}

/// `POST /containers/{id}/start`.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Restore this checkpoint instead of starting afresh.
    pub checkpoint: Option<String>,
    /// Where the checkpoint is, when not in the container's own directory.
    pub checkpoint_dir: Option<PathBuf>,
}

/// `DELETE /containers/{id}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
    /// Remove a legacy link instead of a container.
    pub link: bool,
}

/// `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Until it does not run; at once when it does not run now.
    #[default]
    NotRunning,
    /// Until it ends the next time.
    NextExit,
    /// Until it is removed.
    Removed,
}

/// Whether a state-changing call changed anything (false → 304).
pub type Changed = bool;

/// `/containers`.
#[async_trait]
pub trait ContainerBackend: Send + Sync {
    /// Lists containers, newest first.
    async fn list(&self, options: ListOptions) -> Result<Vec<types::ContainerSummary>>;
    /// Creates a container. `name` as asked for, not yet checked.
    async fn create(
        &self,
        name: Option<String>,
        platform: Option<String>,
        request: types::ContainerCreateRequest,
    ) -> Result<types::ContainerCreateResponse>;
    /// Describes a container.
    async fn inspect(&self, name: &str, size: bool) -> Result<types::ContainerInspect>;
    /// Starts it, or restores it from a checkpoint.
    async fn start(&self, name: &str, options: StartOptions) -> Result<Changed>;
    /// Stops it: its stop signal, then SIGKILL after `timeout` seconds (`None`: the container's own; negative: never).
    async fn stop(&self, name: &str, signal: Option<String>, timeout_seconds: Option<i64>) -> Result<Changed>;
    /// Stops and starts it.
    async fn restart(&self, name: &str, signal: Option<String>, timeout_seconds: Option<i64>) -> Result<()>;
    /// Sends a signal (name or number; `None` is SIGKILL).
    async fn kill(&self, name: &str, signal: Option<String>) -> Result<()>;
    /// Freezes it.
    async fn pause(&self, name: &str) -> Result<()>;
    /// Thaws it.
    async fn unpause(&self, name: &str) -> Result<()>;
    /// Gives it another name.
    async fn rename(&self, name: &str, new_name: &str) -> Result<()>;
    /// Removes it.
    async fn remove(&self, name: &str, options: RemoveOptions) -> Result<()>;
    /// Registers the wait before it returns; the future inside ends when the condition holds. The headers go out in
    /// between: `docker run` counts on it.
    async fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, types::ContainerWaitResponse>>;
    /// Changes limits and the restart policy.
    async fn update(
        &self,
        name: &str,
        request: types::ContainerUpdateRequest,
    ) -> Result<types::ContainerUpdateResponse>;
    /// Lists its processes with `ps`'s arguments.
    async fn top(&self, name: &str, ps_args: &str) -> Result<types::ContainerTop>;
    /// One sample (`stream` false), or one a second until the client goes away. `one_shot`: do not wait for a previous sample.
    async fn stats(&self, name: &str, stream: bool, one_shot: bool) -> Result<BoxStream<types::ContainerStats>>;
    /// Reads its log. The flag says whether it has a terminal (raw) or not (multiplexed).
    async fn logs(&self, name: &str, options: LogOptions) -> Result<(bool, BoxStream<Output>)>;
    /// Connects to its stdio.
    async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached>;
    /// Sets the size of its terminal.
    async fn resize(&self, name: &str, height: u16, width: u16) -> Result<()>;
    /// What its file system has changed against its image.
    async fn changes(&self, name: &str) -> Result<Vec<types::FilesystemChange>>;
    /// Its whole file system as a tar.
    async fn export(&self, name: &str) -> Result<BoxStream<Bytes>>;
    /// What is at a path.
    async fn archive_stat(&self, name: &str, path: &str) -> Result<types::PathStat>;
    /// What is at a path, with a tar of it.
    async fn archive_get(&self, name: &str, path: &str) -> Result<(types::PathStat, BoxStream<Bytes>)>;
    /// Unpacks a tar (plain or gzip, bzip2, xz, zstd) in a directory.
    async fn archive_put(&self, name: &str, path: &str, options: ArchivePutOptions, tar: Reader) -> Result<()>;
    /// Removes all stopped ones that match.
    async fn prune(&self, filters: Filters) -> Result<types::ContainersPruneResponse>;
}

/// `PUT /containers/{id}/archive`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArchivePutOptions {
    /// Refuse to replace a directory by a non-directory and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the archive's owners.
    pub copy_uid_gid: bool,
}

/// `/exec` and `/containers/{id}/exec`.
#[async_trait]
pub trait ExecBackend: Send + Sync {
    /// Prepares a process; returns its id.
    async fn create(&self, container: &str, request: types::ExecCreateRequest) -> Result<types::IdResponse>;
    /// Starts it detached.
    async fn start_detached(&self, id: &str, request: types::ExecStartRequest) -> Result<()>;
    /// Starts it and connects to its stdio.
    async fn start_attached(&self, id: &str, request: types::ExecStartRequest) -> Result<Attached>;
    /// Sets the size of its terminal.
    async fn resize(&self, id: &str, height: u16, width: u16) -> Result<()>;
    /// Describes it.
    async fn inspect(&self, id: &str) -> Result<types::ExecInspect>;
}

/// `/containers/{id}/checkpoints`.
#[async_trait]
pub trait CheckpointBackend: Send + Sync {
    /// Puts a container to sleep under a name.
    async fn create(&self, container: &str, request: types::CheckpointCreateRequest)
    -> Result<types::CheckpointTiming>;
    /// Lists a container's checkpoints; with `verify` every file is read and compared with its digest.
    async fn list(&self, container: &str, dir: Option<PathBuf>, verify: bool) -> Result<Vec<types::CheckpointSummary>>;
    /// Removes one.
    async fn remove(&self, container: &str, checkpoint: &str, dir: Option<PathBuf>) -> Result<()>;
    /// Whether the container can sleep now, and if not, why (addition to Docker's API).
    async fn preflight(&self, container: &str) -> Result<types::CheckpointPreflight>;
}

/// A registry's credentials, from `X-Registry-Auth`.
#[derive(Clone, Default)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// OAuth refresh token, used instead of a password.
    pub identity_token: String,
    /// A bearer token to use as it is.
    pub registry_token: String,
    /// The registry they are for.
    pub server_address: String,
}

/// Where the tar of an import comes from.
pub enum ImportSource {
    /// The request's body.
    Body(Reader),
    /// A web server: a URL, or what becomes one with `http://` before it.
    Url(String),
}

/// `/images`, `/commit`, `/build`.
#[async_trait]
pub trait ImageBackend: Send + Sync {
    /// Lists images.
    async fn list(&self, all: bool, digests: bool, filters: Filters) -> Result<Vec<types::ImageSummary>>;
    /// Describes one.
    async fn inspect(&self, name: &str) -> Result<types::ImageInspect>;
    /// Its layers' history.
    async fn history(&self, name: &str) -> Result<Vec<types::ImageHistoryItem>>;
    /// Gives it another name.
    async fn tag(&self, name: &str, repo: &str, tag: &str) -> Result<()>;
    /// Removes a name or an image.
    async fn remove(&self, name: &str, force: bool, prune_parents: bool) -> Result<Vec<types::ImageDeleteItem>>;
    /// Pulls from a registry. An error before anything was sent is returned; a later one is the stream's last item.
    async fn pull(
        &self,
        image: &str,
        tag: &str,
        platform: Option<String>,
        auth: Option<RegistryAuth>,
    ) -> Result<BoxStream<types::Progress>>;
    /// Pushes to a registry.
    async fn push(&self, image: &str, tag: &str, auth: Option<RegistryAuth>) -> Result<BoxStream<types::Progress>>;
    /// Makes an image from a root file system's tar.
    async fn import(
        &self,
        repo: &str,
        tag: &str,
        message: &str,
        changes: Vec<String>,
        platform: Option<String>,
        source: ImportSource,
    ) -> Result<BoxStream<types::Progress>>;
    /// Loads `docker save`'s (or an OCI layout's) tar.
    async fn load(&self, quiet: bool, tar: Reader) -> Result<BoxStream<types::Progress>>;
    /// Writes images as a tar.
    async fn save(&self, names: Vec<String>) -> Result<BoxStream<Bytes>>;
    /// Makes an image from a container.
    async fn commit(&self, options: CommitOptions, config: Option<types::ContainerConfig>)
    -> Result<types::IdResponse>;
    /// Removes unused images.
    async fn prune(&self, filters: Filters) -> Result<types::ImagesPruneResponse>;
    /// Searches a registry.
    async fn search(&self, term: &str, limit: Option<usize>, filters: Filters) -> Result<Vec<types::ImageSearchItem>>;
    /// The manifest and platforms behind a registry name (`/distribution/{name}/json`).
    async fn distribution(&self, name: &str, auth: Option<RegistryAuth>) -> Result<types::DistributionInspect>;
}

/// `POST /commit`.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// From this container.
    pub container: String,
    /// Repository of the new image; empty for none.
    pub repo: String,
    /// Its tag.
    pub tag: String,
    /// Comment.
    pub comment: String,
    /// Author.
    pub author: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
}

/// `/networks`.
#[async_trait]
pub trait NetworkBackend: Send + Sync {
    /// Lists networks.
    async fn list(&self, filters: Filters) -> Result<Vec<types::NetworkInspect>>;
    /// Describes one, with the containers on it.
    async fn inspect(&self, name: &str, scope: Option<String>, verbose: bool) -> Result<types::NetworkInspect>;
    /// Creates one.
    async fn create(&self, request: types::NetworkCreateRequest) -> Result<types::NetworkCreateResponse>;
    /// Removes one.
    async fn remove(&self, name: &str) -> Result<()>;
    /// Puts a container on it.
    async fn connect(&self, name: &str, request: types::NetworkConnectRequest) -> Result<()>;
    /// Takes a container off it.
    async fn disconnect(&self, name: &str, request: types::NetworkDisconnectRequest) -> Result<()>;
    /// Removes unused ones.
    async fn prune(&self, filters: Filters) -> Result<types::NetworksPruneResponse>;
}

/// `/volumes`.
#[async_trait]
pub trait VolumeBackend: Send + Sync {
    /// Lists volumes.
    async fn list(&self, filters: Filters) -> Result<types::VolumeListResponse>;
    /// Describes one.
    async fn inspect(&self, name: &str) -> Result<types::Volume>;
    /// Creates one (an existing one with the same driver and options is returned).
    async fn create(&self, request: types::VolumeCreateRequest) -> Result<types::Volume>;
    /// Removes one.
    async fn remove(&self, name: &str, force: bool) -> Result<()>;
    /// Removes unused ones.
    async fn prune(&self, filters: Filters) -> Result<types::VolumesPruneResponse>;
}

/// `GET /events`.
#[derive(Debug, Clone, Default)]
pub struct EventsOptions {
    /// Replay from this instant, nanoseconds since the epoch.
    pub since_ns: Option<i128>,
    /// End at this instant; one in the past ends after the replay.
    pub until_ns: Option<i128>,
    /// The filters.
    pub filters: Filters,
}

/// `/info`, `/version`, `/events`, `/system/df`, `/auth`.
#[async_trait]
pub trait SystemBackend: Send + Sync {
    /// `docker info`.
    async fn info(&self) -> Result<types::SystemInfo>;
    /// `docker version`.
    async fn version(&self) -> Result<types::SystemVersion>;
    /// `docker system df`. `types` empty means all of `container`, `image`, `volume`, `build-cache`.
    async fn disk_usage(&self, types: Vec<String>) -> Result<types::SystemDataUsage>;
    /// What happens from now on (and, with `since`, what happened).
    async fn events(&self, options: EventsOptions) -> Result<BoxStream<types::EventMessage>>;
    /// Checks credentials against a registry.
    async fn auth(&self, auth: RegistryAuth) -> Result<types::AuthResponse>;
}

/// For a method that is not built.
pub fn not_implemented<T>(what: &str) -> Result<T> {
    Err(Error::new(errors::Kind::NotImplemented, format!("{what} is not implemented")))
}
