//! Makes the root file system of a container: its mounts, its devices, and what is in `/dev`.
//!
//! Runs in the container's first process, which has a mount namespace of its own and still sees the host's root. Whatever
//! is in the image is somebody else's: every path in it is resolved by the kernel below the container's root ([`inside`]),
//! and used by descriptor from then on. Nothing here may open, make or remove a path of the image by a name that begins at
//! the host's root.
//!
//! libcontainer's own `RootFS` is not used: it makes `/dev`'s links, devices and `ptmx` by such names (a link in the image
//! would lead it to the host), makes them in the host's `/dev` when that is bound, mounts over `/proc` what runc refuses,
//! and takes no notice of options such as `rprivate`, `rw`, `idmap` and `tmpcopyup`.

pub mod cgroups;
pub mod cover;
mod dev;
pub mod idmap;
pub mod inside;
mod mounts;
pub mod options;

use std::path::Path;

use libcontainer::oci_spec::runtime::{Mount, Spec};
use nix::mount::{MsFlags, mount};

use self::idmap::Early;
use self::inside::Inside;
use crate::cgroup::Cgroups;
use crate::error::{Doing, Error, Result};

/// What the root file system is made from.
pub struct Plan<'a> {
    /// The configuration.
    pub spec: &'a Spec,
    /// The directory that becomes the root.
    pub rootfs: &'a Path,
    /// The bundle, where relative sources are.
    pub bundle: &'a Path,
    /// The container's groups.
    pub cgroups: &'a Cgroups,
    /// Whether it has a cgroup namespace.
    pub own_cgroup_namespace: bool,
    /// Whether it has a user namespace: device nodes cannot be made then, and the host's are bound.
    pub in_user_namespace: bool,
    /// A mount that is made later by somebody else.
    pub later: Option<&'a Mount>,
    /// What was made before.
    pub early: Early,
}

/// Makes everything below the directory that becomes the root.
pub fn prepare(plan: &mut Plan<'_>) -> Result<()> {
    let linux = plan.spec.linux().as_ref();
    set_host_propagation(linux.and_then(|linux| linux.rootfs_propagation().as_deref()), plan.rootfs)?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(plan.rootfs), plan.rootfs, None::<&str>, bind, None::<&str>)
        .doing(|| format!("bind {}", plan.rootfs.display()))?;
    let inside = Inside::open(plan.rootfs)?;
    let mounts = plan.spec.mounts().as_deref().unwrap_or_default();
    for (index, mount) in mounts.iter().enumerate() {
        if plan.later.is_some_and(|later| std::ptr::eq(later, mount)) {
            continue;
        }
        let (tree, users) = (plan.early.take_tree(index), plan.early.take_users(index));
        // runc takes destinations that name the host's directory, too.
        let relative = mount.destination().strip_prefix(plan.rootfs).map(|below| Path::new("/").join(below));
        let mut mount = mount.clone();
        if let Ok(destination) = relative {
            mount.set_destination(destination);
        }
        mounts::make(&mount, tree, users, plan, &inside).map_err(|err| {
            let source = mount.source().as_deref().unwrap_or(Path::new("")).display().to_string();
            let text = crate::launch::words(&err);
            Error::Init(format!("error mounting {source:?} to rootfs at {:?}: {text}", mount.destination()))
        })?;
    }
    if !dev::is_the_hosts(mounts) {
        let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        dev::fill(&inside, devices, plan.in_user_namespace)?;
    }
    Ok(())
}

/// What is mounted here must not reach the host, and what the host mounts may come here only if that was asked for.
fn set_host_propagation(wanted: Option<&str>, rootfs: &Path) -> Result<()> {
    let kind = match root_propagation(wanted)? {
        MsFlags::MS_SHARED => MsFlags::MS_SHARED,
        MsFlags::MS_PRIVATE => MsFlags::MS_PRIVATE,
        _ => MsFlags::MS_SLAVE,
    };
    let change = |place: &Path, flags| {
        mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
            .doing(|| format!("set the propagation of {}", place.display()))
    };
    change(Path::new("/"), kind | MsFlags::MS_REC)?;
    if kind == MsFlags::MS_SHARED {
        // pivot_root refuses a root on a shared mount.
        change(&inside::host_mount_of(rootfs)?, MsFlags::MS_PRIVATE)?;
    }
    Ok(())
}

/// What `linux.rootfsPropagation` says; empty for nothing.
fn root_propagation(wanted: Option<&str>) -> Result<MsFlags> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(MsFlags::empty()) };
    match options::propagation(wanted).map(|propagation| propagation.kind) {
        Some(libc::MS_SHARED) => Ok(MsFlags::MS_SHARED),
        Some(libc::MS_PRIVATE) => Ok(MsFlags::MS_PRIVATE),
        Some(libc::MS_SLAVE) => Ok(MsFlags::MS_SLAVE),
        Some(libc::MS_UNBINDABLE) => Ok(MsFlags::MS_UNBINDABLE),
        _ => Err(Error::Init(format!("rootfsPropagation={wanted} is not supported"))),
    }
}

/// Gives the new root the propagation that was asked for. To be called when it is the root.
pub fn set_propagation(wanted: Option<&str>) -> Result<()> {
    match root_propagation(wanted)? {
        kind @ (MsFlags::MS_SHARED | MsFlags::MS_UNBINDABLE) => {
            mount(None::<&str>, "/", None::<&str>, kind, None::<&str>)
                .doing(|| "set the propagation of the root".into())
        }
        _ => Ok(()),
    }
}

/// Whether `/dev` is a tmpfs that is to be read-only: it becomes so when all is in it.
pub fn has_read_only_dev(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|mount| {
        mount.typ().as_deref() == Some("tmpfs")
            && inside::normal(mount.destination()) == Path::new("/dev")
            && options::Options::of(mount).is_ok_and(|options| options.attributes.read_only())
    })
}
