//! A container's mounts: what was asked for (`-v`, `--mount`, `--tmpfs`, the image's `VOLUME`s, `--volumes-from`) becomes a
//! [`MountPlan`] at create, and what the runtime is told at start.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use api::types::{ContainerConfig, HostConfig, Mount as AskedMount, MountPoint};
use serde::{Deserialize, Serialize};

use super::spec;
use crate::error::{Context, Error, Result};
use crate::volumes::Volumes;

/// One mount, decided upon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Clean absolute path in the container.
    pub destination: String,
    /// From where.
    pub source: Source,
    /// Not to be written.
    pub read_only: bool,
    /// As the user wrote it after the second colon.
    #[serde(default)]
    pub mode: String,
    /// `rprivate` and so on; empty for volumes and tmpfs.
    #[serde(default)]
    pub propagation: String,
    /// Do not bind what is mounted below the source.
    #[serde(default)]
    pub non_recursive: bool,
    /// Shown among the mounts by inspect (a `--tmpfs` is not).
    #[serde(default)]
    pub listed: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    /// A path of the host.
    Bind {
        /// The path.
        path: PathBuf,
        /// Make it a directory when it is not there.
        create: bool,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// Fill it with what the image has there, if it is empty.
        copy: bool,
        /// A directory in it.
        #[serde(default)]
        subpath: String,
        /// Made for this container.
        #[serde(default)]
        anonymous: bool,
    },
    /// Memory.
    Tmpfs {
        /// Mount options.
        options: Vec<String>,
    },
}

impl MountPlan {
    /// The volume's name, if it is one.
    pub fn volume(&self) -> Option<&str> {
        match &self.source {
            Source::Volume { name, .. } => Some(name),
            _ => None,
        }
    }

    /// As inspect shows it.
    pub fn to_point(&self, volumes: &Volumes) -> MountPoint {
        let mut point = MountPoint {
            destination: self.destination.clone(),
            mode: self.mode.clone(),
            rw: !self.read_only,
            propagation: self.propagation.clone(),
            ..MountPoint::default()
        };
        match &self.source {
            Source::Bind { path, .. } => {
                point.r#type = "bind".into();
                point.source = path.to_string_lossy().into_owned();
            }
            Source::Volume { name, .. } => {
                point.r#type = "volume".into();
                point.name.clone_from(name);
                point.source = volumes.mountpoint(name).to_string_lossy().into_owned();
                point.driver = "local".into();
            }
            Source::Tmpfs { .. } => point.r#type = "tmpfs".into(),
        }
        point
    }
}

/// What a container asks for, by destination: later ways of asking replace earlier ones as in Docker. `inherited` are the
/// mounts of `--volumes-from`.
pub fn plan(config: &ContainerConfig, host: &HostConfig, inherited: Vec<MountPlan>) -> Result<Vec<MountPlan>> {
    let mut plans: BTreeMap<String, MountPlan> = BTreeMap::new();
    for plan in inherited {
        plans.insert(plan.destination.clone(), plan);
    }
    let mut given: BTreeMap<String, ()> = BTreeMap::new();
    let mut insert = |plan: MountPlan, plans: &mut BTreeMap<String, MountPlan>| {
        if given.insert(plan.destination.clone(), ()).is_some() {
            return Err(Error::InvalidParameter(format!("Duplicate mount point: {}", plan.destination)));
        }
        plans.insert(plan.destination.clone(), plan);
        Ok(())
    };
    for bind in &host.binds {
        insert(parse_bind(bind)?, &mut plans)?;
    }
    for mount in &host.mounts {
        insert(parse_mount(mount)?, &mut plans)?;
    }
    for (path, options) in &host.tmpfs {
        let destination = destination(path)?;
        let plan = MountPlan {
            destination,
            source: Source::Tmpfs { options: tmpfs_options(options)? },
            read_only: false,
            mode: String::new(),
            propagation: String::new(),
            non_recursive: false,
            listed: false,
        };
        insert(plan, &mut plans)?;
    }
    for path in config.volumes.keys() {
        let destination = destination(path)?;
        plans.entry(destination.clone()).or_insert_with(|| volume_plan(destination, String::new(), true));
    }
    Ok(plans.into_values().collect())
}

/// The mounts of another container, for `--volumes-from other[:ro|rw]`.
pub fn inherit(plans: &[MountPlan], mode: &str) -> Result<Vec<MountPlan>> {
    let read_only = match mode {
        "" | "rw" => false,
        "ro" => true,
        other => return Err(Error::InvalidParameter(format!("invalid mode: {other}"))),
    };
    let keep = |p: &&MountPlan| !matches!(p.source, Source::Tmpfs { .. });
    Ok(plans.iter().filter(keep).map(|p| MountPlan { read_only: p.read_only || read_only, ..p.clone() }).collect())
}

fn volume_plan(destination: String, name: String, copy: bool) -> MountPlan {
    let anonymous = name.is_empty();
    MountPlan {
        destination,
        source: Source::Volume { name, copy, subpath: String::new(), anonymous },
        read_only: false,
        mode: String::new(),
        propagation: String::new(),
        non_recursive: false,
        listed: true,
    }
}

/// `-v`: `[source:]destination[:options]`.
fn parse_bind(text: &str) -> Result<MountPlan> {
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
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => propagation = option,
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
fn parse_mount(mount: &AskedMount) -> Result<MountPlan> {
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
            if !mount.source.is_empty() {
                crate::volumes::check_name(&mount.source)?;
            }
            let mut plan = volume_plan(destination, mount.source.clone(), !options.no_copy);
            plan.read_only = mount.read_only;
            if let Source::Volume { subpath, .. } = &mut plan.source {
                *subpath = options.subpath;
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
        "image" | "cluster" | "npipe" => {
            Err(Error::NotImplemented(format!("mounts of type {kind} are not implemented")))
        }
        _ => Err(invalid("mount type unknown".into())),
    }
}

/// Docker's defaults, with what the user says on top.
fn tmpfs_options(text: &str) -> Result<Vec<String>> {
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
            return Err(Error::InvalidParameter(format!("invalid tmpfs option [\"{option}\"]")));
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
fn destination(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::InvalidParameter(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    match clean(Path::new(path)).to_string_lossy().into_owned() {
        root if root == "/" => Err(Error::InvalidParameter("invalid specification: destination can't be '/'".into())),
        clean => Ok(clean),
    }
}

/// Without `.`, `..`, double and trailing slashes, by the words alone.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// Makes the sources ready (directories, volumes' own mounts, first content) and says what the runtime shall mount.
pub fn prepare(plans: &[MountPlan], volumes: &Volumes, rootfs: &Path) -> Result<Vec<spec::Mount>> {
    plans.iter().map(|plan| prepare_one(plan, volumes, rootfs)).collect()
}

fn prepare_one(plan: &MountPlan, volumes: &Volumes, rootfs: &Path) -> Result<spec::Mount> {
    let source = match &plan.source {
        Source::Tmpfs { options } => {
            return Ok(spec::Mount {
                destination: plan.destination.clone(),
                kind: "tmpfs",
                source: "tmpfs".into(),
                options: options.clone(),
            });
        }
        Source::Bind { path, create } => {
            if *create && !path.exists() {
                std::fs::create_dir_all(path)
                    .context(|| format!("error while creating mount source path '{}'", path.display()))?;
            }
            path.clone()
        }
        Source::Volume { name, copy, subpath, .. } => {
            let data = volumes.mount(name)?;
            if *copy {
                fill(&data, rootfs, &plan.destination)?;
            }
            match subpath.as_str() {
                "" => data,
                below => inside(&data, below)?,
            }
        }
    };
    let access = if plan.read_only { "ro" } else { "rw" };
    let mut options = vec![if plan.non_recursive { "bind".to_owned() } else { "rbind".to_owned() }, access.to_owned()];
    options.push(if plan.propagation.is_empty() { "rprivate".into() } else { plan.propagation.clone() });
    Ok(spec::Mount {
        destination: plan.destination.clone(),
        kind: "bind",
        source: source.to_string_lossy().into_owned(),
        options,
    })
}

/// Gives an empty volume what the image has at its place.
fn fill(volume: &Path, rootfs: &Path, destination: &str) -> Result<()> {
    let mut entries = std::fs::read_dir(volume).context(|| format!("read {}", volume.display()))?;
    if entries.next().is_some() {
        return Ok(());
    }
    let Ok(image_dir) = inside(rootfs, destination.trim_start_matches('/')) else { return Ok(()) };
    if !image_dir.is_dir() {
        return Ok(());
    }
    let (reader, writer) = std::io::pipe().context(|| "pipe".into())?;
    std::thread::scope(|threads| {
        let packing = threads.spawn(move || {
            let options = archive::PackOptions { root_entry: true, nanoseconds: true, ..Default::default() };
            let mut tar = archive::TarWriter::new(writer);
            archive::pack(&image_dir, &mut tar, &options)?;
            tar.finish().map(drop)
        });
        let unpacked = archive::unpack(reader, volume, &archive::UnpackOptions { devices: true, ..Default::default() });
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(archive::Error::from(std::io::Error::other("the packing thread failed"))));
        unpacked?;
        Ok(packed?)
    })
}

/// Makes a directory and those above it inside a root: a working directory need not be in the image. What is there stays.
pub fn make_dir_inside(root: &Path, path: &str) -> Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let describe = || format!("make the directory {path} in {}", root.display());
    let mut dir = std::os::fd::OwnedFd::from(std::fs::File::open(root).context(describe)?);
    let root = std::fs::File::open(root).context(describe)?;
    let mut so_far = PathBuf::new();
    for part in clean(Path::new(path)).components().filter(|c| matches!(c, Component::Normal(_))) {
        so_far.push(part);
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat2(&root, &so_far, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        };
        dir = match open() {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755)).context(describe)?;
                open().context(describe)?
            }
            // A file in the way is the runtime's to complain about, in the words users know.
            Err(rustix::io::Errno::NOTDIR) => return Ok(()),
            other => other.context(describe)?,
        };
    }
    Ok(())
}

/// A path below a root, wherever the root's own links lead, but never out of it.
fn inside(root: &Path, below: &str) -> Result<PathBuf> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let describe = || format!("{} in {}", below, root.display());
    let dir = std::fs::File::open(root).context(describe)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(&dir, below, flags, Mode::empty(), ResolveFlags::IN_ROOT).context(describe)?;
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).context(describe)
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
    fn a_working_directory_is_made_inside() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        make_dir_inside(root.path(), "/a/b/../c").unwrap();
        assert!(root.path().join("a/c").is_dir() && !root.path().join("a/b").exists());
        assert!(make_dir_inside(root.path(), "/out/x").is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_image_volume_gives_way_to_what_is_asked_for() {
        let mut config = ContainerConfig::default();
        config.volumes.insert("/data".into(), api::types::Empty {});
        config.volumes.insert("/cache".into(), api::types::Empty {});
        let host = HostConfig { binds: vec!["/srv:/data".to_owned()].into(), ..HostConfig::default() };
        let plans = plan(&config, &host, Vec::new()).unwrap();
        assert!(matches!(plans[0].source, Source::Volume { anonymous: true, .. }));
        assert!(matches!(plans[1].source, Source::Bind { .. }));
        let twice = HostConfig { binds: vec!["/a:/x".to_owned(), "/b:/x".to_owned()].into(), ..HostConfig::default() };
        assert!(plan(&ContainerConfig::default(), &twice, Vec::new()).is_err());
    }

    #[test]
    fn tmpfs_options_are_checked() {
        assert_eq!(tmpfs_options("size=64k,exec").unwrap(), ["nosuid", "nodev", "size=64k"]);
        assert!(tmpfs_options("upperdir=/etc").is_err());
    }
}
