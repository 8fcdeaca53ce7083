//! What is kept of a container: one row of the `containers` table, as JSON, written as a whole at every change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::types::{ContainerConfig, EndpointSettings, HostConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::mounts::MountPlan;
use super::state::State;

/// A container, as far as it outlives dockerd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// Digest of its image's configuration; empty for a container made from nothing.
    pub image_id: String,
    /// The program, resolved from entrypoint and command.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The portable part of its configuration, merged with the image's.
    pub config: ContainerConfig,
    /// The part that concerns this host.
    pub host_config: HostConfig,
    /// The networks it is to be on (by name), with what was asked for and, while it runs, what it got.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// Its mount points.
    pub mounts: Vec<MountPlan>,
    /// Where it is in its life.
    pub state: State,
    /// How often the restart policy started it again.
    pub restart_count: u64,
    /// Stopped by the user (or put to sleep), so that the restart policy leaves it alone.
    pub manually_stopped: bool,
    /// Put to sleep by a checkpoint that ended it: the restart policy does not start it afresh.
    #[serde(default)]
    pub asleep: bool,
    /// A checkpoint of it that is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub making: Option<Making>,
    /// What its last checkpoint cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<Timing>,
    /// What its last wake cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wake: Option<Timing>,
    /// The runtime it was made with (a name).
    pub runtime: String,
    /// How many runs there were: it tells one run's end from another's.
    pub runs: u64,
    /// How often it ended.
    pub exits: u64,
}

/// A checkpoint in the making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Making {
    /// Its name.
    pub name: String,
    /// Its `--checkpoint-dir`, if it does not go to the data root.
    pub dir: Option<PathBuf>,
}

/// What a checkpoint or a wake cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// The checkpoint.
    pub checkpoint: String,
    /// When it was done.
    pub at: DateTime<Utc>,
    /// How long the processes stood still, microseconds, if the runtime measured it.
    pub frozen_us: Option<u64>,
    /// From the request to the end, microseconds.
    pub total_us: u64,
    /// Bytes written or read, if the runtime told.
    pub bytes: Option<u64>,
}

impl Record {
    /// The exec-root's bundle directory of a container.
    pub fn bundle(exec_root: &Path, id: &str) -> PathBuf {
        exec_root.join("libcontainerd").join(id)
    }

    /// The network mode, with Docker's default made plain.
    pub fn network_mode(&self) -> &str {
        match self.host_config.network_mode.as_str() {
            "" | "default" => "bridge",
            mode => mode,
        }
    }

    /// The hostname a running process sees, when it has its own.
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// Has it a terminal?
    pub fn tty(&self) -> bool {
        self.config.tty
    }
}
