//! Backends that note what they are asked, and answer by the name they are asked about.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use errors::Kind;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, mpsc};

use crate::backend::*;
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::types;

#[derive(Clone, Default)]
pub struct Fake(Arc<State>);

#[derive(Default)]
struct State {
    calls: Mutex<Vec<String>>,
    /// Lets what waits go on.
    go: Notify,
}

impl Fake {
    fn note(&self, call: impl Into<String>) {
        self.0.calls.lock().unwrap().push(call.into());
    }

    pub fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    pub fn last(&self) -> String {
        self.calls().last().cloned().unwrap_or_default()
    }

    pub fn go(&self) {
        self.0.go.notify_one();
    }
}

pub fn backends(fake: &Fake) -> Backends {
    let fake = Arc::new(fake.clone());
    Backends {
        containers: fake.clone(),
        exec: fake.clone(),
        checkpoints: fake.clone(),
        images: fake.clone(),
        networks: fake.clone(),
        volumes: fake.clone(),
        system: fake,
    }
}

/// The error that a name stands for.
fn by_name(name: &str) -> Result<()> {
    let kind = match name {
        "missing" => Kind::NotFound,
        "bad" => Kind::InvalidParameter,
        "busy" => Kind::Conflict,
        "already" => Kind::NotModified,
        "forbidden" => Kind::Forbidden,
        "unauthorized" => Kind::Unauthorized,
        "unavailable" => Kind::Unavailable,
        "unbuilt" => Kind::NotImplemented,
        "broken" => Kind::System,
        _ => return Ok(()),
    };
    Err(Error::new(kind, format!("No such container: {name}")))
}

fn output(stream: StreamKind, data: &'static str) -> Result<Output> {
    Ok(Output { stream, data: data.into() })
}

/// A process like `cat`: everything comes back, and at the end of input one last word on stderr.
fn cat(tty: bool) -> Attached {
    let (ours, theirs) = tokio::io::duplex(1024);
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut stdin = theirs;
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = stdin.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..length]);
            let _ = sender.send(Ok(Output { stream: StreamKind::Stdout, data })).await;
        }
        let _ = sender.send(output(StreamKind::Stderr, "bye")).await;
    });
    Attached {
        tty,
        stdin: Some(Box::pin(ours)),
        output: futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|item| (item, receiver))
        })
        .boxed(),
    }
}

#[async_trait]
impl ContainerBackend for Fake {
    async fn list(&self, options: ListOptions) -> Result<Vec<types::ContainerSummary>> {
        self.note(format!("{options:?}"));
        Ok(vec![])
    }
    async fn create(
        &self,
        name: Option<String>,
        platform: Option<String>,
        request: types::ContainerCreateRequest,
    ) -> Result<types::ContainerCreateResponse> {
        self.note(format!("create {name:?} {platform:?} {} {:?}", request.config.image, request.config.cmd));
        Ok(types::ContainerCreateResponse { id: "abc".into(), warnings: vec![] })
    }
    async fn inspect(&self, name: &str, size: bool) -> Result<types::ContainerInspect> {
        self.note(format!("inspect {name} {size}"));
        by_name(name)?;
        Ok(types::ContainerInspect { id: name.into(), ..Default::default() })
    }
    async fn start(&self, name: &str, options: StartOptions) -> Result<Changed> {
        self.note(format!("start {name} {options:?}"));
        by_name(name)?;
        Ok(name != "running")
    }
    async fn stop(&self, name: &str, signal: Option<String>, timeout_seconds: Option<i64>) -> Result<Changed> {
        self.note(format!("stop {name} {signal:?} {timeout_seconds:?}"));
        Ok(true)
    }
    async fn restart(&self, _: &str, _: Option<String>, _: Option<i64>) -> Result<()> {
        // Takes its time, and notes that it came to its end.
        self.0.go.notified().await;
        self.note("restarted");
        Ok(())
    }
    async fn kill(&self, name: &str, _: Option<String>) -> Result<()> {
        by_name(name)
    }
    async fn pause(&self, _: &str) -> Result<()> {
        panic!("a bug")
    }
    async fn unpause(&self, name: &str) -> Result<()> {
        by_name(name)
    }
    async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        self.note(format!("rename {name} {new_name}"));
        Ok(())
    }
    async fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        self.note(format!("remove {name} {options:?}"));
        by_name(name)
    }
    async fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<BoxFuture<'static, types::ContainerWaitResponse>> {
        self.note(format!("wait {name} {condition:?}"));
        by_name(name)?;
        let fake = self.clone();
        Ok(async move {
            fake.0.go.notified().await;
            types::ContainerWaitResponse { status_code: 7, ..Default::default() }
        }
        .boxed())
    }
    async fn update(&self, _: &str, request: types::ContainerUpdateRequest) -> Result<types::ContainerUpdateResponse> {
        self.note(format!("update {} {:?}", request.resources.memory, request.resources.pids_limit));
        Ok(Default::default())
    }
    async fn top(&self, _: &str, ps_args: &str) -> Result<types::ContainerTop> {
        self.note(format!("top {ps_args}"));
        Ok(Default::default())
    }
    async fn stats(&self, _: &str, stream: bool, one_shot: bool) -> Result<BoxStream<types::ContainerStats>> {
        self.note(format!("stats {stream} {one_shot}"));
        Ok(futures::stream::iter([Ok(Default::default())]).boxed())
    }
    async fn logs(&self, name: &str, options: LogOptions) -> Result<(bool, BoxStream<Output>)> {
        self.note(format!("logs {options:?}"));
        by_name(name)?;
        let items = [output(StreamKind::Stdout, "out"), output(StreamKind::Stderr, "err")];
        Ok((name == "tty", futures::stream::iter(items).boxed()))
    }
    async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        self.note(format!("attach {name} {options:?}"));
        by_name(name)?;
        Ok(cat(name == "tty"))
    }
    async fn resize(&self, _: &str, height: u16, width: u16) -> Result<()> {
        self.note(format!("resize {height} {width}"));
        Ok(())
    }
    async fn changes(&self, _: &str) -> Result<Vec<types::FilesystemChange>> {
        Ok(vec![types::FilesystemChange { kind: 1, path: "/a".into() }])
    }
    async fn export(&self, _: &str) -> Result<BoxStream<Bytes>> {
        Ok(futures::stream::iter([Ok("tar".into())]).boxed())
    }
    async fn archive_stat(&self, name: &str, path: &str) -> Result<types::PathStat> {
        by_name(name)?;
        Ok(types::PathStat { name: path.into(), size: 3, ..Default::default() })
    }
    async fn archive_get(&self, name: &str, path: &str) -> Result<(types::PathStat, BoxStream<Bytes>)> {
        Ok((self.archive_stat(name, path).await?, futures::stream::iter([Ok("tar".into())]).boxed()))
    }
    async fn archive_put(&self, _: &str, path: &str, options: ArchivePutOptions, mut tar: Reader) -> Result<()> {
        let mut data = Vec::new();
        tar.read_to_end(&mut data).await?;
        self.note(format!("put {path} {} {}", options.no_overwrite_dir_non_dir, data.len()));
        Ok(())
    }
    async fn prune(&self, _: Filters) -> Result<types::ContainersPruneResponse> {
        Ok(Default::default())
    }
}

#[async_trait]
impl ExecBackend for Fake {
    async fn create(&self, container: &str, request: types::ExecCreateRequest) -> Result<types::IdResponse> {
        self.note(format!("exec {container} {:?}", request.cmd));
        by_name(container)?;
        Ok(types::IdResponse { id: "e1".into() })
    }
    async fn start_detached(&self, id: &str, _: types::ExecStartRequest) -> Result<()> {
        self.note(format!("exec detached {id}"));
        Ok(())
    }
    async fn start_attached(&self, id: &str, request: types::ExecStartRequest) -> Result<Attached> {
        self.note(format!("exec attached {id}"));
        by_name(id)?;
        Ok(cat(request.tty))
    }
    async fn resize(&self, _: &str, _: u16, _: u16) -> Result<()> {
        Ok(())
    }
    async fn inspect(&self, id: &str) -> Result<types::ExecInspect> {
        Ok(types::ExecInspect { id: id.into(), ..Default::default() })
    }
}

#[async_trait]
impl CheckpointBackend for Fake {
    async fn create(
        &self,
        container: &str,
        request: types::CheckpointCreateRequest,
    ) -> Result<types::CheckpointTiming> {
        self.note(format!("checkpoint {container} {} {}", request.checkpoint_id, request.exit));
        by_name(container)?;
        Ok(types::CheckpointTiming { name: request.checkpoint_id, total_micros: 7, ..Default::default() })
    }
    async fn list(&self, container: &str, dir: Option<PathBuf>, verify: bool) -> Result<Vec<types::CheckpointSummary>> {
        self.note(format!("checkpoints {container} {dir:?} {verify}"));
        Ok(vec![types::CheckpointSummary { name: "c1".into(), ..Default::default() }])
    }
    async fn remove(&self, container: &str, checkpoint: &str, dir: Option<PathBuf>) -> Result<()> {
        self.note(format!("remove checkpoint {container} {checkpoint} {dir:?}"));
        Ok(())
    }
    async fn preflight(&self, _: &str) -> Result<types::CheckpointPreflight> {
        Ok(types::CheckpointPreflight { possible: true, ..Default::default() })
    }
}

#[async_trait]
impl ImageBackend for Fake {
    async fn list(&self, _: bool, _: bool, filters: Filters) -> Result<Vec<types::ImageSummary>> {
        self.note(format!("{filters:?}"));
        Ok(vec![types::ImageSummary { size: 5, containers: 2, ..Default::default() }])
    }
    async fn inspect(&self, name: &str) -> Result<types::ImageInspect> {
        self.note(format!("image {name}"));
        by_name(name)?;
        Ok(types::ImageInspect { config: Some(Default::default()), ..Default::default() })
    }
    async fn history(&self, name: &str) -> Result<Vec<types::ImageHistoryItem>> {
        self.note(format!("history {name}"));
        Ok(vec![])
    }
    async fn tag(&self, name: &str, repo: &str, tag: &str) -> Result<()> {
        self.note(format!("tag {name} {repo} {tag}"));
        Ok(())
    }
    async fn remove(&self, name: &str, force: bool, prune_parents: bool) -> Result<Vec<types::ImageDeleteItem>> {
        self.note(format!("rmi {name} {force} {prune_parents}"));
        Ok(vec![types::ImageDeleteItem { untagged: name.into(), ..Default::default() }])
    }
    async fn pull(
        &self,
        image: &str,
        tag: &str,
        platform: Option<String>,
        auth: Option<RegistryAuth>,
    ) -> Result<BoxStream<types::Progress>> {
        self.note(format!("pull {image} {tag} {platform:?} {:?}", auth.map(|auth| auth.username)));
        by_name(image)?;
        let status = types::Progress { status: "Pulling".into(), ..Default::default() };
        Ok(futures::stream::iter([Ok(status), Err(Error::system("line cut"))]).boxed())
    }
    async fn push(&self, image: &str, tag: &str, _: Option<RegistryAuth>) -> Result<BoxStream<types::Progress>> {
        self.note(format!("push {image} {tag}"));
        Ok(futures::stream::empty().boxed())
    }
    async fn import(
        &self,
        repo: &str,
        tag: &str,
        message: &str,
        changes: Vec<String>,
        _: Option<String>,
        source: ImportSource,
    ) -> Result<BoxStream<types::Progress>> {
        let mut data = String::new();
        match source {
            ImportSource::Body(mut tar) => drop(tar.read_to_string(&mut data).await?),
            ImportSource::Url(url) => data = url,
        }
        self.note(format!("import {repo} {tag} {message} {changes:?} {data}"));
        Ok(futures::stream::empty().boxed())
    }
    async fn load(&self, quiet: bool, _: Reader) -> Result<BoxStream<types::Progress>> {
        self.note(format!("load {quiet}"));
        Err(Error::invalid("not an archive"))
    }
    async fn save(&self, names: Vec<String>) -> Result<BoxStream<Bytes>> {
        self.note(format!("save {names:?}"));
        Ok(futures::stream::iter([Ok("tar".into())]).boxed())
    }
    async fn commit(
        &self,
        options: CommitOptions,
        config: Option<types::ContainerConfig>,
    ) -> Result<types::IdResponse> {
        self.note(format!("commit {} {} {}", options.container, options.pause, config.is_some()));
        Ok(types::IdResponse { id: "sha256:1".into() })
    }
    async fn prune(&self, _: Filters) -> Result<types::ImagesPruneResponse> {
        Ok(Default::default())
    }
    async fn search(&self, _: &str, _: Option<usize>, _: Filters) -> Result<Vec<types::ImageSearchItem>> {
        Ok(vec![])
    }
    async fn distribution(&self, _: &str, _: Option<RegistryAuth>) -> Result<types::DistributionInspect> {
        Ok(Default::default())
    }
}

#[async_trait]
impl NetworkBackend for Fake {
    async fn list(&self, _: Filters) -> Result<Vec<types::NetworkInspect>> {
        Ok(vec![])
    }
    async fn inspect(&self, name: &str, _: Option<String>, _: bool) -> Result<types::NetworkInspect> {
        by_name(name)?;
        Ok(types::NetworkInspect { name: name.into(), ..Default::default() })
    }
    async fn create(&self, request: types::NetworkCreateRequest) -> Result<types::NetworkCreateResponse> {
        Ok(types::NetworkCreateResponse { id: request.name, ..Default::default() })
    }
    async fn remove(&self, name: &str) -> Result<()> {
        by_name(name)
    }
    async fn connect(&self, name: &str, request: types::NetworkConnectRequest) -> Result<()> {
        self.note(format!("connect {name} {}", request.container));
        Ok(())
    }
    async fn disconnect(&self, name: &str, request: types::NetworkDisconnectRequest) -> Result<()> {
        self.note(format!("disconnect {name} {} {}", request.container, request.force));
        Ok(())
    }
    async fn prune(&self, _: Filters) -> Result<types::NetworksPruneResponse> {
        Ok(Default::default())
    }
}

#[async_trait]
impl VolumeBackend for Fake {
    async fn list(&self, _: Filters) -> Result<types::VolumeListResponse> {
        Ok(Default::default())
    }
    async fn inspect(&self, name: &str) -> Result<types::Volume> {
        by_name(name)?;
        Ok(types::Volume { name: name.into(), ..Default::default() })
    }
    async fn create(&self, request: types::VolumeCreateRequest) -> Result<types::Volume> {
        Ok(types::Volume { name: request.name, ..Default::default() })
    }
    async fn remove(&self, name: &str, _: bool) -> Result<()> {
        by_name(name)
    }
    async fn prune(&self, filters: Filters) -> Result<types::VolumesPruneResponse> {
        self.note(format!("{filters:?}"));
        Ok(Default::default())
    }
}

#[async_trait]
impl SystemBackend for Fake {
    async fn info(&self) -> Result<types::SystemInfo> {
        Ok(Default::default())
    }
    async fn version(&self) -> Result<types::SystemVersion> {
        Ok(Default::default())
    }
    async fn disk_usage(&self, types: Vec<String>) -> Result<types::SystemDataUsage> {
        self.note(format!("df {types:?}"));
        Ok(Default::default())
    }
    async fn events(&self, options: EventsOptions) -> Result<BoxStream<types::EventMessage>> {
        self.note(format!("{options:?}"));
        let fake = self.clone();
        let event = |kind: &str, action: &str| types::EventMessage {
            r#type: kind.into(),
            action: action.into(),
            ..Default::default()
        };
        let first = [Ok(event("container", "start")), Ok(event("image", "create"))];
        let second = async move {
            fake.0.go.notified().await;
            Ok(event("container", "die"))
        };
        Ok(futures::stream::iter(first).chain(futures::stream::once(second)).boxed())
    }
    async fn auth(&self, auth: RegistryAuth) -> Result<types::AuthResponse> {
        self.note(format!("auth {}", auth.username));
        Ok(types::AuthResponse { status: "Login Succeeded".into(), ..Default::default() })
    }
}
