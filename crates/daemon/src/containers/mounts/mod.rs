//! A container's mounts: what was asked for (`-v`, `--mount`, `--tmpfs`, the image's `VOLUME`s, `--volumes-from`) becomes a
//! [`MountPlan`] at create, and what the runtime is told at start.

mod parse;
mod prepare;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use api::types::{ContainerConfig, HostConfig, MountPoint};
use serde::{Deserialize, Serialize};

use self::parse::{destination, parse_bind, parse_mount, tmpfs_options, volume_plan};
use crate::error::{Error, Result};
use crate::volumes::Volumes;

pub(super) use self::prepare::inside;
pub use self::prepare::{make_dir_inside, prepare};

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
        /// How to make it, if there is none of that name; only `create` needs it.
        #[serde(skip)]
        making: NewVolume,
    },
    /// Memory.
    Tmpfs {
        /// Mount options.
        options: Vec<String>,
    },
}

/// What `--mount` says of a volume that is to be made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewVolume {
    /// Empty: the one of the request, else `local`.
    pub driver: String,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
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
    let inherited = |p: &MountPlan| MountPlan {
        read_only: p.read_only || read_only,
        // What the other one's user wrote was not written for this one.
        mode: String::new(),
        ..p.clone()
    };
    Ok(plans.iter().filter(keep).map(inherited).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
