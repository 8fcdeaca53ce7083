//! How the daemon is to be: what dockerd's flags and daemon.json come down to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::types::{LogConfig, Ulimit};

use crate::containerd::Runtime;

/// The daemon's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What outlives a reboot.
    pub data_root: PathBuf,
    /// What does not.
    pub exec_root: PathBuf,
    /// Networking.
    pub network: network::Config,
    /// Registries that are spoken to without TLS, or without checking it.
    pub insecure_registries: Vec<String>,
    /// Mirrors of Docker Hub.
    pub registry_mirrors: Vec<String>,
    /// Layers of one pull that are fetched at a time.
    pub max_concurrent_downloads: usize,
    /// Layers of one push that are sent at a time.
    pub max_concurrent_uploads: usize,
    /// Runtimes by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// The one that is used when a container names none.
    pub default_runtime: String,
    /// The cgroup that all containers are below.
    pub cgroup_parent: String,
    /// The log of a container that does not say.
    pub log_config: LogConfig,
    /// Limits of a container that does not say.
    pub default_ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm` of a container that does not say.
    pub default_shm_size: u64,
    /// Run `--init`'s program in every container that does not say.
    pub init: bool,
    /// `--init`'s program; `None` looks for one.
    pub init_path: Option<PathBuf>,
    /// Leave containers running when the daemon stops.
    pub live_restore: bool,
    /// How long a container may take to stop at the daemon's own stop, seconds.
    pub shutdown_timeout_seconds: i64,
    /// `docker info`'s labels.
    pub labels: Vec<String>,
    /// Whether the daemon runs with `--debug`.
    pub debug: bool,
    /// The version that is told.
    pub version: &'static str,
}

impl Config {
    /// How registries are spoken to.
    pub(crate) fn registry_options(&self) -> images::registry::RegistryOptions {
        images::registry::RegistryOptions {
            insecure: self.insecure_registries.clone(),
            mirrors: self.registry_mirrors.clone(),
            concurrent_downloads: self.max_concurrent_downloads,
            concurrent_uploads: self.max_concurrent_uploads,
            ..Default::default()
        }
    }
}
