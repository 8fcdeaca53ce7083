//! `manifest.json`: what a checkpoint is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::HostFacts;

/// The format's version; a reader refuses a newer one. Version 1 had sizes of files, no digests, and no seal.
pub const VERSION: u32 = 2;
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
    /// Its files, but for the logs: what was cut short or altered is refused before anything is touched.
    #[serde(default)]
    pub files: BTreeMap<String, FileFacts>,
    /// What taking it cost, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "FileFactsRead")]
pub struct FileFacts {
    /// Its length.
    pub size_bytes: u64,
    /// BLAKE3 of its content, hexadecimal; version 1 had none.
    pub blake3: Option<String>,
}

/// Both versions: an object, or only the size.
#[derive(Deserialize)]
#[serde(untagged)]
enum FileFactsRead {
    #[serde(rename_all = "camelCase")]
    Now {
        size_bytes: u64,
        blake3: Option<String>,
    },
    Size(u64),
}

impl From<FileFactsRead> for FileFacts {
    fn from(read: FileFactsRead) -> Self {
        match read {
            FileFactsRead::Now { size_bytes, blake3 } => Self { size_bytes, blake3 },
            FileFactsRead::Size(size_bytes) => Self { size_bytes, blake3: None },
        }
    }
}

/// What a container has on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ipv4: Ipv4Addr,
    /// The hardware address.
    pub mac: [u8; 6],
    /// The ports that are published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// In the container, as `80/tcp`.
    pub port: String,
    /// On the host.
    pub host: SocketAddr,
}

/// What a checkpoint cost. The names with underscores are those of version 1, and of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// How long the container stood still, microseconds.
    #[serde(default, alias = "frozen_us", skip_serializing_if = "Option::is_none")]
    pub frozen_us: Option<u64>,
    /// How long it took in all, microseconds.
    #[serde(default, alias = "total_us", skip_serializing_if = "Option::is_none")]
    pub total_us: Option<u64>,
    /// Bytes written by the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    crate::check_name(&manifest.name).map_err(|_| "its manifest has no valid name".to_owned())?;
    let digests = manifest.version >= 2;
    let plain = |name: &str| !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    match manifest.files.iter().find(|(name, facts)| !plain(name) || (digests && facts.blake3.is_none())) {
        Some((name, _)) => Err(format!("its manifest has no valid entry for file {name:?}")),
        None => Ok(manifest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: u32, rest: &str) -> String {
        let id = "a".repeat(64);
        format!(
            r#"{{"version":{version},"name":"cp1","created":"2026-11-23T00:00:00Z","containerId":"{id}","imageId":"",{rest}}}"#
        )
    }

    #[test]
    fn version_1_can_be_read() {
        let old = r#""host":{"architecture":"x86_64","kernel":"6","cpu_features":["sse2"],"cgroups":"v2"},
            "files":{"a.img":5},"measured":{"frozen_us":1,"total_us":2,"bytes":3}"#;
        let manifest = parse(text(1, old).as_bytes()).unwrap();
        assert_eq!(manifest.files["a.img"], FileFacts { size_bytes: 5, blake3: None });
        assert!(manifest.host.cpu_features.contains("sse2"));
        let measured = manifest.measured.clone().unwrap();
        assert_eq!((measured.frozen_us, measured.total_us, measured.bytes), (Some(1), Some(2), Some(3)));
        let now = serde_json::to_value(&manifest).unwrap();
        assert_eq!(now["host"]["cpuFeatures"][0], "sse2");
        assert_eq!(now["measured"]["frozenUs"], 1);
        assert_eq!(parse(now.to_string().as_bytes()).unwrap().measured, manifest.measured);
    }

    #[test]
    fn entries_must_be_plain_names_with_digests() {
        assert!(parse(text(2, r#""files":{"a.img":{"sizeBytes":5,"blake3":"00"}}"#).as_bytes()).is_ok());
        for bad in
            [r#"{"a.img":5}"#, r#"{"../a":{"sizeBytes":5,"blake3":"00"}}"#, r#"{"..":{"sizeBytes":1,"blake3":"0"}}"#]
        {
            assert!(parse(text(2, &format!(r#""files":{bad}"#)).as_bytes()).is_err(), "{bad}");
        }
    }
}
