//! Mounts the v1 cgroups in the container.
//!
//! The kernel takes its time to move the container's first process into its groups. Only these mounts have to wait for it,
//! because they are of the groups; so they are made last, and while the parent is still busy the child mounts the rest.
//!
//! Done here is the usual case: `/sys/fs/cgroup`, no cgroup namespace, no user namespace, nothing mounted below. What is
//! not usual is libcontainer's.

use std::os::fd::AsFd;
use std::path::Path;

use libcontainer::oci_spec::runtime::{Mount, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::namespaces::Namespaces;
use crate::cgroup::{Cgroups, HierarchyKind};
use crate::error::{Doing, Error, Result};
use crate::sys;

const PLACE: &str = "/sys/fs/cgroup";

/// The mount that is ours to make, if there is one.
pub fn ours<'a>(spec: &'a Spec, namespaces: &Namespaces, cgroups: &Cgroups) -> Option<&'a Mount> {
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
        && cgroups.hierarchies().iter().any(|hierarchy| hierarchy.kind != HierarchyKind::V2)
        && mounts.iter().filter(|other| other.destination().starts_with(PLACE)).count() == 1;
    usual.then_some(mount)
}

/// The configuration without that mount.
pub fn without(spec: &Spec) -> Spec {
    let mut rest = spec.clone();
    let mounts = spec.mounts().iter().flatten();
    rest.set_mounts(Some(mounts.filter(|mount| mount.typ().as_deref() != Some("cgroup")).cloned().collect()));
    rest
}

/// Makes it below `rootfs`: a tmpfs with a bind of the container's group for every v1 hierarchy.
pub fn make(mount: &Mount, rootfs: &Path, cgroups: &Cgroups) -> Result<()> {
    let doing = || format!("mount the cgroups at {PLACE}");
    let root = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.doing(|| format!("open {}", rootfs.display()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(&root, PLACE, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .map_err(|errno| Error::Init(format!("open {PLACE} in the container: {errno}")))?;
    let mut attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;

    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", "tmpfs").doing(doing)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "755").doing(doing)?;
    rustix::mount::fsconfig_create(context.as_fd()).doing(doing)?;
    let top = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing(doing)?;
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(top.as_fd(), "", place.as_fd(), "", onto).doing(doing)?;

    if mount.options().iter().flatten().any(|option| option == "ro") {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    for hierarchy in cgroups.hierarchies().iter().filter(|hierarchy| hierarchy.kind != HierarchyKind::V2) {
        let Some(name) = hierarchy.mount.file_name().and_then(|name| name.to_str()) else { continue };
        let group = cgroups.dir(hierarchy);
        let doing = || format!("bind {} to {PLACE}/{name}", group.display());
        rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755)).doing(doing)?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(rustix::fs::CWD, &group, clone).doing(doing)?;
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
