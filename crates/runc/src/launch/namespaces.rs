//! Which namespaces a process gets: new ones, or those of a path.
//!
//! docker-runc itself steps into the namespaces that are given by path, makes the child (which inherits them and starts
//! in new ones for the rest), and steps back. That needs one `clone` and no process in between. Mount and user namespaces
//! cannot be left again, so those are joined by the child.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{Doing, Result};
use crate::sys::{self, Forked};

/// Not in libc under this name.
pub const CLONE_NEWTIME: libc::c_int = 0x80;

/// The namespaces of one container.
#[derive(Debug, Default, Clone)]
pub struct Namespaces {
    new: libc::c_int,
    joined: Vec<(libc::c_int, PathBuf)>,
    /// What `timens_offsets` of a new time namespace takes.
    time_offsets: String,
}

fn flag(kind: LinuxNamespaceType) -> libc::c_int {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

/// The file of a namespace below `/proc/<pid>/ns`.
pub fn file_name(flag: libc::c_int) -> &'static str {
    match flag {
        libc::CLONE_NEWNS => "mnt",
        libc::CLONE_NEWCGROUP => "cgroup",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWNET => "net",
        _ => "time",
    }
}

impl Namespaces {
    /// Those of a configuration.
    pub fn of(spec: &Spec) -> Self {
        let mut result = Namespaces::default();
        let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
        for (clock, offset) in offsets.into_iter().flatten() {
            let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            result.time_offsets.push_str(&format!("{clock} {seconds} {nanoseconds}\n"));
        }
        let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        for namespace in list.into_iter().flatten() {
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    result.joined.push((flag(namespace.typ()), path.clone()));
                }
                _ => result.new |= flag(namespace.typ()),
            }
        }
        result
    }

    /// Whether a new one of this kind is made.
    pub fn has_new(&self, flag: libc::c_int) -> bool {
        self.new & flag != 0
    }

    /// The path of the one to join.
    pub fn path(&self, flag: libc::c_int) -> Option<&Path> {
        self.joined.iter().find(|(kind, _)| *kind == flag).map(|(_, path)| path.as_path())
    }

    /// Makes a child in these namespaces, except for the cgroup namespace and those that [`Namespaces::enter_last`]
    /// joins. The cgroup namespace must wait until the process is in its cgroups.
    pub fn fork(&self) -> Result<Forked> {
        let mut back = Vec::new();
        for (kind, path) in &self.joined {
            if matches!(*kind, libc::CLONE_NEWNS | libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP) {
                continue;
            }
            // For pid and time the kernel changes what children get, not where we are.
            let own = format!("/proc/self/ns/{}", file_name(*kind));
            back.push((*kind, File::open(&own).doing(|| format!("open {own}"))?));
            let target = File::open(path).doing(|| format!("open namespace {}", path.display()))?;
            sys::setns(target.as_fd(), *kind).doing(|| format!("join namespace {}", path.display()))?;
        }
        // clone refuses CLONE_NEWTIME (its bit is part of the exit signal), and only children get what is unshared.
        if self.has_new(CLONE_NEWTIME) {
            let own = "/proc/self/ns/time";
            back.push((CLONE_NEWTIME, File::open(own).doing(|| format!("open {own}"))?));
            sys::unshare(CLONE_NEWTIME).doing(|| "make a time namespace".into())?;
            if !self.time_offsets.is_empty() {
                std::fs::write("/proc/self/timens_offsets", &self.time_offsets)
                    .doing(|| "set linux.timeOffsets".into())?;
            }
        }
        let forked = sys::fork_into(self.new & !(libc::CLONE_NEWCGROUP | CLONE_NEWTIME));
        if !matches!(forked, Ok(Forked::Child)) {
            for (kind, own) in back.iter().rev() {
                sys::setns(own.as_fd(), *kind).doing(|| format!("return to own {} namespace", file_name(*kind)))?;
            }
        }
        forked.doing(|| "create the container process".into())
    }

    /// In the child: joins what the parent could not.
    pub fn enter_last(&self) -> Result<()> {
        for kind in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS] {
            let Some(path) = self.path(kind) else { continue };
            let target = File::open(path).doing(|| format!("open namespace {}", path.display()))?;
            sys::setns(target.as_fd(), kind).doing(|| format!("join namespace {}", path.display()))?;
        }
        Ok(())
    }

    /// In the child, once it is in its cgroups.
    pub fn enter_cgroup_namespace(&self) -> Result<()> {
        if let Some(path) = self.path(libc::CLONE_NEWCGROUP) {
            let target = File::open(path).doing(|| format!("open namespace {}", path.display()))?;
            return sys::setns(target.as_fd(), libc::CLONE_NEWCGROUP)
                .doing(|| format!("join namespace {}", path.display()));
        }
        if self.has_new(libc::CLONE_NEWCGROUP) {
            sys::unshare(libc::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace".into())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_the_rest_is_new() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.0.2",
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/x"}]}
        }))
        .unwrap();
        let namespaces = Namespaces::of(&spec);
        assert!(namespaces.has_new(libc::CLONE_NEWPID) && !namespaces.has_new(libc::CLONE_NEWNET));
        assert_eq!(namespaces.path(libc::CLONE_NEWNET), Some(Path::new("/run/netns/x")));
    }
}
