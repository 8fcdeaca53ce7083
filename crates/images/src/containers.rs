//! Containers' writable layers: `overlay2/<container id>/{diff,work,merged}`.
//!
//! Making one is three directories and a row; nothing is fsynced. Between a container's writable layer and its image lies
//! an *init layer*, made once per image: empty files and directories to mount `/etc/hosts`, `/proc` and the like on, so
//! that they are neither in the image nor among what the container changed.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use archive::{PackOptions, Root, TarWriter, Whiteouts};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::overlay::{self, Overlay, View};
use crate::shared::{ContainerLayer, Shared, remove_tree, set_apart};
use crate::{Digest, Error, Images, Result};

/// Where an overlay's parts are, as `docker inspect` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphDriver {
    /// Always `overlay2`.
    pub name: &'static str,
    /// Read-only directories, top first.
    pub lower: Vec<PathBuf>,
    /// The writable directory (of an image: its top layer).
    pub upper: PathBuf,
    /// Overlay's own.
    pub work: PathBuf,
    /// Where it is mounted when it is.
    pub merged: PathBuf,
}

/// Bytes of a container's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerSize {
    /// What the container wrote.
    pub writable_bytes: u64,
    /// That and its image.
    pub root_fs_bytes: u64,
}

impl Images {
    /// Makes a container's writable layer on an image, or on nothing.
    pub fn create_layer(&self, container: &str, image: Option<&Digest>) -> Result<()> {
        let dir = self.container_dir(container)?;
        let chain = match image {
            None => None,
            Some(id) => {
                let state = self.shared.state();
                let image = state.images.get(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
                image.chains.last().cloned()
            }
        };
        // Keeps the image's layers while the init layer is made; the row keeps them afterwards.
        let mut lease = self.shared.lease();
        if let Some(chain) = &chain {
            lease.layer(chain).ok_or_else(|| Error::NotFound(format!("layer {chain} does not exist")))?;
        }
        self.ensure_init_layer(chain.as_ref())?;
        match std::fs::DirBuilder::new().mode(0o710).create(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Conflict(format!("the layer of container {container} exists already")));
            }
            made => made.map_err(Error::io(format!("make {}", dir.display())))?,
        }
        let made = || -> Result<()> {
            for name in ["diff", "work", "merged"] {
                let path = dir.join(name);
                let mode = if name == "work" { 0o700 } else { 0o755 };
                std::fs::DirBuilder::new()
                    .mode(mode)
                    .create(&path)
                    .map_err(Error::io(format!("make {}", path.display())))?;
            }
            let mut state = self.shared.state();
            state.db.execute(
                "INSERT OR REPLACE INTO image_container_layers VALUES (?1, ?2, ?3)",
                (container, image.map(Digest::as_str), chain.as_ref().map(Digest::as_str)),
            )?;
            state.containers.insert(container.to_owned(), ContainerLayer { image: image.cloned(), chain });
            Ok(())
        };
        made().inspect_err(|_| remove_tree(&dir))
    }

    /// Mounts a container's root file system and returns where. Being mounted already is fine, also by an engine that has
    /// since been killed. `options` are more overlay options, such as a security context.
    pub fn mount(&self, container: &str, options: &[(String, String)]) -> Result<PathBuf> {
        let driver = self.graph_driver(container)?;
        if !overlay::is_mounted(&driver.merged)? {
            let writable = Some((driver.upper.as_path(), driver.work.as_path()));
            let overlay = Overlay { base: &self.shared.overlay, lower: &driver.lower, writable, extra: options };
            overlay.mount(&driver.merged)?;
        }
        Ok(driver.merged)
    }

    /// Unmounts a container's root file system; not being mounted is fine.
    pub fn unmount(&self, container: &str) -> Result<()> {
        overlay::unmount(&self.container_dir(container)?.join("merged"))
    }

    /// Whether a container's root file system is mounted.
    pub fn is_mounted(&self, container: &str) -> Result<bool> {
        overlay::is_mounted(&self.container_dir(container)?.join("merged"))
    }

    /// Unmounts and removes a container's writable layer; not being there is fine.
    pub fn remove_layer(&self, container: &str) -> Result<()> {
        let dir = self.container_dir(container)?;
        overlay::unmount(&dir.join("merged"))?;
        {
            let mut state = self.shared.state();
            state.db.execute("DELETE FROM image_container_layers WHERE container = ?1", [container])?;
            state.containers.remove(container);
        }
        self.shared.delete_later(set_apart(&self.shared.overlay, container));
        self.shared.collect().map(drop)
    }

    /// The containers that have a writable layer, to be compared with those that exist.
    pub fn container_layers(&self) -> Vec<String> {
        self.shared.state().containers.keys().cloned().collect()
    }

    /// Where the parts of a container's overlay are.
    pub fn graph_driver(&self, container: &str) -> Result<GraphDriver> {
        let dir = self.container_dir(container)?;
        let layer = self.container_layer(container)?;
        Ok(GraphDriver {
            name: "overlay2",
            lower: self.lower_dirs(&layer),
            upper: dir.join("diff"),
            work: dir.join("work"),
            merged: dir.join("merged"),
        })
    }

    /// The directory with what a container wrote.
    pub fn upper_dir(&self, container: &str) -> Result<PathBuf> {
        Ok(self.container_dir(container)?.join("diff"))
    }

    /// Overlay's work directory of a container.
    pub fn work_dir(&self, container: &str) -> Result<PathBuf> {
        Ok(self.container_dir(container)?.join("work"))
    }

    /// Bytes of a container's files. Walks what the container wrote.
    pub fn layer_size(&self, container: &str) -> Result<LayerSize> {
        let layer = self.container_layer(container)?;
        let writable_bytes = tree_bytes(&self.upper_dir(container)?)?;
        let state = self.shared.state();
        let image: u64 =
            state.stack(layer.chain.as_ref()).iter().filter_map(|c| state.layers.get(c)).map(|l| l.bytes).sum();
        Ok(LayerSize { writable_bytes, root_fs_bytes: writable_bytes + image })
    }

    /// Writes what a container changed as an image layer's tar.
    pub fn diff_tar(&self, container: &str, out: impl Write) -> Result<()> {
        self.container_layer(container)?;
        let mut tar = TarWriter::new(out);
        let options = PackOptions { whiteouts: Whiteouts::Oci, ..PackOptions::default() };
        archive::pack(&self.upper_dir(container)?, &mut tar, &options)?;
        tar.finish()?;
        Ok(())
    }

    /// Writes a container's whole root file system as a tar, whether it is mounted or not.
    pub fn export(&self, container: &str, out: impl Write) -> Result<()> {
        let driver = self.graph_driver(container)?;
        let mut tar = TarWriter::new(out);
        if overlay::is_mounted(&driver.merged)? {
            archive::pack(&driver.merged, &mut tar, &PackOptions::default())?;
        } else {
            let mut stack = vec![driver.upper];
            stack.extend(driver.lower);
            let view = View::new(&self.shared.overlay, &stack)?;
            archive::pack(view.path(), &mut tar, &PackOptions::default())?;
        }
        tar.finish()?;
        Ok(())
    }

    pub(crate) fn container_layer(&self, container: &str) -> Result<ContainerLayer> {
        let state = self.shared.state();
        state.containers.get(container).cloned().ok_or_else(|| Error::NoSuchLayer(container.to_owned()))
    }

    /// The read-only directories below a container's writable one, top first.
    pub(crate) fn lower_dirs(&self, layer: &ContainerLayer) -> Vec<PathBuf> {
        let init = self.shared.overlay.join(Shared::init_name(layer.chain.as_ref())).join("diff");
        let stack = self.shared.state().stack(layer.chain.as_ref());
        std::iter::once(init).chain(stack.iter().map(|chain| self.shared.layer_dir(chain))).collect()
    }

    /// A container's directory. The id becomes a name on disk, so it is checked here for every caller.
    pub(crate) fn container_dir(&self, container: &str) -> Result<PathBuf> {
        if !crate::digest::is_full_hex(container) {
            return Err(Error::Invalid(format!("invalid container id {container:?}")));
        }
        Ok(self.shared.overlay.join(container))
    }

    fn ensure_init_layer(&self, chain: Option<&Digest>) -> Result<()> {
        let target = self.shared.overlay.join(Shared::init_name(chain));
        if target.exists() {
            return Ok(());
        }
        let staging = self.shared.staging()?;
        let at = |name: &str| staging.path().join(name);
        for name in ["diff", "work", "merged"] {
            std::fs::create_dir(at(name)).map_err(Error::io(format!("make {}", at(name).display())))?;
        }
        let stack = self.shared.state().stack(chain);
        if stack.is_empty() {
            mount_points(&Root::open(&at("diff"))?)?;
        } else {
            let lower: Vec<PathBuf> = stack.iter().map(|chain| self.shared.layer_dir(chain)).collect();
            let (diff, work) = (at("diff"), at("work"));
            let writable = Some((diff.as_path(), work.as_path()));
            Overlay { base: &self.shared.overlay, lower: &lower, writable, extra: &[] }.mount(&at("merged"))?;
            let made = Root::open(&at("merged")).map_err(Error::from).and_then(|root| mount_points(&root));
            overlay::unmount(&at("merged"))?;
            made?;
        }
        for name in ["work", "merged"] {
            remove_tree(&at(name));
        }
        match std::fs::rename(staging.path(), &target) {
            Ok(()) => {
                let _ = staging.keep();
                Ok(())
            }
            // Another container's creation was faster.
            Err(_) if target.exists() => Ok(()),
            Err(error) => Err(Error::io(format!("rename to {}", target.display()))(error)),
        }
    }
}

/// Makes what every container's root has to have. What the image has of the right kind stays.
fn mount_points(root: &Root) -> Result<()> {
    enum Kind {
        Directory,
        File,
        Link(&'static str),
    }
    let points = [
        ("dev", "pts", Kind::Directory),
        ("dev", "shm", Kind::Directory),
        ("", "proc", Kind::Directory),
        ("", "sys", Kind::Directory),
        ("", ".dockerenv", Kind::File),
        ("etc", "resolv.conf", Kind::File),
        ("etc", "hosts", Kind::File),
        ("etc", "hostname", Kind::File),
        ("dev", "console", Kind::File),
        ("etc", "mtab", Kind::Link("/proc/mounts")),
    ];
    for (parent, name, kind) in points {
        let what = || format!("make mount point /{parent}/{name}");
        let dir = root.ensure_dir(parent.as_bytes())?;
        // A file or link of the image would be mounted over, or lead elsewhere; a directory is used as it is.
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => continue,
            Err(errno) => return Err(Error::io(what())(errno)),
        }
        let mode = Mode::from_raw_mode(0o755);
        let made = match kind {
            Kind::Directory => rustix::fs::mkdirat(dir.as_fd(), name, mode),
            Kind::Link(target) => rustix::fs::symlinkat(target, dir.as_fd(), name),
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(dir.as_fd(), name, flags, mode).map(drop)
            }
        };
        made.map_err(Error::io(what()))?;
    }
    Ok(())
}

/// Bytes of all that is not a directory, each inode once.
fn tree_bytes(top: &Path) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            // It may go away while a running container is measured.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir != top => continue,
            Err(error) => return Err(Error::io(format!("read {}", dir.display()))(error)),
        };
        for entry in entries.flatten() {
            let Ok(stat) = entry.metadata() else { continue };
            if stat.is_dir() {
                pending.push(entry.path());
            } else if stat.nlink() == 1 || seen.insert((stat.dev(), stat.ino())) {
                bytes += stat.len();
            }
        }
    }
    Ok(bytes)
}
