//! What an image says about itself: its configuration (OCI image configuration, with Docker's additions).
//!
//! The configuration's bytes are the image's identity and are kept as they came; this is a reading of them.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Digest, Error, Result};

/// Larger configurations do not exist; Docker and registries stop at 4 MiB for a manifest.
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// Docker writes `null` for what is empty.
fn nullable<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    #[serde(rename = "os.version", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    #[serde(deserialize_with = "nullable")]
    pub config: ContainerConfig,
    pub rootfs: RootFs,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// The stack of layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// How a layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// What a container made from the image runs as.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Empty>>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// What is written there that this program does not know (`Hostname`, `Tty`, … of old images).
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `{}`: a member of a set, in Go's JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A health check. Durations are nanoseconds, 0 is inherited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ImageConfig {
    /// Reads and checks a configuration.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(json)
            .map_err(|error| Error::Invalid(format!("invalid image configuration: {error}")))?;
        let layers = config.history.iter().filter(|step| !step.empty_layer).count();
        if layers > config.rootfs.diff_ids.len() {
            return Err(Error::Invalid("too many non-empty layers in History section".into()));
        }
        Ok(config)
    }

    /// The instant of its creation in nanoseconds since the epoch.
    pub fn created_ns(&self) -> Option<i128> {
        let time = chrono::DateTime::parse_from_rfc3339(self.created.as_deref()?).ok()?;
        Some(i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos()))
    }

    /// The system it is for; images without one are Linux's.
    pub fn operating_system(&self) -> &str {
        if self.os.is_empty() { "linux" } else { &self.os }
    }
}

/// Now, as configurations spell instants.
pub(crate) fn now_rfc3339() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}
