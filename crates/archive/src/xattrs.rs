//! Extended attributes by path below a directory descriptor, without following a link in the last component.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

use crate::{Error, Result, Whiteouts};

/// Marks a directory that hides what is below it.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// The kernel's bound for a value and for a list of names.
const MAX_BYTES: usize = 64 << 10;

/// A path that names `name` inside the directory behind `dir`, wherever that is mounted.
pub(crate) fn path_below(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Whether an attribute is carried in an archive of this mode.
///
/// Overlay's own attributes redirect lookups inside the file system they are on: they come and go only with checkpoints.
/// Labels of security modules belong to the host.
pub(crate) fn carried(name: &[u8], mode: Whiteouts) -> bool {
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let host = [&b"security.selinux"[..], b"security.ima", b"security.evm", b"security.SMACK64", b"security.apparmor"];
    !host.contains(&name) && (!overlay || mode == Whiteouts::Raw)
}

/// All attributes of one inode, sorted by name.
pub(crate) fn read_all(dir: BorrowedFd<'_>, name: &[u8], buffer: &mut Vec<u8>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = path_below(dir, name);
    let failed = |errno: Errno| Error::Io {
        what: format!("read extended attributes of {:?}", String::from_utf8_lossy(name)),
        source: errno.into(),
    };
    buffer.resize(MAX_BYTES, 0);
    let length = match llistxattr(&path, &mut buffer[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(failed(errno)),
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut names: Vec<Vec<u8>> =
        buffer[..length].split(|&b| b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    let mut attributes = Vec::with_capacity(names.len());
    for name in names {
        match lgetxattr(&path, &name, &mut buffer[..]) {
            Ok(length) => attributes.push((name, buffer[..length].to_vec())),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(attributes)
}

/// Sets the attributes an archive of this mode may carry. A file system that has none of that sort is no error, as in
/// Docker: images built elsewhere have to run here.
pub(crate) fn write_all(
    dir: BorrowedFd<'_>,
    name: &[u8],
    attributes: &[(Vec<u8>, Vec<u8>)],
    mode: Whiteouts,
) -> Result<()> {
    for (key, value) in attributes {
        if carried(key, mode) {
            write(dir, name, key, value)?;
        }
    }
    Ok(())
}

/// Sets one attribute.
pub(crate) fn write(dir: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> Result<()> {
    if value.len() > MAX_BYTES || key.contains(&0) {
        return Err(Error::Invalid(format!("extended attribute {:?}", String::from_utf8_lossy(key))));
    }
    match lsetxattr(path_below(dir, name), key, value, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::NOTSUP) if key != OPAQUE => {
            tracing::debug!(attribute = %String::from_utf8_lossy(key), "the file system does not take this attribute");
            Ok(())
        }
        Err(errno) => Err(Error::Io {
            what: format!(
                "set extended attribute {:?} of {:?}",
                String::from_utf8_lossy(key),
                String::from_utf8_lossy(name)
            ),
            source: errno.into(),
        }),
    }
}
