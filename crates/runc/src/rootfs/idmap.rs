//! Mounts on which files have other owners than on the disk (`uidMappings` and `gidMappings` of a mount), and bind mounts for
//! containers with a user namespace.
//!
//! The kernel takes a mapping from a user namespace, and only from whoever rules over the file system itself; and root of a
//! user namespace may not even see the source of a bind mount. Where there is one, docker-runc makes such mounts before it
//! makes the container's first process, which inherits them and puts them in their places.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use super::mounts::clone_of;
use super::options::{Options, Recursive};
use crate::error::{Doing, Error, Result};
use crate::launch::namespaces::Namespaces;
use crate::launch::wait::kill_and_reap;
use crate::sys::{self, Forked, MountChange};

const ID_MAP: u64 = 0x0010_0000;

/// What is made before the container's first process, by the number of the mount in the configuration's list.
#[derive(Debug, Default)]
pub struct Early {
    /// Detached mounts.
    trees: Vec<(usize, OwnedFd)>,
    /// User namespaces that say how owners are mapped.
    users: Vec<(usize, OwnedFd)>,
}

impl Early {
    /// The mount, if it is made.
    pub fn take_tree(&mut self, index: usize) -> Option<OwnedFd> {
        let at = self.trees.iter().position(|(number, _)| *number == index)?;
        Some(self.trees.swap_remove(at).1)
    }

    /// The mapping of its owners, if it has one.
    pub fn take_users(&mut self, index: usize) -> Option<OwnedFd> {
        let at = self.users.iter().position(|(number, _)| *number == index)?;
        Some(self.users.swap_remove(at).1)
    }
}

/// Makes what the first process of this container cannot make. A source that lies in the container's root is there only when
/// what comes before it is mounted: that is left to the first process.
pub fn early(spec: &Spec, bundle: &Path, rootfs: &Path) -> Result<Early> {
    let mut made = Early::default();
    let namespaces = Namespaces::of(spec);
    let has_users = namespaces.has_new(libc::CLONE_NEWUSER) || namespaces.path(libc::CLONE_NEWUSER).is_some();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let options = Options::of(mount)?;
        let users = options.id_mapped.map(|_| users(mount, spec)).transpose()?;
        let is_inside = mount.source().as_ref().is_some_and(|source| bundle.join(source).starts_with(rootfs));
        if has_users && options.bind.is_some() && (users.is_some() || !is_inside) {
            let tree = clone_of(mount, bundle, options.bind == Some(Recursive::Yes))?;
            // What is mounted in the container must not appear on the host.
            let slave = MountChange { propagation: libc::MS_SLAVE, ..MountChange::default() };
            sys::change_mount(tree.as_fd(), &slave, true).doing(|| "set the propagation of a bind mount".into())?;
            if let Some(users) = &users {
                map_owners(tree.as_fd(), users.as_fd(), &options)?;
            }
            made.trees.push((index, tree));
        } else if let Some(users) = users {
            made.users.push((index, users));
        }
    }
    Ok(made)
}

/// Gives a detached mount its mapping.
pub fn map_owners(tree: BorrowedFd<'_>, users: BorrowedFd<'_>, options: &Options) -> Result<()> {
    let change = MountChange { set: ID_MAP, users: Some(users), ..MountChange::default() };
    sys::change_mount(tree, &change, options.id_mapped == Some(Recursive::Yes))
        .doing(|| "failed to set MOUNT_ATTR_IDMAP".into())
}

fn users(mount: &Mount, spec: &Spec) -> Result<OwnedFd> {
    match (mount.uid_mappings(), mount.gid_mappings()) {
        (Some(users), Some(groups)) if !users.is_empty() && !groups.is_empty() => namespace(users, groups),
        _ => containers_own(spec, &mount.destination().display().to_string()),
    }
}

/// `idmap` without a mapping means that of the container's own user namespace.
fn containers_own(spec: &Spec, place: &str) -> Result<OwnedFd> {
    let namespaces = Namespaces::of(spec);
    if let Some(path) = namespaces.path(libc::CLONE_NEWUSER) {
        return File::open(path).map(OwnedFd::from).doing(|| format!("open namespace {}", path.display()));
    }
    let linux = spec.linux().as_ref();
    let lists = linux.and_then(|linux| Some((linux.uid_mappings().as_ref()?, linux.gid_mappings().as_ref()?)));
    match lists {
        Some((users, groups)) if namespaces.has_new(libc::CLONE_NEWUSER) => namespace(users, groups),
        _ => Err(Error::Invalid(format!(
            "invalid mount at {place}: id-mapped mounts must have both uid and gid mappings specified"
        ))),
    }
}

/// A user namespace with these mappings. The process that it takes to make one ends at once.
fn namespace(users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let pid = match sys::fork_into(libc::CLONE_NEWUSER).doing(|| "make a user namespace".into())? {
        // It is killed when its namespace has been opened. Should docker-runc die before that, so does it.
        Forked::Child => {
            let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0);
            loop {
                nix::unistd::pause();
            }
        }
        Forked::Parent(pid) => pid,
    };
    let made = (|| {
        for (file, list) in [("uid_map", users), ("gid_map", groups)] {
            fs::write(format!("/proc/{pid}/{file}"), lines(list)).doing(|| format!("write {file} of a mount"))?;
        }
        File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from).doing(|| "open a user namespace".into())
    })();
    kill_and_reap(pid);
    made
}

/// As `uid_map` and `gid_map` take them.
pub fn lines(list: &[LinuxIdMapping]) -> String {
    list.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}
