//! Which names may become a part of a path. Everything a client names passes here first; no path may leave its directory.

use crate::error::{Error, Result};
use std::path::Path;

/// The longest file name of the usual file systems.
const MAX_NAME_BYTES: usize = 255;

fn is_component(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME_BYTES
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b))
}

/// Checks a container's id and gives the words of the original for the ones it refused in its own way.
///
/// # Errors
/// When the id is not a single path component of `[A-Za-z0-9_.+-]` that begins with a letter, digit or underscore.
pub fn container_id(state_dir: &Path, id: &str) -> Result<()> {
    if is_component(id) {
        return Ok(());
    }
    if id.is_empty() {
        return Err(Error::exists(state_dir));
    }
    // A harmless nested path was refused for its missing parent.
    if id.split('/').count() > 1 && id.split('/').all(is_component) {
        let source = std::io::Error::from_raw_os_error(nix::libc::ENOENT);
        return Err(Error::Path { op: "mkdir", path: state_dir.join(id), source });
    }
    Err(Error::InvalidId(id.to_owned()))
}

/// Checks the name of an exec.
///
/// # Errors
/// As for a container's id; additionally none of the files of a container's directory may be named.
pub fn process_id(pid: &str) -> Result<()> {
    if pid.is_empty() {
        return Err(Error::EmptyProcessId);
    }
    if is_component(pid) && !matches!(pid, "state.json" | "shim.sock" | "shim-log.json" | "checkpoint.json") {
        return Ok(());
    }
    Err(Error::InvalidName { what: "process id", name: pid.to_owned() })
}

/// Checks the name of a checkpoint that is not empty.
///
/// # Errors
/// When it is not a single path component of the allowed letters.
pub fn checkpoint(name: &str) -> Result<()> {
    if is_component(name) {
        return Ok(());
    }
    Err(Error::InvalidName { what: "checkpoint name", name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dockerd_sends_is_accepted() {
        let hex = "0123456789abcdef".repeat(4);
        let dir = Path::new("/s");
        for id in [hex.as_str(), "a", "web_1", "a.b-c+d", "_x"] {
            assert!(container_id(dir, id).is_ok(), "{id}");
            assert!(process_id(id).is_ok(), "{id}");
            assert!(checkpoint(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn nothing_leaves_its_directory() {
        let dir = Path::new("/s");
        let long = "a".repeat(256);
        for id in ["", ".", "..", "../x", "a/../b", "/a", "a\0b", ".hidden", "-x", "a b", "ä", long.as_str()] {
            assert!(container_id(dir, id).is_err(), "{id:?}");
            assert!(process_id(id).is_err(), "{id:?}");
            assert!(checkpoint(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn refusals_have_the_originals_words() {
        let text = |id: &str| container_id(Path::new("/s"), id).unwrap_err().to_string();
        assert_eq!(text(""), "mkdir /s: file exists");
        assert_eq!(text("a/b"), "mkdir /s/a/b: no such file or directory");
        assert_eq!(text("../x"), "oci runtime error: invalid id format: ../x\n");
    }
}
