//! Network namespaces: made ahead of need, pinned by a bind mount at `netns/<container id>`.
//!
//! Whatever must happen *inside* a namespace happens on a thread made for it that ends afterwards: no thread of the
//! async runtime ever changes its namespace.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::netlink::{self, Rtnl};
use crate::sys::{lock, sysctl};
use crate::{Error, Result};

/// How many namespaces wait ready: a burst of starts is served from here, and refilling follows each take.
const READY_TARGET: usize = 4;

/// How long after a take the stock is filled again.
pub(crate) const REFILL_DELAY: Duration = Duration::from_millis(30);

/// Index of `lo` in every fresh namespace.
const LOOPBACK_INDEX: u32 = 1;

/// An open namespace and a socket in it.
pub(crate) struct Netns {
    pub file: File,
    pub rtnl: Rtnl,
}

impl Netns {
    /// A fresh one, with `lo` up, and IPv6 off on interfaces to come.
    fn new() -> Result<Self> {
        in_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::io("unshare network namespace")(e.into()))?;
            let file = File::open("/proc/thread-self/ns/net").map_err(Error::io("open own network namespace"))?;
            let mut rtnl = Rtnl::open().map_err(Error::io("netlink socket in sandbox"))?;
            rtnl.batch(vec![netlink::link_up(LOOPBACK_INDEX)]).map_err(Error::io("set loopback up"))?;
            // Absent when the kernel has no IPv6.
            if Path::new("/proc/sys/net/ipv6").exists() {
                sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            }
            Ok(Netns { file, rtnl })
        })
    }

    /// The one pinned at `path`.
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path.display().to_string()))?;
        let inside = file.try_clone().map_err(Error::io("network namespace"))?;
        let rtnl = in_namespace(inside, || Rtnl::open().map_err(Error::io("netlink socket in sandbox")))?;
        Ok(Netns { file, rtnl })
    }
}

/// Runs `work` on a thread that has entered `netns`.
pub(crate) fn in_namespace<T: Send>(netns: File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_own_thread(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).map_err(|e| Error::io("enter network namespace")(e.into()))?;
        drop(netns);
        work()
    })
}

fn in_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).stack_size(256 * 1024);
        let thread = thread.spawn_scoped(scope, work).map_err(Error::io("thread for a network namespace"))?;
        thread.join().unwrap_or_else(|_| {
            Err(Error::Io { what: "network namespace".to_owned(), source: std::io::Error::other("thread panicked") })
        })
    })
}

/// The sandboxes of one engine.
pub(crate) struct Sandboxes {
    dir: PathBuf,
    ready: Mutex<Vec<Netns>>,
    refilling: AtomicBool,
    open: Mutex<HashMap<String, Arc<Mutex<Netns>>>>,
}

impl Sandboxes {
    /// Pins are made in `exec_root/netns`.
    pub(crate) fn new(exec_root: &Path) -> Result<Self> {
        let dir = exec_root.join("netns");
        std::fs::create_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
        Ok(Self {
            dir,
            ready: Mutex::new(Vec::new()),
            refilling: AtomicBool::new(false),
            open: Mutex::new(HashMap::new()),
        })
    }

    pub(crate) fn path(&self, container_id: &str) -> PathBuf {
        self.dir.join(container_id)
    }

    /// True for the one caller that is to call [`Self::refill`] in a while.
    pub(crate) fn claim_refill(&self) -> bool {
        !self.refilling.swap(true, Ordering::AcqRel)
    }

    /// Fills the stock of ready namespaces; after [`Self::claim_refill`].
    pub(crate) fn refill(&self) {
        while lock(&self.ready).len() < READY_TARGET {
            match Netns::new() {
                Ok(netns) => lock(&self.ready).push(netns),
                Err(error) => {
                    tracing::warn!(%error, "cannot make network namespaces ahead");
                    break;
                }
            }
        }
        self.refilling.store(false, Ordering::Release);
    }

    /// Makes the container's sandbox unless it is there.
    pub(crate) fn create(&self, container_id: &str) -> Result<PathBuf> {
        check_id(container_id)?;
        let path = self.path(container_id);
        if self.get(container_id).is_ok() {
            return Ok(path);
        }
        let ready = lock(&self.ready).pop();
        let netns = ready.map_or_else(Netns::new, Ok)?;
        let at = |source| Error::Io { what: path.display().to_string(), source };
        File::create(&path).map_err(at)?;
        let source = format!("/proc/self/fd/{}", netns.file.as_raw_fd());
        if let Err(error) = mount(Some(source.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            std::fs::remove_file(&path).ok();
            return Err(at(error.into()));
        }
        lock(&self.open).insert(container_id.to_owned(), Arc::new(Mutex::new(netns)));
        Ok(path)
    }

    /// The container's sandbox; [`Error::NoSandbox`] if it has none.
    pub(crate) fn get(&self, container_id: &str) -> Result<Arc<Mutex<Netns>>> {
        if let Some(found) = lock(&self.open).get(container_id) {
            return Ok(found.clone());
        }
        let path = self.path(container_id);
        check_id(container_id)?;
        if !is_pinned(&path) {
            return Err(Error::NoSandbox(container_id.to_owned()));
        }
        let netns = Arc::new(Mutex::new(Netns::open(&path)?));
        Ok(lock(&self.open).entry(container_id.to_owned()).or_insert(netns).clone())
    }

    /// Drops the sandbox. The kernel takes it apart once the last process and socket in it are gone.
    pub(crate) fn remove(&self, container_id: &str) -> Result<()> {
        check_id(container_id)?;
        lock(&self.open).remove(container_id);
        let path = self.path(container_id);
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(Error::Io { what: path.display().to_string(), source: error.into() }),
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { what: path.display().to_string(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// The containers that have a pin (mounted or stale).
    pub(crate) fn pinned(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// Is a namespace mounted there (and not a file that outlived a reboot)?
fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// A container id becomes a file name: nothing may lead out of the folder.
fn check_id(container_id: &str) -> Result<()> {
    let fine = !container_id.is_empty()
        && container_id.len() <= 128
        && !container_id.starts_with('.')
        && container_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fine { Ok(()) } else { Err(Error::Invalid(format!("invalid container id {container_id:?}"))) }
}
