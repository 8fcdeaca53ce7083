//! `start --checkpoint`: what a wake needs to know of a checkpoint, checked before anything is touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use checkpoint::{Depth, Directory, HostFacts, Manifest, Origin, ROOTFS, SHM};
use chrono::Utc;

use crate::Daemon;
use crate::containers::Container;
use crate::containers::mounts::Source;
use crate::containers::network::Addresses;
use crate::containers::record::{Record, Timing};
use crate::error::{Context, Error, Result, blocking};

/// A checkpoint that is about to be woken.
#[derive(Debug, Clone)]
pub struct Wake {
    parent: PathBuf,
    manifest: Arc<Manifest>,
    addresses: Addresses,
    asked: Instant,
}

impl Daemon {
    /// Finds a checkpoint and makes sure that this container can be woken from it.
    pub(crate) async fn open_checkpoint(
        self: &Arc<Self>,
        container: &Container,
        name: &str,
        dir: Option<&Path>,
    ) -> Result<Wake> {
        let asked = Instant::now();
        checkpoint::check_name(name)?;
        self.settle_unfinished(container).await?;
        let record = container.record();
        let directory = self.find(&record.id, name, dir)?;
        let (daemon, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let manifest = directory.check(&name, Depth::Wake)?;
            if let Some(why) = daemon.unfit(&directory, &manifest, &record) {
                return Err(Error::Conflict(format!("checkpoint {name} cannot be woken as {}: {why}", record.name)));
            }
            // Another container gets addresses of its own: those of the first may be in use.
            let mut addresses = Addresses::default();
            if manifest.container_id == record.id {
                addresses.by_network = manifest.addresses.clone();
            }
            Ok(Wake { parent: directory.path().to_owned(), manifest: Arc::new(manifest), addresses, asked })
        })
        .await
    }

    /// Why a container cannot be woken from a checkpoint, whole as it may be.
    pub(super) fn unfit(&self, directory: &Directory, manifest: &Manifest, record: &Record) -> Option<String> {
        if directory.origin() == Origin::Own && manifest.container_id != record.id {
            return Some(format!("it was taken of container {}", manifest.container_id));
        }
        if manifest.image_id != record.image_id {
            return Some(format!(
                "it was taken of a container of image {}, this one is of {}",
                manifest.image_id, record.image_id
            ));
        }
        if manifest.tty != record.tty() {
            let (with, without) = ("with a terminal", "without a terminal");
            let (there, here) = if manifest.tty { (with, without) } else { (without, with) };
            return Some(format!("it was taken of a container {there}, this one is {here}"));
        }
        // A start would make it anew, and the processes would find their files gone.
        let gone = record.mounts.iter().find_map(|mount| match &mount.source {
            Source::Bind { path, .. } if !path.exists() => Some((path, &mount.destination)),
            _ => None,
        });
        if let Some((path, destination)) = gone {
            return Some(format!("the source {} of its mount {destination} is missing", path.display()));
        }
        let gone = record.mounts.iter().find_map(|mount| match &mount.source {
            Source::Volume { name, .. } if !self.volumes.mountpoint(name).exists() => Some((name, &mount.destination)),
            _ => None,
        });
        if let Some((name, destination)) = gone {
            return Some(format!("the volume {name} of its mount {destination} is missing"));
        }
        HostFacts::here().obstacle(&manifest.host)
    }

    /// In the container's own directory; with `dir` in Docker's place for this container, in `dir` itself, or in the
    /// place of the one other container that has a checkpoint of that name there.
    fn find(&self, id: &str, name: &str, dir: Option<&Path>) -> Result<Directory> {
        let own = self.checkpoints_of(id, dir);
        let Some(dir) = dir.filter(|_| !own.contains(name)) else { return Ok(own) };
        let plain = Directory::foreign(dir, &self.seal_key);
        if plain.contains(name) {
            return Ok(plain);
        }
        let others: Vec<Directory> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.file_name().len() == 64)
            .map(|e| Directory::foreign(e.path().join("checkpoints"), &self.seal_key))
            .filter(|d| d.contains(name))
            .collect();
        match &others[..] {
            [] => Ok(own),
            [one] => Ok(one.clone()),
            _ => Err(Error::Conflict(format!(
                "{} holds checkpoints called {name} of several containers: name the one you mean by --checkpoint-dir",
                dir.display()
            ))),
        }
    }
}

impl Wake {
    /// Directory and name, for docker-containerd.
    pub fn location(&self) -> (&Path, &str) {
        (&self.parent, &self.manifest.name)
    }

    /// The addresses it had.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Was it frozen?
    pub fn paused(&self) -> bool {
        self.manifest.paused
    }

    /// What the wake cost, now that it is done.
    pub fn woken(&self, measured: &str) -> Timing {
        tracing::info!("woke {} from {}: {measured}", self.manifest.container_name, self.manifest.name);
        Timing {
            checkpoint: self.manifest.name.clone(),
            at: Utc::now(),
            frozen_us: None,
            total_us: u64::try_from(self.asked.elapsed().as_micros()).unwrap_or(u64::MAX),
            bytes: self.manifest.measured.as_ref().and_then(|measured| measured.bytes),
        }
    }

    fn capture(&self, name: &str) -> Option<PathBuf> {
        let path = self.parent.join(&self.manifest.name).join(format!("{name}.tar"));
        std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()).then_some(path)
    }

    /// Puts the writable layer back as it was. The new one is unpacked beside the old one and takes its place by a
    /// rename: a crash leaves either.
    pub fn restore_root(&self, images: &::images::Images, id: &str) -> Result<()> {
        let Some(tar) = self.capture(ROOTFS) else { return Ok(()) };
        // A mount keeps the old layer; there is one when dockerd was killed in the middle of a start.
        images.unmount(id)?;
        let upper = images.upper_dir(id)?;
        let fresh = upper.with_extension("woken");
        let old = upper.with_extension("before");
        remove_tree(&fresh)?;
        remove_tree(&old)?;
        std::fs::create_dir(&fresh).context(|| format!("mkdir {}", fresh.display()))?;
        unpack(&tar, &fresh)?;
        std::fs::rename(&upper, &old).context(|| format!("rename {}", upper.display()))?;
        std::fs::rename(&fresh, &upper).context(|| format!("rename {}", fresh.display()))?;
        remove_tree(&old)
    }

    /// Fills a fresh `/dev/shm`.
    pub fn restore_shm(&self, shm: &Path) -> Result<()> {
        self.capture(SHM).map_or(Ok(()), |tar| unpack(&tar, shm))
    }
}

fn unpack(tar: &Path, into: &Path) -> Result<()> {
    let file = std::fs::File::open(tar).context(|| format!("open {}", tar.display()))?;
    let options = archive::UnpackOptions {
        whiteouts: archive::Whiteouts::Raw,
        devices: true,
        limits: archive::Limits { max_entries: u64::MAX, max_bytes: u64::MAX },
        ..archive::UnpackOptions::default()
    };
    archive::unpack(std::io::BufReader::with_capacity(256 * 1024, file), into, &options)?;
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(|| format!("remove {}", path.display())),
        _ => Ok(()),
    }
}
