//! One container, as everything that works on it sees it: what never changes, and how to reach its processes.

use std::sync::{Arc, OnceLock};

use rustix::process::Signal;
use shim::protocol::Call;

use crate::cgroup::{Cgroups, Mounts};
use crate::error::{Error, Result};
use crate::process::HostProcess;
use crate::runtime::Runtime;
use crate::shims::{Key, ShimClient};
use crate::statedir::{ContainerDir, ContainerRecord};

/// One container. What changes (phase, processes) is the supervisor's alone.
#[derive(Debug)]
pub struct Container {
    /// Id and generation.
    pub key: Key,
    /// Its state directory.
    pub dir: ContainerDir,
    /// How it was asked for.
    pub record: ContainerRecord,
    /// Its runtime.
    pub runtime: Runtime,
    /// Held while something changes the container as a whole: pause, resume, update, checkpoint.
    pub changing: Arc<tokio::sync::Mutex<()>>,
    shim: OnceLock<ShimClient>,
    init: OnceLock<HostProcess>,
    cgroups: OnceLock<Cgroups>,
}

impl Container {
    /// A container that has no processes yet.
    pub fn new(key: Key, dir: ContainerDir, record: ContainerRecord, runtime: Runtime) -> Arc<Container> {
        Arc::new(Container {
            key,
            dir,
            record,
            runtime,
            changing: Arc::default(),
            shim: OnceLock::new(),
            init: OnceLock::new(),
            cgroups: OnceLock::new(),
        })
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.key.id
    }

    /// Its shim.
    ///
    /// # Errors
    /// When it was not started yet.
    pub fn shim(&self) -> Result<&ShimClient> {
        self.shim.get().ok_or(Error::ShimLost)
    }

    /// Set once, when the shim is connected.
    pub fn set_shim(&self, shim: ShimClient) {
        let _ = self.shim.set(shim);
    }

    /// The first process.
    pub fn init(&self) -> Option<HostProcess> {
        self.init.get().copied()
    }

    /// Set once, when the first process exists; finds its control groups.
    pub fn set_init(&self, init: HostProcess) {
        let _ = self.init.set(init);
        match Mounts::read().and_then(|mounts| Cgroups::of_process(init.pid, &mounts)) {
            Ok(groups) => drop(self.cgroups.set(groups)),
            Err(error) => tracing::warn!(%error, id = self.id(), "cannot find a container's control groups"),
        }
    }

    /// Its control groups; none are known when the first process ended too soon.
    pub fn cgroups(&self) -> Cgroups {
        self.cgroups.get().cloned().unwrap_or_default()
    }

    /// Sends a signal to one of its processes and nobody else.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn signal(&self, process: &str, host: HostProcess, number: u32) -> Result<()> {
        let refused = |errno| Err(Error::Signal(std::io::Error::from_raw_os_error(errno)));
        let Ok(number) = i32::try_from(number) else { return refused(nix::libc::EINVAL) };
        if number == 0 {
            return if host.is_alive() { Ok(()) } else { refused(nix::libc::ESRCH) };
        }
        if let Some(signal) = Signal::from_named_raw(number) {
            return host.signal(signal).map_err(Error::Signal);
        }
        if !(1..=64).contains(&number) {
            return refused(nix::libc::EINVAL);
        }
        // Real-time signals have no names; the shim sends them by number.
        match self.shim()?.call(Call::Signal { process: process.to_owned(), signal: number }).await {
            Err(Error::Shim(words)) if words.contains("no such process") => refused(nix::libc::ESRCH),
            Err(Error::Shim(words)) if words.contains("invalid argument") => refused(nix::libc::EINVAL),
            other => other.map(drop),
        }
    }
}
