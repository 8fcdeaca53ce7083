//! The daemon: what Docker's API does, behind the traits that crate `api` defines. One folder per noun.
//!
//! It sees no HTTP. It owns the containers' records and drives docker-containerd, the image store, the networks and the
//! volumes. A request goes `api` → the backend trait → one file here that is named after the verb.
#![forbid(unsafe_code)]

pub mod checkpoints;
pub mod config;
pub mod containerd;
pub mod containers;
pub mod error;
pub mod events;
pub mod exec;
pub mod images;
pub mod networks;
mod records;
pub mod system;
pub mod volumes;

use std::sync::{Arc, Weak};

use api::backend::Backends;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use error::{Error, Result};

use crate::containerd::Containerd;
use crate::containers::Containers;
use crate::events::Events;
use crate::exec::Execs;
use crate::records::Records;
use crate::volumes::Volumes;

/// The daemon.
pub struct Daemon {
    /// How it is to be.
    pub config: Config,
    /// The engine's id, kept over restarts.
    pub id: String,
    /// When it was opened.
    pub started_at: chrono::DateTime<chrono::Utc>,
    pub(crate) containerd: Containerd,
    pub(crate) containers: Containers,
    pub(crate) execs: Execs,
    pub(crate) images: ::images::Images,
    pub(crate) registry: ::images::registry::Registry,
    pub(crate) networks: ::network::Networks,
    pub(crate) volumes: Volumes,
    pub(crate) events: Events,
    pub(crate) records: Records,
    /// Runs and lists jobs.
    pub(crate) engine: engine::Engine,
    /// What this engine's checkpoints are sealed with.
    pub(crate) seal_key: checkpoint::Key,
    /// What was found wrong with CRIU at boot.
    pub(crate) criu_warning: std::sync::OnceLock<String>,
    /// Cancelled when the daemon begins to end.
    pub(crate) stopping: CancellationToken,
    /// Itself, for work that outlives a call.
    this: Weak<Self>,
}

impl Daemon {
    /// Opens the stores, finds the containers that run on, and follows docker-containerd's events. Nothing half-made
    /// from before is left when it returns.
    pub async fn open(config: Config, channel: tonic::transport::Channel, engine: engine::Engine) -> Result<Arc<Self>> {
        use error::Context;
        for dir in [&config.data_root, &config.exec_root] {
            std::fs::create_dir_all(dir).context(|| format!("mkdir {}", dir.display()))?;
        }
        let records = Records::open(&config.data_root)?;
        let data_root = config.data_root.clone();
        let images = error::blocking(move || Ok(::images::Images::open(&data_root)?)).await?;
        let registry = ::images::registry::Registry::new(images.clone(), config.registry_options());
        let networks = ::network::Networks::open(config.network.clone()).await?;
        let id = records.setting("engine-id", system::new_engine_id)?;
        let secret = records
            .setting("checkpoint-key", || format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))?;
        let containers = Containers::load(&records)?;
        let volumes = Volumes::open(&config.data_root, records.clone())?;
        let daemon = Arc::new_cyclic(|this| Self {
            id,
            started_at: chrono::Utc::now(),
            containerd: Containerd::new(channel),
            containers,
            execs: Execs::default(),
            images,
            registry,
            networks,
            volumes,
            events: Events::default(),
            records,
            engine,
            seal_key: checkpoint::Key::from_secret(&secret),
            criu_warning: std::sync::OnceLock::new(),
            stopping: CancellationToken::new(),
            this: this.clone(),
            config,
        });
        let looking = daemon.clone();
        tokio::spawn(async move {
            if let Err(e) = system::check_criu().await {
                tracing::warn!("{e}");
                let _ = looking.criu_warning.set(e.to_string());
            }
        });
        daemon.clone().recover().await?;
        Ok(daemon)
    }

    /// Itself, shared: a method is only ever called through an `Arc`.
    #[expect(clippy::expect_used, reason = "`&self` came out of the only Arc, which therefore lives")]
    pub(crate) fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("a daemon lives in an Arc")
    }

    /// Runs what somebody may wait for as a job: it is logged, listed while it runs, and told to stop at shutdown.
    pub(crate) async fn job<T>(&self, name: &str, on: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        Ok(self.engine.job(name).arg(on).run_with(|_| async { Ok(work.await?) }).await?)
    }

    /// The daemon as the API sees it.
    pub fn backends(self: &Arc<Self>) -> Backends {
        Backends {
            containers: self.clone(),
            exec: self.clone(),
            checkpoints: self.clone(),
            images: self.clone(),
            networks: self.clone(),
            volumes: self.clone(),
            system: self.clone(),
        }
    }
}
