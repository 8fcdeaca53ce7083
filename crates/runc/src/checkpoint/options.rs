//! The options of a checkpoint: chosen once, stored with the images, used again by every restore.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{OPTIONS, read_small};
use crate::cli::CriuFlags;
use crate::error::{Doing, Error, Result};

/// Annotations (or labels that the engine passes on as such) begin so.
const PREFIX: &str = "dormouse.checkpoint.";
/// What becomes of connections.
pub const TCP_LABEL: &str = "dormouse.checkpoint.tcp";
/// Deleted files that are still open are kept up to this size.
const GHOST_LIMIT_BYTES: u32 = 1 << 30;

/// Less memory than this is read before the container runs.
const LAZY_ABOVE_BYTES: u64 = 64 << 20;

/// What happens to established TCP connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tcp {
    /// There must be none.
    #[default]
    None,
    /// They go on.
    Established,
    /// They are kept in the checkpoint and closed when it is restored.
    Close,
}

/// Whether a container runs before its memory is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lazy {
    /// It waits for all of it.
    Never,
    /// It does, whatever there is.
    Always,
    /// It does when so many bytes or more could follow, and nothing is lost by it.
    Above(u64),
}

impl Default for Lazy {
    fn default() -> Self {
        Lazy::Above(LAZY_ABOVE_BYTES)
    }
}

impl Lazy {
    fn is_default(&self) -> bool {
        *self == Lazy::default()
    }
}

/// `dormouse-options.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Of this file.
    pub version: u32,
    /// Established connections.
    pub tcp: Tcp,
    /// Unix sockets with a peer outside.
    pub ext_unix_sk: bool,
    /// A session leader outside.
    pub shell_job: bool,
    /// File locks.
    pub file_locks: bool,
    /// Deleted files with other links.
    pub link_remap: bool,
    /// Size up to which deleted files are kept.
    pub ghost_limit_bytes: u32,
    /// Whether groups inside the container's cgroup are CRIU's to make again.
    pub nested_cgroups: bool,
    /// The container was paused.
    pub paused: bool,
    /// Its network namespace was outside the images, under CRIU's name for it.
    pub external_netns: bool,
    /// Its pid namespace was outside the images.
    pub external_pidns: bool,
    /// Mounts that are outside the images: where they lie in the container.
    pub external_mounts: Vec<String>,
    /// Temporary file systems that we pack and fill ourselves: where they lie in the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub own_tmpfs: Vec<String>,
    /// Descriptors 0 to 2 that are files outside: number and CRIU's name.
    pub external_files: Vec<(u32, String)>,
    /// Whether it is to run before its memory is there.
    #[serde(skip_serializing_if = "Lazy::is_default")]
    pub lazy: Lazy,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            version: 1,
            tcp: Tcp::None,
            ext_unix_sk: false,
            shell_job: false,
            file_locks: false,
            link_remap: false,
            ghost_limit_bytes: GHOST_LIMIT_BYTES,
            nested_cgroups: false,
            paused: false,
            external_netns: false,
            external_pidns: false,
            external_mounts: Vec::new(),
            own_tmpfs: Vec::new(),
            external_files: Vec::new(),
            lazy: Lazy::default(),
        }
    }
}

impl Options {
    /// Those of a command line.
    pub fn from_flags(flags: &CriuFlags) -> Result<Self> {
        let nested_cgroups = match flags.manage_cgroups_mode.as_deref() {
            None | Some("ignore") => false,
            Some("soft" | "full" | "strict") => true,
            Some(other) => return Err(Error::Invalid(format!("invalid manage cgroups mode {other:?}"))),
        };
        Ok(Options {
            tcp: if flags.tcp_established { Tcp::Established } else { Tcp::None },
            ext_unix_sk: flags.ext_unix_sk,
            shell_job: flags.shell_job,
            file_locks: flags.file_locks,
            link_remap: flags.link_remap,
            nested_cgroups,
            ..Options::default()
        })
    }

    /// What suits most containers, to be refined by looking at this one.
    pub fn automatic() -> Self {
        Options { ext_unix_sk: true, file_locks: true, link_remap: true, ..Options::default() }
    }

    /// Lets annotations have the last word.
    pub fn apply_annotations(&mut self, annotations: &HashMap<String, String>) -> Result<()> {
        for (name, value) in annotations {
            let Some(name) = name.strip_prefix(PREFIX) else { continue };
            let bad = || Error::Invalid(format!("invalid value {value:?} for {PREFIX}{name}"));
            let yes = || match value.as_str() {
                "true" | "1" | "yes" => Ok(true),
                "false" | "0" | "no" => Ok(false),
                _ => Err(bad()),
            };
            match name {
                "tcp" => {
                    self.tcp = match value.as_str() {
                        "none" => Tcp::None,
                        "established" => Tcp::Established,
                        "close" => Tcp::Close,
                        _ => return Err(bad()),
                    }
                }
                "ext-unix-sk" => self.ext_unix_sk = yes()?,
                "shell-job" => self.shell_job = yes()?,
                "file-locks" => self.file_locks = yes()?,
                "link-remap" => self.link_remap = yes()?,
                "ghost-limit" => self.ghost_limit_bytes = value.parse().map_err(|_| bad())?,
                "lazy" => {
                    self.lazy = match value.parse() {
                        // `1` and `0` are yes and no here as elsewhere.
                        Ok(bytes) if bytes > 1 => Lazy::Above(bytes),
                        _ if yes()? => Lazy::Always,
                        _ => Lazy::Never,
                    }
                }
                // Others are for the engine above.
                _ => (),
            }
        }
        Ok(())
    }

    /// Those stored with images; `None` for images of another runtime.
    pub fn load(image: &Path) -> Result<Option<Self>> {
        let Some(text) = read_small(image, OPTIONS)? else { return Ok(None) };
        let options: Options = serde_json::from_slice(&text).doing(|| format!("parse {OPTIONS}"))?;
        if options.version != 1 {
            return Err(Error::CannotRestore(format!("{OPTIONS} has version {}, 1 is known", options.version)));
        }
        Ok(Some(options))
    }

    /// As bytes for the file.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).doing(|| format!("encode {OPTIONS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_override_and_bad_ones_are_refused() {
        let mut options = Options::automatic();
        let one = |name: &str, value: &str| HashMap::from([(name.to_owned(), value.to_owned())]);
        options.apply_annotations(&one("dormouse.checkpoint.tcp", "close")).unwrap();
        assert_eq!(options.tcp, Tcp::Close);
        assert!(options.apply_annotations(&one("dormouse.checkpoint.tcp", "maybe")).is_err());
        options.apply_annotations(&one("some.other", "maybe")).unwrap();
        for (value, lazy) in [("true", Lazy::Always), ("false", Lazy::Never), ("4096", Lazy::Above(4096))] {
            options.apply_annotations(&one("dormouse.checkpoint.lazy", value)).unwrap();
            assert_eq!(options.lazy, lazy);
        }
        assert!(options.apply_annotations(&one("dormouse.checkpoint.lazy", "-1")).is_err());
        options.apply_annotations(&one("dormouse.checkpoint.file-locks", "false")).unwrap();
        assert!(!options.file_locks);
    }

    #[test]
    fn stored_options_come_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Options::load(dir.path()).unwrap(), None);
        let options = Options { paused: true, lazy: Lazy::Above(7), ..Options::automatic() };
        std::fs::write(dir.path().join(OPTIONS), options.encode().unwrap()).unwrap();
        assert_eq!(Options::load(dir.path()).unwrap(), Some(options));
        std::fs::remove_file(dir.path().join(OPTIONS)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join(OPTIONS)).unwrap();
        assert!(Options::load(dir.path()).is_err());
    }
}
