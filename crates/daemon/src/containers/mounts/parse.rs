//! How users write mounts (`-v`, `--mount`, `--tmpfs`), checked, in Docker's words.

use std::path::{Component, Path};

use api::types::Mount as AskedMount;

use super::{MountPlan, NewVolume, Source, clean};
use crate::error::{Error, Result};

const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// A volume, in full.
pub(super) fn volume_plan(destination: String, name: String, copy: bool) -> MountPlan {
    let anonymous = name.is_empty();
    MountPlan {
        destination,
        source: Source::Volume { name, copy, subpath: String::new(), anonymous, making: NewVolume::default() },
        read_only: false,
        mode: String::new(),
        propagation: String::new(),
        non_recursive: false,
        listed: true,
    }
}

/// `-v`: `[source:]destination[:options]`.
pub(super) fn parse_bind(text: &str) -> Result<MountPlan> {
    let invalid = |why: &str| Error::InvalidParameter(format!("invalid volume specification: '{text}'{why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(invalid("")),
    };
    if parts.len() > 1 && source.is_empty() {
        return Err(invalid(""));
    }
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let destination =
        destination(target).map_err(|e| invalid(&format!(": invalid mount config for type \"{kind}\": {e}")))?;
    let (mut read_only, mut copy, mut propagation) = (false, true, "");
    for option in mode.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = true,
            // SELinux relabelling and consistency hints change nothing here.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
            "nocopy" => copy = false,
            option if PROPAGATIONS.contains(&option) => propagation = option,
            _ => return Err(Error::InvalidParameter(format!("invalid mode: {mode}"))),
        }
    }
    if !source.starts_with('/') {
        if !propagation.is_empty() {
            return Err(Error::InvalidParameter(format!("invalid mode: {mode}")));
        }
        if !source.is_empty() {
            crate::volumes::check_name(source)?;
        }
        // What Docker notes for a volume without options.
        let mode = if mode.is_empty() && !source.is_empty() { "z" } else { mode };
        return Ok(MountPlan { read_only, mode: mode.into(), ..volume_plan(destination, source.into(), copy) });
    }
    Ok(MountPlan {
        destination,
        source: Source::Bind { path: clean(Path::new(source)), create: true },
        read_only,
        mode: mode.into(),
        propagation: if propagation.is_empty() { "rprivate".into() } else { propagation.into() },
        non_recursive: false,
        listed: true,
    })
}

/// `--mount`.
pub(super) fn parse_mount(mount: &AskedMount) -> Result<MountPlan> {
    let kind = mount.r#type.as_str();
    let invalid = |why: String| Error::InvalidParameter(format!("invalid mount config for type \"{kind}\": {why}"));
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty".into()));
    }
    let destination = destination(&mount.target).map_err(|e| invalid(e.to_string()))?;
    match kind {
        "bind" => {
            let options = mount.bind_options.clone().unwrap_or_default();
            if mount.source.is_empty() {
                return Err(invalid("field Source must not be empty".into()));
            }
            let source = Path::new(&mount.source);
            if !source.is_absolute() {
                return Err(invalid(format!("invalid mount path: '{}' mount path must be absolute", mount.source)));
            }
            if !source.exists() && !options.create_mountpoint {
                return Err(invalid(format!("bind source path does not exist: {}", mount.source)));
            }
            if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(invalid(format!("invalid propagation mode: {}", options.propagation)));
            }
            Ok(MountPlan {
                destination,
                source: Source::Bind { path: clean(source), create: options.create_mountpoint },
                read_only: mount.read_only,
                mode: String::new(),
                propagation: if options.propagation.is_empty() { "rprivate".into() } else { options.propagation },
                non_recursive: options.non_recursive,
                listed: true,
            })
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            crate::volumes::check_driver(&driver.name).map_err(|e| Error::InvalidParameter(e.to_string()))?;
            if !mount.source.is_empty() {
                crate::volumes::check_name(&mount.source)?;
            }
            let below = Path::new(&options.subpath);
            if below.is_absolute() || below.components().any(|c| c == Component::ParentDir) {
                return Err(invalid("subpath must be a relative path within the volume".into()));
            }
            let mut plan = volume_plan(destination, mount.source.clone(), !options.no_copy);
            plan.read_only = mount.read_only;
            plan.mode = "z".into();
            if let Source::Volume { subpath, making, .. } = &mut plan.source {
                *subpath = options.subpath;
                *making = NewVolume {
                    driver: driver.name,
                    options: driver.options.into_map(),
                    labels: options.labels.into_map(),
                };
            }
            Ok(plan)
        }
        "tmpfs" => {
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            if !mount.source.is_empty() {
                return Err(invalid("field Source must not be specified".into()));
            }
            let mut words: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
            if options.size_bytes > 0 {
                words.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                words.push(format!("mode={:o}", options.mode));
            }
            if mount.read_only {
                words.push("ro".into());
            }
            for option in &options.options {
                match &option[..] {
                    [word] if word == "exec" => words.retain(|w| w != "noexec"),
                    [word] if word == "noexec" => {}
                    _ => return Err(invalid(format!("unsupported option: {}", option.join("=")))),
                }
            }
            Ok(MountPlan {
                destination,
                source: Source::Tmpfs { options: words },
                read_only: mount.read_only,
                mode: String::new(),
                propagation: String::new(),
                non_recursive: false,
                listed: true,
            })
        }
        "image" => Err(Error::NotImplemented("mounts of type image are not implemented".into())),
        _ => Err(invalid("mount type unknown".into())),
    }
}

/// Docker's defaults, with what the user says on top.
pub(super) fn tmpfs_options(text: &str) -> Result<Vec<String>> {
    const FLAGS: &[&str] = &[
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "sync",
        "async",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "private",
        "rprivate",
        "slave",
        "rslave",
        "shared",
        "rshared",
        "unbindable",
        "runbindable",
    ];
    const VALUES: &[&str] = &["mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"];
    let mut words: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
    for option in text.split(',').filter(|o| !o.is_empty()) {
        let known = match option.split_once('=') {
            Some((key, value)) => VALUES.contains(&key) && !value.is_empty(),
            None => FLAGS.contains(&option),
        };
        if !known {
            return Err(Error::InvalidParameter(format!("invalid tmpfs option \"{option}\"")));
        }
        match option {
            "exec" | "suid" | "dev" => words.retain(|w| *w != format!("no{option}")),
            _ if words.iter().any(|w| w == option) => {}
            _ => words.push(option.to_owned()),
        }
    }
    Ok(words)
}

/// A clean absolute path that is not the root.
pub(super) fn destination(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::InvalidParameter(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    match clean(Path::new(path)).to_string_lossy().into_owned() {
        root if root == "/" => Err(Error::InvalidParameter("invalid specification: destination can't be '/'".into())),
        clean => Ok(clean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_parsed() {
        let bind = parse_bind("/srv/../data:/in//side/:ro,rshared").unwrap();
        assert_eq!(bind.destination, "/in/side");
        assert_eq!(bind.source, Source::Bind { path: "/data".into(), create: true });
        assert!(bind.read_only && bind.propagation == "rshared");
        let volume = parse_bind("vol1:/data:nocopy").unwrap();
        assert_eq!(volume.volume(), Some("vol1"));
        let anonymous = parse_bind("/data").unwrap();
        assert!(matches!(anonymous.source, Source::Volume { anonymous: true, .. }));
        for bad in ["", "a:b", "/a:/", "/a:/b:c", "/a:/b:ro:x", ":/b", "../x:/b", "vol1:/data:rshared"] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs_options_are_checked() {
        assert_eq!(tmpfs_options("size=64k,exec").unwrap(), ["nosuid", "nodev", "size=64k"]);
        assert!(tmpfs_options("upperdir=/etc").is_err());
    }
}
