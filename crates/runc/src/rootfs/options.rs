//! What the options of a mount in the configuration mean.
//!
//! Options are read from left to right, and the last word counts. What is no option of mounts at all is for the file system,
//! which refuses what it does not know.

use libcontainer::oci_spec::runtime::Mount;

use crate::error::{Error, Result};

// From the kernel's `linux/mount.h`.
/// `MOUNT_ATTR_RDONLY`
pub const READ_ONLY: u64 = 0x1;
const NO_SUID: u64 = 0x2;
const NO_DEVICES: u64 = 0x4;
const NO_EXEC: u64 = 0x8;
/// Access times are no bits but a number in this field.
const ATIME_FIELD: u64 = 0x70;
const RELATIVE_ATIME: u64 = 0x00;
const NO_ATIME: u64 = 0x10;
const STRICT_ATIME: u64 = 0x20;
const NO_DIRECTORY_ATIME: u64 = 0x80;
const NO_SYMLINK_FOLLOW: u64 = 0x20_0000;

/// Attributes of a mount that are to change; all others stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
}

impl Attributes {
    fn flag(&mut self, flag: u64, on: bool) {
        let (to, from) = if on { (&mut self.set, &mut self.clear) } else { (&mut self.clear, &mut self.set) };
        *to |= flag;
        *from &= !flag;
    }

    fn access_times(&mut self, value: u64) {
        self.set = self.set & !ATIME_FIELD | value;
        self.clear |= ATIME_FIELD;
    }

    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }

    /// Whether it is to become read-only.
    pub fn read_only(&self) -> bool {
        self.set & READ_ONLY != 0
    }
}

/// How a mount takes part in the propagation of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub kind: u64,
    /// With what is mounted below.
    pub recursive: bool,
}

/// The options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// It binds what is elsewhere; with what is mounted below, or without.
    pub bind: Option<Recursive>,
    /// For the mount itself.
    pub attributes: Attributes,
    /// For it and all below.
    pub below: Attributes,
    /// One after the other.
    pub propagation: Vec<Propagation>,
    /// Owners are mapped.
    pub id_mapped: Option<Recursive>,
    /// What lies below is copied into it first.
    pub copy_up: bool,
    /// Flags that belong to the file system and that the kernel knows for all of them: `sync`, `dirsync`…
    pub superblock: Vec<String>,
    /// What only the file system understands.
    pub data: Vec<String>,
}

/// Whether something is done to what is mounted below, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursive {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Options {
    /// Those of a mount of the configuration.
    pub fn of(mount: &Mount) -> Result<Self> {
        let mut options = Options::default();
        for option in mount.options().iter().flatten() {
            options.read(option);
        }
        if mount.typ().as_deref() == Some("bind") && options.bind.is_none() {
            options.bind = Some(Recursive::No);
        }
        let invalid =
            |reason: &str| Err(Error::Invalid(format!("invalid mount at {}: {reason}", mount.destination().display())));
        let mapped = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let (users, groups) = (mapped(mount.uid_mappings()), mapped(mount.gid_mappings()));
        if (users || groups) && options.id_mapped.is_none() {
            options.id_mapped = Some(Recursive::No);
        }
        if options.bind.is_some() && !options.data.is_empty() {
            return invalid("bind mounts cannot have any filesystem-specific options applied");
        }
        if options.id_mapped.is_some() && options.bind.is_none() {
            return invalid("id-mapped mounts are only supported for bind-mounts");
        }
        if users != groups {
            return invalid("id-mapped mounts must have both uid and gid mappings specified");
        }
        if options.copy_up && (options.bind.is_some() || mount.typ().as_deref() != Some("tmpfs")) {
            return invalid("tmpcopyup is only supported for tmpfs");
        }
        Ok(options)
    }

    fn read(&mut self, option: &str) {
        let (own, below) = (&mut self.attributes, &mut self.below);
        match option {
            // `remount` is what a bind with flags is anyway; the other two are about the kernel's log.
            "" | "defaults" | "remount" | "silent" | "loud" => (),
            "bind" => self.bind = Some(Recursive::No),
            "rbind" => self.bind = Some(Recursive::Yes),
            "ro" => own.flag(READ_ONLY, true),
            "rw" => own.flag(READ_ONLY, false),
            "nosuid" => own.flag(NO_SUID, true),
            "suid" => own.flag(NO_SUID, false),
            "nodev" => own.flag(NO_DEVICES, true),
            "dev" => own.flag(NO_DEVICES, false),
            "noexec" => own.flag(NO_EXEC, true),
            "exec" => own.flag(NO_EXEC, false),
            "nodiratime" => own.flag(NO_DIRECTORY_ATIME, true),
            "diratime" => own.flag(NO_DIRECTORY_ATIME, false),
            "nosymfollow" => own.flag(NO_SYMLINK_FOLLOW, true),
            "symfollow" => own.flag(NO_SYMLINK_FOLLOW, false),
            "noatime" => own.access_times(NO_ATIME),
            "strictatime" => own.access_times(STRICT_ATIME),
            // Relative access times are what there is when nothing else is asked for.
            "relatime" | "atime" | "norelatime" | "nostrictatime" => own.access_times(RELATIVE_ATIME),
            "rro" => below.flag(READ_ONLY, true),
            "rrw" => below.flag(READ_ONLY, false),
            "rnosuid" => below.flag(NO_SUID, true),
            "rsuid" => below.flag(NO_SUID, false),
            "rnodev" => below.flag(NO_DEVICES, true),
            "rdev" => below.flag(NO_DEVICES, false),
            "rnoexec" => below.flag(NO_EXEC, true),
            "rexec" => below.flag(NO_EXEC, false),
            "rnodiratime" => below.flag(NO_DIRECTORY_ATIME, true),
            "rdiratime" => below.flag(NO_DIRECTORY_ATIME, false),
            "rnosymfollow" => below.flag(NO_SYMLINK_FOLLOW, true),
            "rsymfollow" => below.flag(NO_SYMLINK_FOLLOW, false),
            "rnoatime" => below.access_times(NO_ATIME),
            "rstrictatime" => below.access_times(STRICT_ATIME),
            "rrelatime" | "ratime" | "rnorelatime" | "rnostrictatime" => below.access_times(RELATIVE_ATIME),
            "sync" | "async" | "dirsync" | "lazytime" | "nolazytime" | "mand" | "nomand" => {
                self.superblock.push(option.to_owned());
            }
            // The kernel has these two no more for whoever mounts; runc takes them, too.
            "iversion" | "noiversion" => (),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_mapped = Some(Recursive::No),
            "ridmap" => self.id_mapped = Some(Recursive::Yes),
            other => match propagation(other) {
                Some(propagation) => self.propagation.push(propagation),
                None => self.data.push(other.to_owned()),
            },
        }
    }
}

/// The meaning of `rshared` and its like.
pub fn propagation(word: &str) -> Option<Propagation> {
    let (kind, recursive) = match word {
        "private" => (libc::MS_PRIVATE, false),
        "rprivate" => (libc::MS_PRIVATE, true),
        "shared" => (libc::MS_SHARED, false),
        "rshared" => (libc::MS_SHARED, true),
        "slave" => (libc::MS_SLAVE, false),
        "rslave" => (libc::MS_SLAVE, true),
        "unbindable" => (libc::MS_UNBINDABLE, false),
        "runbindable" => (libc::MS_UNBINDABLE, true),
        _ => return None,
    };
    Some(Propagation { kind, recursive })
}

/// All words that [`Options`] know, for `features`.
pub const WORDS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(value: serde_json::Value) -> Mount {
        serde_json::from_value(value).unwrap()
    }

    fn of(kind: &str, options: &[&str]) -> Result<Options> {
        Options::of(&mount(serde_json::json!({ "destination": "/x", "type": kind, "options": options })))
    }

    #[test]
    fn the_last_word_counts() {
        let options = of("tmpfs", &["ro", "nosuid", "noatime", "rw", "strictatime", "mode=755", "sync"]).unwrap();
        assert_eq!(options.attributes.set, NO_SUID | STRICT_ATIME);
        assert_eq!(options.attributes.clear, READ_ONLY | ATIME_FIELD);
        assert_eq!(options.data, ["mode=755"]);
        assert_eq!(options.superblock, ["sync"]);
        assert!(options.bind.is_none() && options.below.is_empty());
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let text = |result: Result<Options>| result.unwrap_err().to_string();
        assert!(text(of("bind", &["rbind", "size=1"])).contains("filesystem-specific"));
        assert!(text(of("tmpfs", &["idmap"])).contains("only supported for bind-mounts"));
        assert!(text(of("proc", &["tmpcopyup"])).contains("tmpcopyup"));
        let half = mount(serde_json::json!({
            "destination": "/x", "options": ["bind"], "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }]
        }));
        assert!(text(Options::of(&half)).contains("both uid and gid"));
    }

    #[test]
    fn every_word_that_is_announced_is_known() {
        for word in WORDS {
            let mut options = Options::default();
            options.read(word);
            assert_eq!(options.data, Vec::<String>::new(), "{word}");
        }
    }
}
