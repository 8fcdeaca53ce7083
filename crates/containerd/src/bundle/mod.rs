//! The bundle's `config.json`: what the supervisor has to know of it, and its translation when it is of the generation
//! that runtimes of today do not read.

mod generation;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// No sane configuration is larger.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// The configuration as dockerd wrote it, kept when it had to be translated.
const ORIGINAL_NAME: &str = "config.json.rc2";

/// What the supervisor needs of a bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The first process, as the configuration has it (of the new generation).
    pub process: Map<String, Value>,
    /// Host id of the container's root.
    pub root_uid: u32,
    /// Host id of its group.
    pub root_gid: u32,
}

#[derive(Deserialize)]
struct Config {
    process: Option<Map<String, Value>>,
    linux: Option<Linux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    uid_mappings: Option<Vec<Mapping>>,
    gid_mappings: Option<Vec<Mapping>>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(alias = "containerID")]
    #[serde(rename = "containerId", default)]
    container: u32,
    #[serde(alias = "hostID")]
    #[serde(rename = "hostId", default)]
    host: u32,
}

/// Reads the configuration of a bundle.
///
/// One of the old generation is translated **in place**, atomically, with the original kept beside it: runtimes record
/// the bundle's path and hand it to hooks, so that running from a copy elsewhere would tell them a wrong one.
///
/// # Errors
/// When there is none, or it cannot be understood.
pub fn open(bundle: &Path) -> Result<Bundle> {
    let path = bundle.join("config.json");
    let bytes = read_bounded(&path, MAX_CONFIG_BYTES)?;
    let bad = |why: String| Error::BadBundle { path: path.clone(), why };
    if !generation::is_old(&bytes).map_err(|e| bad(e.to_string()))? {
        return parse(&bytes).map_err(|e| bad(e.to_string()));
    }
    let old: Value = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    let new = serde_json::to_vec(&generation::translate(old)).map_err(|e| bad(e.to_string()))?;
    let parsed = parse(&new).map_err(|e| bad(e.to_string()))?;
    let mode = fs::metadata(&path).map_err(Error::path("stat", &path))?.permissions();
    write_atomically(&bundle.join(ORIGINAL_NAME), &bytes, &mode)?;
    write_atomically(&path, &new, &mode)?;
    tracing::debug!(bundle = %bundle.display(), "translated a configuration of the rc2 generation");
    Ok(parsed)
}

/// Reads a configuration of either generation, without a file.
///
/// # Errors
/// When it cannot be understood.
pub fn check(config: &[u8]) -> serde_json::Result<Bundle> {
    if !generation::is_old(config)? {
        return parse(config);
    }
    parse(&serde_json::to_vec(&generation::translate(serde_json::from_slice(config)?))?)
}

fn parse(bytes: &[u8]) -> serde_json::Result<Bundle> {
    let config: Config = serde_json::from_slice(bytes)?;
    let root = |mappings: Option<Vec<Mapping>>| {
        mappings.unwrap_or_default().iter().find(|m| m.container == 0).map_or(0, |m| m.host)
    };
    let (uids, gids) = config.linux.map_or((None, None), |l| (l.uid_mappings, l.gid_mappings));
    Ok(Bundle { process: config.process.unwrap_or_default(), root_uid: root(uids), root_gid: root(gids) })
}

/// A file that is expected to be small.
///
/// # Errors
/// When it cannot be read or is larger than `limit_bytes`.
pub fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    let file = fs::File::open(path).map_err(Error::path("open", path))?;
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(Error::path("read", path))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::BadBundle { path: path.to_path_buf(), why: format!("larger than {limit_bytes} bytes") });
    }
    Ok(bytes)
}

fn write_atomically(path: &Path, bytes: &[u8], mode: &fs::Permissions) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary).map_err(Error::path("create", &temporary))?;
    file.set_permissions(mode.clone()).map_err(Error::path("chmod", &temporary))?;
    file.write_all(bytes).map_err(Error::path("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::path("rename", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_of_today_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"process":{"args":["sh"]},"linux":{"uidMappings":[{"containerID":0,"hostID":1000,"size":5}]}}"#;
        fs::write(dir.path().join("config.json"), text).unwrap();
        let bundle = open(dir.path()).unwrap();
        assert_eq!((bundle.root_uid, bundle.root_gid), (1000, 0));
        assert_eq!(bundle.process["args"][0], "sh");
        assert_eq!(fs::read_to_string(dir.path().join("config.json")).unwrap(), text);
        assert!(!dir.path().join(ORIGINAL_NAME).exists());
    }

    #[test]
    fn an_old_bundle_is_translated_and_the_original_kept() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"process":{"capabilities":["CAP_KILL"]},"platform":{"os":"linux"}}"#;
        fs::write(dir.path().join("config.json"), text).unwrap();
        let bundle = open(dir.path()).unwrap();
        assert_eq!(bundle.process["capabilities"]["bounding"][0], "CAP_KILL");
        assert_eq!(fs::read_to_string(dir.path().join(ORIGINAL_NAME)).unwrap(), text);
        let again = open(dir.path()).unwrap();
        assert_eq!(again.process, bundle.process);
        assert_eq!(fs::read_to_string(dir.path().join(ORIGINAL_NAME)).unwrap(), text);
    }

    #[test]
    fn missing_and_broken_configurations_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = open(dir.path()).unwrap_err().to_string();
        assert_eq!(text, format!("open {}: no such file or directory", path.display()));
        for broken in ["", "{", "[]", r#"{"process":5}"#, r#"{"linux":{"uidMappings":[{"hostID":-1}]}}"#] {
            fs::write(&path, broken).unwrap();
            assert!(matches!(open(dir.path()), Err(Error::BadBundle { .. })), "{broken}");
        }
    }
}
