//! `manifest.json`: what a checkpoint is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::HostFacts;

/// The format's version; a reader refuses a newer one.
pub const VERSION: u32 = 1;
/// No honest manifest is larger.
pub const MAX_BYTES: u64 = 4 << 20;

/// What a checkpoint is. Unknown members are passed over: later versions may add some.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Its name.
    pub name: String,
    /// When it was taken.
    pub created: DateTime<Utc>,
    /// The container it was taken of.
    pub container_id: String,
    /// That container's name then.
    #[serde(default)]
    pub container_name: String,
    /// Digest of the image's configuration: the files below the writable layer.
    pub image_id: String,
    /// The runtime that took it.
    #[serde(default)]
    pub runtime: String,
    /// Had it a terminal?
    #[serde(default)]
    pub tty: bool,
    /// Was it frozen by `docker pause`?
    #[serde(default)]
    pub paused: bool,
    /// The addresses it had, by network name.
    #[serde(default)]
    pub addresses: BTreeMap<String, Address>,
    /// The host it was taken on.
    #[serde(default)]
    pub host: HostFacts,
    /// Its files with their sizes, but for the logs: what was cut short is refused before anything is touched.
    #[serde(default)]
    pub files: BTreeMap<String, u64>,
    /// What taking it cost, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// An address on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ipv4: Ipv4Addr,
    /// The hardware address.
    pub mac: [u8; 6],
}

/// What a checkpoint cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// How long the container stood still, microseconds.
    #[serde(default)]
    pub frozen_us: Option<u64>,
    /// How long it took in all, microseconds.
    #[serde(default)]
    pub total_us: Option<u64>,
    /// Bytes of memory written.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// Reads a manifest; an entry point for fuzzing too.
pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| format!("its manifest cannot be read: {e}"))?;
    if manifest.version == 0 || manifest.version > VERSION {
        return Err(format!(
            "its manifest has version {}, this program knows up to {VERSION}: use a newer Dormouse",
            manifest.version
        ));
    }
    if manifest.container_id.len() != 64 || !manifest.container_id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("its manifest names no container".into());
    }
    Ok(manifest)
}
