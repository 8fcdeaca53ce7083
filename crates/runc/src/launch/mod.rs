//! Makes the processes of containers.
//!
//! youki's `libcontainer` supplies what is hard to get right and the same for everybody: terminals, seccomp notifications,
//! network devices, hooks. The order of things, the root file system ([`crate::rootfs`]) and the processes are ours, for three reasons that its builders do not leave room for: an exec gets the
//! container's seccomp filter as well; the configuration is made to fit the host first (limits that cannot be raised,
//! capabilities that cannot be given); and there is *one* process between docker-runc and the container's program: none.
//! The child is cloned straight into its namespaces, and while it mounts, the parent makes its cgroups, which is where the
//! kernel takes its time.

mod attributes;
pub mod console;
pub mod create;
mod devices;
pub mod exec;
mod init;
pub mod namespaces;
mod notify;
pub mod process;
mod procfs;
pub mod relay;
pub mod seccomp;
pub mod sync;
pub mod wait;

use crate::error::{Error, Result};
use crate::sys;

/// No caller hands over more descriptors.
const MAX_PRESERVED: u32 = 4096;

/// The text of an error as the caller of docker-runc shall see it: without our own prefix, which the parent adds.
pub(crate) fn words(err: &Error) -> String {
    match err {
        Error::Init(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How many descriptors after standard error the program keeps, and what it is told of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preserved {
    /// `--preserve-fds`
    pub count: u32,
    /// Those of systemd's socket activation, passed on.
    pub listen_fds: u32,
}

impl Preserved {
    /// Reads `LISTEN_FDS`, if it is meant for this process. Descriptors that the caller has not given are refused: in their
    /// place the container would get our own.
    pub fn new(count: u32) -> Result<Self> {
        let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let listen_fds = match variable("LISTEN_PID") == Some(std::process::id()) {
            true => variable("LISTEN_FDS").unwrap_or(0),
            false => 0,
        };
        let all = count.checked_add(listen_fds).filter(|all| *all <= MAX_PRESERVED);
        let all = all.ok_or_else(|| Error::Invalid(format!("more than {MAX_PRESERVED} descriptors to preserve")))?;
        for number in 3..3 + all {
            if !sys::is_inherited(number) {
                let text = format!("unable to stat preserved-fd {} (of {all}): it is not open", number - 3);
                return Err(Error::Invalid(text));
            }
        }
        Ok(Preserved { count, listen_fds })
    }

    /// The first descriptor that is closed.
    pub fn end(self) -> u32 {
        3 + self.count + self.listen_fds
    }

    /// Variables for the program.
    pub fn environment(self) -> Vec<String> {
        if self.listen_fds == 0 {
            return Vec::new();
        }
        vec![format!("LISTEN_FDS={}", self.listen_fds), "LISTEN_PID=1".to_owned()]
    }
}
