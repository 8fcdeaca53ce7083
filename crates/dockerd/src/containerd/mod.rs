//! docker-containerd: started, watched, started again; or only dialled, when it is somebody else's.
//!
//! The process is looked after by one task. It is told at once (by a pidfd) when the process ends, and asks
//! it every half second whether it is well; after three bad answers in a row it is killed. Either way another is launched.
//! Containers do not notice: their shims go on.
//!
//! What must never happen here: two docker-containerds on one state directory. A living one is used instead of starting
//! another, whoever started it.

mod health;
mod launch;
mod process;
mod supervisor;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tonic::transport::Channel;

pub use launch::Launch;
pub use supervisor::Supervisor;

/// The docker-containerd that this dockerd uses.
pub enum Containerd {
    /// Ours: started and ended with us.
    Owned(Supervisor),
    /// Somebody else's (`--containerd`): only dialled.
    External(PathBuf),
}

impl Containerd {
    /// Starts ours, or finds the living one.
    pub async fn start(launch: Launch) -> anyhow::Result<Self> {
        Supervisor::start(launch).await.map(Self::Owned).context("failed to start containerd")
    }

    /// Waits for somebody else's to answer; for ever, as Docker does.
    pub async fn external(address: &str) -> anyhow::Result<Self> {
        let socket = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        let mut told = false;
        while let Err(error) = health::check(&socket).await {
            if !std::mem::replace(&mut told, true) {
                tracing::info!(socket = %socket.display(), %error, "waiting for containerd");
            }
            // Its owner does not know us: nobody can tell us when it is there.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(Self::External(socket))
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        match self {
            Self::Owned(supervisor) => supervisor.socket(),
            Self::External(socket) => socket,
        }
    }

    /// A channel to it, which finds its successors too.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        Ok(containerd_api::connect(self.socket()).await?)
    }

    /// Ends ours; containers go on.
    pub async fn stop(self) {
        if let Self::Owned(supervisor) = self {
            supervisor.stop().await;
        }
    }
}

/// Sets a process's `oom_score_adj`; where that is not allowed, it is said and the daemon goes on.
pub fn adjust_oom_score(pid: u32, score: i32) {
    if let Err(error) = launch::adjust_oom_score(pid, score) {
        tracing::info!(pid, score, %error, "oom_score_adj cannot be set");
    }
}
