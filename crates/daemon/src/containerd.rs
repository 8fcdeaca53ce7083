//! The daemon's side of docker-containerd: the calls it makes, and the one stream of events it listens to.
//!
//! Nothing here knows what a container is to Docker; it translates between calls and the protocol.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use containerd_api::types::api_client::ApiClient;
use containerd_api::types::{self, Checkpoint, EventsRequest};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::error::{Error, Result};

/// The process id of a container's first process.
pub const INIT: &str = "init";

/// A client; cloning it is cheap.
#[derive(Clone)]
pub struct Containerd {
    client: ApiClient<Channel>,
}

/// What happened to a container.
#[derive(Debug, Clone)]
pub struct Event {
    /// The container.
    pub id: String,
    /// What.
    pub kind: EventKind,
    /// When docker-containerd saw it.
    pub at: DateTime<Utc>,
}

/// The kinds of events the daemon acts upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A process ended.
    Exit {
        /// `init` or an exec's id.
        process: String,
        /// Its status.
        status: u32,
        /// Why the container was ended, when neither its program nor a client did it; else empty.
        reason: String,
    },
    /// The kernel killed for want of memory.
    Oom,
    /// Anything else.
    Other,
}

/// The stdio paths of a process; empty is `/dev/null`.
#[derive(Debug, Clone, Default)]
pub struct StdioPaths {
    /// Read by the process.
    pub stdin: PathBuf,
    /// Written by it.
    pub stdout: PathBuf,
    /// Written by it; unused with a terminal.
    pub stderr: PathBuf,
}

/// A container to start (or restore).
pub struct Create<'a> {
    /// Its id.
    pub id: &'a str,
    /// The bundle directory.
    pub bundle: &'a Path,
    /// Its stdio.
    pub stdio: &'a StdioPaths,
    /// Runtime binary and its arguments.
    pub runtime: &'a Runtime,
    /// Restore this checkpoint: its directory, split in parent and name.
    pub checkpoint: Option<(&'a Path, &'a str)>,
}

/// A runtime as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Path or name of the binary.
    pub path: String,
    /// Arguments before the subcommand.
    pub args: Vec<String>,
}

impl Containerd {
    /// Talks over this channel.
    pub fn new(channel: Channel) -> Self {
        Self { client: ApiClient::new(channel) }
    }

    /// docker-containerd's revision.
    pub async fn version(&self) -> Result<String> {
        let v = self.client.clone().get_server_version(types::GetServerVersionRequest {}).await?.into_inner();
        Ok(v.revision)
    }

    /// Starts (or restores) a container; returns the pid of its first process and what a restore measured.
    pub async fn create(&self, create: Create<'_>) -> Result<(i32, String)> {
        let (dir, name) = create.checkpoint.map_or((String::new(), String::new()), |(d, n)| (text(d), n.to_owned()));
        let request = types::CreateContainerRequest {
            id: create.id.to_owned(),
            bundle_path: text(create.bundle),
            checkpoint: name,
            checkpoint_dir: dir,
            stdin: text(&create.stdio.stdin),
            stdout: text(&create.stdio.stdout),
            stderr: text(&create.stdio.stderr),
            runtime: create.runtime.path.clone(),
            runtime_args: create.runtime.args.clone(),
            auto: create.checkpoint.is_some(),
            ..Default::default()
        };
        let answer = self.client.clone().create_container(request).await?.into_inner();
        let processes = answer.container.map(|c| c.processes).unwrap_or_default();
        let pid = processes.iter().find(|p| p.pid == INIT).map_or(0, |p| p.system_pid);
        match i32::try_from(pid) {
            Ok(pid) if pid > 0 => Ok((pid, answer.restore_stats)),
            _ => Err(Error::System("docker-containerd did not say the pid of the container".into())),
        }
    }

    /// Starts another process in a container; returns its pid.
    pub async fn add_process(&self, request: types::AddProcessRequest) -> Result<i32> {
        let answer = self.client.clone().add_process(request).await?.into_inner();
        Ok(answer.system_pid as i32)
    }

    /// Sends a signal to one process.
    pub async fn signal(&self, id: &str, process: &str, signal: u32) -> Result<()> {
        let request = types::SignalRequest { id: id.to_owned(), pid: process.to_owned(), signal };
        self.client.clone().signal(request).await?;
        Ok(())
    }

    /// Sets a terminal's size.
    pub async fn resize(&self, id: &str, process: &str, width: u16, height: u16) -> Result<()> {
        self.update_process(id, process, false, width, height).await
    }

    /// Closes a process's standard input.
    pub async fn close_stdin(&self, id: &str, process: &str) -> Result<()> {
        self.update_process(id, process, true, 0, 0).await
    }

    async fn update_process(&self, id: &str, process: &str, close_stdin: bool, width: u16, height: u16) -> Result<()> {
        let request = types::UpdateProcessRequest {
            id: id.to_owned(),
            pid: process.to_owned(),
            close_stdin,
            width: width.into(),
            height: height.into(),
        };
        self.client.clone().update_process(request).await?;
        Ok(())
    }

    /// Freezes or thaws a container.
    pub async fn set_paused(&self, id: &str, paused: bool) -> Result<()> {
        let status = if paused { "paused" } else { "running" };
        let request = types::UpdateContainerRequest {
            id: id.to_owned(),
            pid: INIT.to_owned(),
            status: status.to_owned(),
            resources: None,
        };
        self.client.clone().update_container(request).await?;
        Ok(())
    }

    /// Changes a container's limits.
    pub async fn update(&self, id: &str, resources: types::UpdateResource) -> Result<()> {
        let request = types::UpdateContainerRequest {
            id: id.to_owned(),
            pid: INIT.to_owned(),
            status: String::new(),
            resources: Some(resources),
        };
        self.client.clone().update_container(request).await?;
        Ok(())
    }

    /// One sample of a container's counters.
    pub async fn stats(&self, id: &str) -> Result<types::StatsResponse> {
        Ok(self.client.clone().stats(types::StatsRequest { id: id.to_owned() }).await?.into_inner())
    }

    /// The container as docker-containerd sees it; `None` when it does not know it.
    pub async fn state(&self, id: &str) -> Result<Option<types::Container>> {
        match self.client.clone().state(types::StateRequest { id: id.to_owned() }).await {
            Ok(answer) => Ok(answer.into_inner().containers.into_iter().find(|c| c.id == id)),
            Err(status) if status.message().contains("container not found") => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// The ids of all containers that docker-containerd has.
    pub async fn ids(&self) -> Result<Vec<String>> {
        let answer = self.client.clone().state(types::StateRequest::default()).await?.into_inner();
        Ok(answer.containers.into_iter().map(|c| c.id).collect())
    }

    /// Waits until docker-containerd has forgotten a container that was killed.
    pub async fn wait_gone(&self, id: &str, longest: Duration) -> Result<()> {
        let began = tokio::time::Instant::now();
        // Its end is an event, but whoever asks here has missed the beginning of the stream.
        while self.state(id).await?.is_some() {
            if began.elapsed() > longest {
                return Err(Error::System(format!("container {id} was killed and did not end")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Dumps a container to `<dir>/<name>`; returns what was measured, as JSON (empty when the runtime measures nothing).
    pub async fn checkpoint(&self, id: &str, dir: &Path, checkpoint: Checkpoint) -> Result<String> {
        let request = types::CreateCheckpointRequest {
            id: id.to_owned(),
            checkpoint: Some(checkpoint),
            checkpoint_dir: text(dir),
        };
        Ok(self.client.clone().create_checkpoint(request).await?.into_inner().stats)
    }

    /// Waits until docker-containerd has done with whatever it was asked to do to a container; it may have ended itself in
    /// the middle of that, and take it up again when it comes back.
    pub async fn quiesce(&self, id: &str) -> Result<()> {
        const LONGEST: Duration = Duration::from_secs(16 * 60);
        let began = tokio::time::Instant::now();
        loop {
            // Changes of a container go one after the other. This one changes nothing: dockerd keeps none in that place.
            let nothing = types::DeleteCheckpointRequest {
                id: id.to_owned(),
                name: "none".to_owned(),
                checkpoint_dir: String::new(),
            };
            match self.client.clone().delete_checkpoint(nothing).await {
                Ok(_) => return Ok(()),
                Err(status) if status.message().contains("container not found") => return Ok(()),
                Err(status) if began.elapsed() > LONGEST => return Err(status.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// What happened to one container since an instant, as far as docker-containerd remembers.
    pub async fn past_events(&self, id: &str, since: DateTime<Utc>) -> Result<Vec<Event>> {
        let request = EventsRequest { timestamp: Some(timestamp(since)), stored_only: true, id: id.to_owned() };
        let mut stream = self.client.clone().events(request).await?.into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await? {
            events.push(translate(event));
        }
        Ok(events)
    }

    /// Delivers every event from `since` on, for ever: when docker-containerd goes away the stream is opened again from
    /// the last event that was delivered, so that none is lost.
    pub fn follow_events(&self, since: DateTime<Utc>) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(256);
        let mut client = self.client.clone();
        tokio::spawn(async move {
            let mut last = since;
            loop {
                let request = EventsRequest { timestamp: Some(timestamp(last)), stored_only: false, id: String::new() };
                match client.events(request).await {
                    Ok(answer) => {
                        let mut stream = answer.into_inner();
                        loop {
                            match stream.message().await {
                                Ok(Some(event)) => {
                                    let event = translate(event);
                                    last = last.max(event.at);
                                    if sender.send(event).await.is_err() {
                                        return;
                                    }
                                }
                                Ok(None) => break,
                                Err(status) => {
                                    tracing::warn!("event stream of docker-containerd: {}", status.message());
                                    break;
                                }
                            }
                        }
                    }
                    Err(status) => tracing::debug!("cannot follow docker-containerd's events: {}", status.message()),
                }
                if sender.is_closed() {
                    return;
                }
                // The peer is gone or coming back; the connection itself tells nothing about when.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        receiver
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() as i32 }
}

fn translate(event: types::Event) -> Event {
    let at = event
        .timestamp
        .and_then(|t| Utc.timestamp_opt(t.seconds, u32::try_from(t.nanos).unwrap_or(0)).single())
        .unwrap_or_else(Utc::now);
    let kind = match event.r#type.as_str() {
        "exit" => EventKind::Exit { process: event.pid, status: event.status, reason: event.reason },
        "oom" => EventKind::Oom,
        _ => EventKind::Other,
    };
    Event { id: event.id, kind, at }
}
