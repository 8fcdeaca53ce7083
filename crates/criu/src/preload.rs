//! The library of `preload/preload.rs`, which answers for the kernel where it refuses CRIU an answer it needs for a dump.
//!
//! It lies in memory only, and is given to CRIU by descriptor.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::error::{Result, io};

static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.so"));

/// The variable that makes the library say that no connections are tracked.
pub(crate) const WITHOUT_CONNECTION_TRACKING: &str = "DORMOUSE_WITHOUT_CONNECTION_TRACKING";

/// A file in memory with the library.
pub(crate) fn open() -> Result<OwnedFd> {
    let fd =
        memfd_create("criu-preload", MemfdFlags::CLOEXEC).map_err(|errno| io("make a file in memory")(errno.into()))?;
    let mut file = File::from(fd);
    file.write_all(LIBRARY).map_err(io("fill a file in memory"))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    /// The dynamic loader takes it, and a program goes on as ever. (What it answers is tested by dumps.)
    #[test]
    fn it_can_be_loaded() {
        let library = super::open().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), library.as_raw_fd());
        let output = Command::new("/bin/ls").arg("/").env("LD_PRELOAD", path).output().unwrap();
        assert!(output.status.success());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
