//! A container's files as its processes see them: its root, and on it its volumes, its binds and its network files. That is
//! what `docker cp` reads and writes, whether the container runs or not.
//!
//! The container's own mount namespace would be the wrong place to look: it can change that while we do. So the same mounts
//! are made once more, in a mount namespace of a thread that lives as long as the call. Paths are still resolved by the
//! kernel inside the root ([`Root`]); nothing that is mounted here is seen by anybody else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use archive::Root;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::mounts::{MountPlan, Source, inside};
use super::record::Record;
use crate::Daemon;
use crate::error::{Context, Error, Result};

/// One thing that lies on the root.
struct Laid {
    source: PathBuf,
    destination: String,
    read_only: bool,
}

/// What a container sees, to be entered.
pub(super) struct View {
    rootfs: PathBuf,
    /// Shallow ones first.
    laid: Vec<Laid>,
}

impl Daemon {
    /// What a container sees; `rootfs` is its mounted root.
    pub(super) fn view(&self, record: &Record, rootfs: &Path) -> View {
        let mut laid: Vec<Laid> = record.mounts.iter().filter_map(|plan| self.laid(plan)).collect();
        let owner = record.host_config.network_mode.strip_prefix("container:");
        let owner = owner.and_then(|other| self.container(other).ok()).map_or(record.id.clone(), |c| c.id.clone());
        for name in ["resolv.conf", "hostname", "hosts"] {
            let (source, destination) = (self.container_dir(&owner).join(name), format!("/etc/{name}"));
            if source.exists() && !laid.iter().any(|other| other.destination == destination) {
                laid.push(Laid { source, destination, read_only: false });
            }
        }
        laid.sort_by_key(|laid| laid.destination.matches('/').count());
        View { rootfs: rootfs.to_owned(), laid }
    }

    /// Where a mount comes from. Memory of a container is not seen from outside, as in Docker.
    fn laid(&self, plan: &MountPlan) -> Option<Laid> {
        let source = match &plan.source {
            Source::Bind { path, .. } => path.clone(),
            Source::Volume { name, subpath, .. } => {
                let data = self.volumes.mount(name).ok()?;
                if subpath.is_empty() { data } else { inside(&data, subpath).ok()? }
            }
            Source::Tmpfs { .. } => return None,
        };
        Some(Laid { source, destination: plan.destination.clone(), read_only: plan.read_only })
            .filter(|laid| laid.source.exists())
    }
}

impl View {
    /// Runs `work` with the root as the container sees it.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce(&Root) -> Result<T> + Send) -> Result<T> {
        if self.laid.is_empty() {
            return work(&Root::open(&self.rootfs)?);
        }
        std::thread::scope(|scope| {
            // Its own thread: a namespace once left cannot be had back.
            let thread = std::thread::Builder::new()
                .name("container-view".into())
                .spawn_scoped(scope, || work(&self.lay()?))
                .context(|| "start a thread".into())?;
            thread.join().unwrap_or_else(|_| Err(Error::System("a thread panicked".into())))
        })
    }

    /// Makes the mounts, for this thread only.
    fn lay(&self) -> Result<Root> {
        unshare(CloneFlags::CLONE_NEWNS).context(|| "make a mount namespace".into())?;
        // What is unmounted outside goes here as well; nothing goes the other way.
        let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).context(|| "keep mounts to oneself".into())?;
        let root = Root::open(&self.rootfs)?;
        for laid in &self.laid {
            lay_one(&root, laid).context(|| format!("mount {} on {}", laid.source.display(), laid.destination))?;
        }
        Ok(root)
    }
}

fn lay_one(root: &Root, laid: &Laid) -> std::io::Result<()> {
    let path = laid.destination.as_bytes();
    let target = match root.open_path(path, OFlags::PATH) {
        Err(Errno::NOENT) => make(root, &laid.destination, laid.source.is_dir())?,
        other => other?,
    };
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&laid.source), &at(target.as_fd()), None::<&str>, bind, None::<&str>)?;
    if laid.read_only {
        let target = root.open_path(path, OFlags::PATH)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &at(target.as_fd()), None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// Makes a place for a mount, as the runtime does at start.
fn make(root: &Root, destination: &str, directory: bool) -> std::io::Result<OwnedFd> {
    let failed = |error: archive::Error| std::io::Error::other(error);
    if directory {
        return root.ensure_dir(destination.as_bytes()).map_err(failed);
    }
    let (parent, name) = destination.rsplit_once('/').unwrap_or(("", destination));
    let parent = root.ensure_dir(parent.as_bytes()).map_err(failed)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o755))?)
}

/// A path to what a descriptor stands for.
fn at(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
