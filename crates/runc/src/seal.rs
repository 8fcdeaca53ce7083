//! Keeps a container from overwriting the docker-runc that started it (CVE-2019-5736).
//!
//! A container can make the runtime execute itself inside the container and then write to `/proc/self/exe`. runc copies
//! its program into a sealed memory file for every call, which costs several milliseconds. Here the program re-executes
//! itself through a *detached, read-only clone of the mount* it lies on: the magic link leads to that mount, and every
//! attempt to open it for writing ends with `EROFS`. Nothing is copied, nothing stays mounted, and a detached mount
//! cannot be made writable again by anybody who does not hold its descriptor.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Doing, Error, Result};
use crate::sys;

/// Re-executes the program through a read-only mount unless it already runs from one.
///
/// Must be called before a process of ours enters a container. Returns when the program is sealed.
pub fn seal() -> Result<()> {
    let program = std::fs::File::open("/proc/self/exe").doing(|| "open /proc/self/exe".into())?;
    let flags = rustix::fs::fstatvfs(&program).doing(|| "statvfs /proc/self/exe".into())?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    drop(program);
    let mount = sys::read_only_mount_of(c"/proc/self/exe").doing(|| "make a read-only mount of docker-runc".into())?;
    let strings = |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| Error::Invalid("null byte".into()));
    let arguments = std::env::args_os().map(|text| strings(&text)).collect::<Result<Vec<_>>>()?;
    let environment = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            strings(&name)
        })
        .collect::<Result<Vec<_>>>()?;
    let source = sys::execve_fd(mount.as_fd(), &arguments, &environment);
    Err(Error::Io { what: "re-execute docker-runc from a read-only mount".into(), source })
}
