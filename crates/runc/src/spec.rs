//! Reads a bundle's `config.json` (and `process.json`) and makes it fit the host.
//!
//! A configuration that asks for something this kernel or this root cannot give (an unknown capability, say) is made
//! to fit with a warning where runc does so too; anything that would weaken the container is refused.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use libcontainer::oci_spec::runtime::{Process, Spec};
use serde_json::Value;
use tracing::warn;

use crate::error::{Doing, Error, Result};
use crate::validate;

/// No configuration is larger.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Reads and checks `<bundle>/config.json`; the root path comes back absolute.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let mut value = read(&path)?;
    if let Some(process) = value.get_mut("process") {
        fit_process(process);
    }
    let bad = |reason: String| Error::Spec { path: path.clone(), reason };
    let mut spec: Spec = serde_json::from_value(value).map_err(|err| bad(err.to_string()))?;
    check(&spec).map_err(bad)?;
    spec.canonicalize_rootfs(bundle).map_err(|err| bad(err.to_string()))?;
    Ok(spec)
}

/// Reads a `process.json`.
pub fn load_process(path: &Path) -> Result<Process> {
    let mut value = read(path)?;
    fit_process(&mut value);
    let process: Process =
        serde_json::from_value(value).map_err(|err| Error::Spec { path: path.to_owned(), reason: err.to_string() })?;
    check_process(&process)
        .and_then(|()| validate::check_process(&process))
        .map_err(|reason| Error::Spec { path: path.to_owned(), reason })?;
    Ok(process)
}

fn read(path: &Path) -> Result<Value> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Invalid(format!("JSON specification file {} not found", path.display())));
        }
        Err(source) => return Err(Error::Io { what: format!("open {}", path.display()), source }),
    };
    if size > MAX_CONFIG_BYTES {
        return Err(Error::Spec { path: path.to_owned(), reason: format!("larger than {MAX_CONFIG_BYTES} bytes") });
    }
    let text = fs::read(path).doing(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).doing(|| format!("parse {}", path.display()))
}

fn check(spec: &Spec) -> std::result::Result<(), String> {
    if !spec.version().starts_with("1.") {
        return Err(format!("ociVersion {:?} is not supported, only 1.x is", spec.version()));
    }
    if spec.linux().is_none() {
        return Err("\"linux\" is missing".into());
    }
    if spec.root().is_none() {
        return Err("\"root\" is missing".into());
    }
    let Some(process) = spec.process() else { return Err("\"process\" is missing".into()) };
    check_process(process)?;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut seen = HashSet::new();
    for namespace in namespaces.into_iter().flatten() {
        if !seen.insert(format!("{:?}", namespace.typ())) {
            return Err(format!("duplicated namespace {:?}", namespace.typ()));
        }
    }
    let private = seen.contains("Mount");
    if !private {
        return Err("a mount namespace is needed".into());
    }
    validate::check(spec)
}

fn check_process(process: &Process) -> std::result::Result<(), String> {
    if !process.cwd().is_absolute() {
        return Err(format!("Cwd must be an absolute path: {:?}", process.cwd()));
    }
    let args = process.args().as_deref().unwrap_or_default();
    if args.is_empty() || args[0].is_empty() {
        return Err("process args must not be empty".into());
    }
    if args.iter().chain(process.env().iter().flatten()).any(|text| text.contains('\0')) {
        return Err("a null byte in args or env".into());
    }
    Ok(())
}

/// Makes a process fit: see [`fit_capabilities`]; and says some things as the parser wants them.
fn fit_process(process: &mut Value) {
    let Some(fields) = process.as_object_mut() else { return };
    // The specification wants it, runc does not.
    fields.entry("user").or_insert_with(|| serde_json::json!({ "uid": 0, "gid": 0 }));
    for flag in process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut).into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => (),
        }
    }
    fit_capabilities(process);
}

/// Drops capabilities that nobody has heard of, as runc does, and those that this process may not give.
fn fit_capabilities(process: &mut Value) {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return };
    let available: HashSet<caps::Capability> = caps::read(None, caps::CapSet::Bounding)
        .unwrap_or_default()
        .intersection(&caps::read(None, caps::CapSet::Permitted).unwrap_or_default())
        .copied()
        .collect();
    let mut unknown = HashSet::new();
    let mut missing = HashSet::new();
    for list in sets.values_mut() {
        let Some(list) = list.as_array_mut() else { continue };
        list.retain(|entry| {
            let name = entry.as_str().unwrap_or_default().to_owned();
            match caps::Capability::from_str(&name) {
                Err(_) => {
                    unknown.insert(name);
                    false
                }
                Ok(capability) if !available.contains(&capability) => {
                    missing.insert(name);
                    false
                }
                Ok(_) => true,
            }
        });
    }
    // One list, and runc's words.
    unknown.extend(missing);
    if !unknown.is_empty() {
        warn!("ignoring unknown or unavailable capabilities: [{}]", sorted(unknown));
    }
}

fn sorted(set: HashSet<String>) -> String {
    let mut names: Vec<_> = set.into_iter().collect();
    names.sort();
    names.join(" ")
}

/// The path of the root file system.
pub fn rootfs(spec: &Spec) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| Error::Invalid("\"root\" is missing".into()))?;
    fs::canonicalize(root.path()).doing(|| format!("rootfs {}", root.path().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_dropped() {
        let mut process = serde_json::json!({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_OF_THE_FUTURE"]}});
        fit_process(&mut process);
        assert_eq!(process["capabilities"]["bounding"], serde_json::json!(["CAP_CHOWN"]));
    }

    #[test]
    fn a_relative_cwd_is_refused() {
        let process: Process =
            serde_json::from_value(serde_json::json!({"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "tmp"}))
                .unwrap();
        assert!(check_process(&process).is_err());
    }
}
