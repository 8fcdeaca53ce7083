//! The bundle's `config.json`: what the supervisor has to know of it, and its translation when it is of the generation
//! that runtimes of today do not read.

mod generation;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// No sane configuration is larger.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// What the supervisor needs of a bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The first process, as the configuration has it (of the new generation).
    pub process: Map<String, Value>,
    /// Host id of the container's root.
    pub root_uid: u32,
    /// Host id of its group.
    pub root_gid: u32,
    /// The configuration for a runtime of today, when the bundle's own is of the rc2 generation. It may be used from any
    /// directory.
    pub translated: Option<Vec<u8>>,
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

/// Reads the configuration of a bundle. Nothing in the bundle is changed: it is its owner's, and dockerd 17.03 reads its own
/// `config.json` again for every exec.
///
/// # Errors
/// When there is none, or it cannot be understood.
pub fn open(bundle: &Path) -> Result<Bundle> {
    let path = bundle.join("config.json");
    let bytes = read_bounded(&path, MAX_CONFIG_BYTES)?;
    let bad = |why: serde_json::Error| Error::BadBundle { path: path.clone(), why: why.to_string() };
    if !generation::is_old(&bytes).map_err(bad)? {
        return parse(&bytes).map_err(bad);
    }
    let mut config = generation::translate(serde_json::from_slice(&bytes).map_err(bad)?);
    rebase(&mut config, bundle);
    let translated = serde_json::to_vec(&config).map_err(bad)?;
    let parsed = parse(&translated).map_err(bad)?;
    Ok(Bundle { translated: Some(translated), ..parsed })
}

/// Makes what is relative to the bundle absolute, for a configuration that is used from another directory.
fn rebase(config: &mut Value, bundle: &Path) {
    let absolute = |path: &mut Value| {
        if let Some(relative) = path.as_str().map(Path::new).filter(|path| path.is_relative()) {
            *path = bundle.join(relative).to_string_lossy().into();
        }
    };
    if let Some(path) = config.pointer_mut("/root/path") {
        absolute(path);
    }
    let mounts = config.get_mut("mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        let options = mount.get("options").and_then(Value::as_array);
        let is_bind = options.is_some_and(|options| options.iter().any(|o| o == "bind" || o == "rbind"));
        if let Some(source) = mount.get_mut("source").filter(|_| is_bind) {
            absolute(source);
        }
    }
}

/// Where the configuration of a bundle puts its container's control groups, if it says so and can be read.
pub fn cgroups_path(bundle: &Path) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Config {
        linux: Linux,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Linux {
        cgroups_path: PathBuf,
    }
    let bytes = read_bounded(&bundle.join("config.json"), MAX_CONFIG_BYTES).ok()?;
    let config: Config = serde_json::from_slice(&bytes).ok()?;
    Some(config.linux.cgroups_path).filter(|path| !path.as_os_str().is_empty())
}

fn parse(bytes: &[u8]) -> serde_json::Result<Bundle> {
    let config: Config = serde_json::from_slice(bytes)?;
    let root = |mappings: Option<Vec<Mapping>>| {
        mappings.unwrap_or_default().iter().find(|m| m.container == 0).map_or(0, |m| m.host)
    };
    let (uids, gids) = config.linux.map_or((None, None), |l| (l.uid_mappings, l.gid_mappings));
    Ok(Bundle {
        process: config.process.unwrap_or_default(),
        root_uid: root(uids),
        root_gid: root(gids),
        translated: None,
    })
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
        assert!(bundle.translated.is_none());
    }

    #[test]
    fn an_old_bundle_is_translated_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"process":{"capabilities":["CAP_KILL"]},"platform":{"os":"linux"},"root":{"path":"rootfs"},
            "mounts":[{"destination":"/a","source":"a","options":["rbind"]},{"destination":"/p","source":"proc"}]}"#;
        fs::write(dir.path().join("config.json"), text).unwrap();
        let bundle = open(dir.path()).unwrap();
        assert_eq!(bundle.process["capabilities"]["bounding"][0], "CAP_KILL");
        let translated: Value = serde_json::from_slice(&bundle.translated.unwrap()).unwrap();
        let inside = |name: &str| Value::from(dir.path().join(name).to_string_lossy());
        assert_eq!(translated["root"]["path"], inside("rootfs"));
        assert_eq!(translated["mounts"][0]["source"], inside("a"));
        assert_eq!(translated["mounts"][1]["source"], "proc");
        assert_eq!(fs::read_to_string(dir.path().join("config.json")).unwrap(), text);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
