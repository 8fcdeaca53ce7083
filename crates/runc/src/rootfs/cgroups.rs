//! Mounts the cgroups in the container.
//!
//! The kernel takes its time to move the container's first process into its groups. Only these mounts have to wait for it,
//! because they are of the groups; so in the usual case they are made last, and while the parent is still busy the child
//! mounts the rest. Usual is `/sys/fs/cgroup` on a host with v1 hierarchies, without a cgroup namespace or a user namespace,
//! and nothing mounted below.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::{Mount, Spec};
use rustix::fs::Mode;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::inside::Inside;
use super::mounts::attach;
use crate::cgroup::{Cgroups, Hierarchy, HierarchyKind};
use crate::error::{Doing, Result};
use crate::launch::namespaces::Namespaces;
use crate::sys;

const PLACE: &str = "/sys/fs/cgroup";

/// The mount that can be made last, if there is one.
pub fn last<'a>(spec: &'a Spec, namespaces: &Namespaces, cgroups: &Cgroups) -> Option<&'a Mount> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let is_cgroup = |mount: &&Mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
    let mut all = mounts.iter().filter(is_cgroup);
    let mount = all.next()?;
    let new_or_named = |kind| namespaces.has_new(kind) || namespaces.path(kind).is_some();
    let usual = all.next().is_none()
        && mount.typ().as_deref() == Some("cgroup")
        && mount.destination() == Path::new(PLACE)
        && !new_or_named(libc::CLONE_NEWCGROUP)
        && !new_or_named(libc::CLONE_NEWUSER)
        && v1(cgroups).next().is_some()
        && mounts.iter().filter(|other| other.destination().starts_with(PLACE)).count() == 1;
    usual.then_some(mount)
}

fn v1(cgroups: &Cgroups) -> impl Iterator<Item = &Hierarchy> {
    cgroups.hierarchies().iter().filter(|hierarchy| hierarchy.kind != HierarchyKind::V2)
}

/// Makes the mount: for v1 a tmpfs with a mount for every hierarchy, for v2 the one hierarchy.
pub fn make(mount: &Mount, inside: &Inside, cgroups: &Cgroups, own_namespace: bool) -> Result<()> {
    let place = inside.directory(mount.destination())?;
    let mut attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if mount.options().iter().flatten().any(|option| option == "ro") {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    if v1(cgroups).next().is_none() {
        let tree = unified(cgroups, own_namespace)?;
        sys::set_mount_attributes(tree.as_fd(), attributes.bits().into()).doing(|| "restrict the cgroups".into())?;
        return attach(tree.as_fd(), place.as_fd());
    }

    let doing = || format!("mount the cgroups at {}", mount.destination().display());
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", "tmpfs").doing(doing)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "755").doing(doing)?;
    rustix::mount::fsconfig_create(context.as_fd()).doing(doing)?;
    let writable = attributes - MountAttrFlags::MOUNT_ATTR_RDONLY;
    let top = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, writable).doing(doing)?;
    attach(top.as_fd(), place.as_fd())?;
    for hierarchy in v1(cgroups) {
        let Some(name) = hierarchy.mount.file_name().and_then(|name| name.to_str()) else { continue };
        let doing = || format!("mount the cgroups of {name}");
        rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755)).doing(doing)?;
        let tree = match own_namespace {
            true => seen_from_here(name).doing(doing)?,
            false => bound(&cgroups.dir(hierarchy))?,
        };
        sys::set_mount_attributes(tree.as_fd(), attributes.bits().into()).doing(doing)?;
        let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(tree.as_fd(), "", top.as_fd(), name, here).doing(doing)?;
        // Controllers that are mounted together are found under each name.
        if name.contains(',') {
            for one in name.split(',') {
                rustix::fs::symlinkat(name, &top, one).doing(doing)?;
            }
        }
    }
    sys::set_mount_attributes(top.as_fd(), attributes.bits().into()).doing(doing)
}

/// The container's group alone.
fn bound(group: &Path) -> Result<OwnedFd> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, group, clone).doing(|| format!("bind {}", group.display()))
}

/// A v1 hierarchy as the cgroup namespace shows it. Its name is that of its controllers, but for systemd's, which has none.
fn seen_from_here(name: &str) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fd = context.as_fd();
    rustix::mount::fsconfig_set_string(fd, "source", "cgroup")?;
    if name == "systemd" {
        rustix::mount::fsconfig_set_flag(fd, "none")?;
        rustix::mount::fsconfig_set_string(fd, "name", name)?;
    } else {
        for controller in name.split(',') {
            rustix::mount::fsconfig_set_flag(fd, controller)?;
        }
    }
    rustix::mount::fsconfig_create(fd)?;
    rustix::mount::fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The v2 hierarchy. Where it cannot be mounted (in a user namespace without a cgroup namespace), the container's group.
fn unified(cgroups: &Cgroups, own_namespace: bool) -> Result<OwnedFd> {
    use rustix::io::Errno;
    let fresh = || {
        let context = rustix::mount::fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", "cgroup")?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    match (fresh(), cgroups.hierarchies().first()) {
        (Err(Errno::PERM | Errno::BUSY), Some(hierarchy)) => match own_namespace {
            true => bound(&hierarchy.mount),
            false => bound(&cgroups.dir(hierarchy)),
        },
        (result, _) => result.doing(|| "mount the cgroups".into()),
    }
}
