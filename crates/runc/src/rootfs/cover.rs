//! Hides paths of the container and makes others read-only (`linux.maskedPaths`, `linux.readonlyPaths`).
//!
//! Each path is looked up once; what was found is cloned, changed and put back by descriptor. Nobody who shares a volume
//! with the container can have something else made read-only, or something else put over what is to be hidden, by
//! exchanging names meanwhile. Runs before the root is changed, because what directories are covered with lies outside of it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::Linux;
use rustix::fs::{CWD, FileType, Stat};
use rustix::mount::OpenTreeFlags;

use super::inside::Inside;
use super::mounts::attach;
use super::options::READ_ONLY;
use crate::error::{Doing, Error, Result};
use crate::sys::{self, MountChange};

/// Covers what the configuration names; `empty` is an empty directory of the host's.
pub fn cover(inside: &Inside, linux: &Linux, empty: &Path) -> Result<()> {
    for path in linux.readonly_paths().iter().flatten() {
        let Some(place) = inside.find(Path::new(path))? else { continue };
        let doing = || format!("make {path} read-only");
        let tree = clone(place.as_fd(), OpenTreeFlags::AT_RECURSIVE).doing(doing)?;
        let read_only = MountChange { set: READ_ONLY, ..MountChange::default() };
        sys::change_mount(tree.as_fd(), &read_only, false).doing(doing)?;
        attach(tree.as_fd(), place.as_fd())?;
    }
    let null = inside.find(Path::new("/dev/null"))?;
    let mut covered = HashSet::new();
    for path in linux.masked_paths().iter().flatten().filter(|path| covered.insert(path.as_str())) {
        let Some(place) = inside.find(Path::new(path))? else { continue };
        let doing = || format!("mask {path}");
        let found = rustix::fs::fstat(&place).doing(doing)?;
        let tree = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => nothing(empty).doing(doing)?,
            _ => {
                let null = null.as_ref().ok_or_else(|| Error::Init(format!("{path}: no /dev/null to mask it")))?;
                check_null(null.as_fd())?;
                clone(null.as_fd(), OpenTreeFlags::empty()).doing(doing)?
            }
        };
        attach(tree.as_fd(), place.as_fd())?;
    }
    Ok(())
}

/// What lies at `/dev/null` comes from the image, or from somebody else's mount.
pub fn check_null(file: BorrowedFd<'_>) -> Result<Stat> {
    let stat = rustix::fs::fstat(file).doing(|| "look at /dev/null".into())?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    match is_device && stat.st_rdev == rustix::fs::makedev(1, 3) {
        true => Ok(stat),
        false => Err(Error::Init("/dev/null of the container is not the null device".into())),
    }
}

fn clone(place: BorrowedFd<'_>, more: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(place, "", flags | more)
}

fn nothing(empty: &Path) -> std::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, empty, flags)?;
    // The host's mount may be shared; a checkpoint must not hold the container to that one's peers.
    let change = MountChange { set: READ_ONLY, propagation: libc::MS_PRIVATE, ..MountChange::default() };
    sys::change_mount(tree.as_fd(), &change, false)?;
    Ok(tree)
}
