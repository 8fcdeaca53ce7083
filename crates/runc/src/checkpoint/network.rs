//! Blocks the traffic of a network namespace while connections are taken apart or put together.
//!
//! CRIU would do it with iptables rules for every connection. One nftables table does it for all; loopback stays open. The
//! rules look the interface up in sets whose elements time out, so that a namespace whose docker-runc was killed in
//! between is not blocked for ever.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Doing, Error, Result};
use crate::sys;

const TABLE: &str = "dormouse_checkpoint";
/// Longer than any freeze should take.
const TIMEOUT_SECONDS: u32 = 120;

/// A network namespace whose traffic can be blocked.
#[derive(Debug)]
pub struct Network {
    namespace: OwnedFd,
    locked: bool,
}

impl Network {
    /// That of a file such as `/proc/<pid>/ns/net`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).doing(|| format!("open network namespace {}", path.display()))?;
        Ok(Network { namespace: file.into(), locked: false })
    }

    /// Its descriptor.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Blocks everything but loopback.
    pub fn lock(&mut self) -> Result<()> {
        let script = format!(
            "table inet {TABLE} {{\n\
             set on {{ type mark; flags timeout; elements = {{ 0 timeout {TIMEOUT_SECONDS}s }}; }}\n\
             chain in {{ type filter hook input priority -400; iifname != \"lo\" meta mark and 0 @on drop; }}\n\
             chain out {{ type filter hook output priority -400; oifname != \"lo\" meta mark and 0 @on drop; }}\n\
             }}\n"
        );
        let delete = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
        self.nft(&(delete + &script))?;
        self.locked = true;
        Ok(())
    }

    /// Lets traffic flow again.
    pub fn unlock(&mut self) -> Result<()> {
        if !self.locked {
            return Ok(());
        }
        self.nft(&format!("table inet {TABLE}\ndelete table inet {TABLE}\n"))?;
        self.locked = false;
        Ok(())
    }

    /// Removes what a checkpoint left in the namespace, if anything.
    pub fn clear(&mut self) -> Result<()> {
        self.locked = true;
        self.unlock()
    }

    fn nft(&self, script: &str) -> Result<()> {
        let own = File::open("/proc/self/ns/net").doing(|| "open own network namespace".into())?;
        sys::setns(self.namespace.as_fd(), libc::CLONE_NEWNET).doing(|| "enter the network namespace".into())?;
        let spawned = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        sys::setns(own.as_fd(), libc::CLONE_NEWNET).doing(|| "return to own network namespace".into())?;
        let mut child = spawned.doing(|| "run nft (needed to block traffic of established connections)".into())?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may have ended with an error already, which its status tells.
            let _ = stdin.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().doing(|| "wait for nft".into())?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Conflict(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

/// Makes a network namespace that holds nothing but loopback, up.
pub fn make_empty() -> Result<OwnedFd> {
    let own = File::open("/proc/self/ns/net").doing(|| "open own network namespace".into())?;
    sys::unshare(libc::CLONE_NEWNET).doing(|| "make a network namespace".into())?;
    let result = sys::loopback_up()
        .doing(|| "bring up the loopback interface".into())
        .and_then(|()| File::open("/proc/self/ns/net").doing(|| "open the new network namespace".into()));
    sys::setns(own.as_fd(), libc::CLONE_NEWNET).doing(|| "return to own network namespace".into())?;
    result.map(OwnedFd::from)
}

impl From<OwnedFd> for Network {
    fn from(namespace: OwnedFd) -> Self {
        Network { namespace, locked: false }
    }
}
