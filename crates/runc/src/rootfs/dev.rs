//! `/dev` of a container: device nodes, the links that programs expect, and `ptmx`.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};
use nix::sys::stat::{Mode as Umask, umask};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::inside::{Inside, normal};
use super::mounts::attach;
use super::options::Options;
use crate::error::{Doing, Error, Result};

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];
/// What every container has: name, minor number; their major number is 1 but for the terminal's.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Whether `/dev` is bound from the host, in which nothing is to be made.
pub fn is_the_hosts(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        normal(mount.destination()) == Path::new("/dev")
            && Options::of(mount).is_ok_and(|options| options.bind.is_some())
    })
}

/// A device to be made.
struct Node {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
}

impl Node {
    fn of(device: &LinuxDevice) -> Result<Self> {
        let path = normal(device.path());
        let invalid = |what: &str| Error::Init(format!("device {}: {what}", path.display()));
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => return Err(invalid("\"a\" is no type of a device node")),
        };
        let number = |number: i64| u32::try_from(number).map_err(|_| invalid("it has no valid number"));
        Ok(Node {
            kind,
            number: match kind {
                FileType::Fifo => 0,
                _ => rustix::fs::makedev(number(device.major())?, number(device.minor())?),
            },
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
            path,
        })
    }

    fn make(&self, inside: &Inside, bind: bool) -> Result<()> {
        let doing = || format!("make device {}", self.path.display());
        if bind {
            return self.bind(inside);
        }
        let (parent, name) = inside.parent(&self.path)?;
        match rustix::fs::mknodat(&parent, name, self.kind, Mode::from_raw_mode(self.mode), self.number) {
            Ok(()) => (),
            // It came with the image, or with a mount: whoever needs one of them to be what it seems looks for himself.
            Err(Errno::EXIST) => return Ok(()),
            // In a user namespace that we have not made, for instance.
            Err(Errno::PERM) => return self.bind(inside),
            Err(errno) => return Err(errno).doing(doing),
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        if self.owner != (0, 0) {
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
        }
        Ok(())
    }

    /// The host's own.
    fn bind(&self, inside: &Inside) -> Result<()> {
        let doing = || format!("bind device {}", self.path.display());
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, &self.path, flags).doing(doing)?;
        let place = inside.file(&self.path)?;
        attach(tree.as_fd(), place.as_fd())
    }
}

/// Makes everything in `/dev` that is not mounted.
pub fn fill(inside: &Inside, devices: &[LinuxDevice], bind: bool) -> Result<()> {
    let dev = inside.directory(Path::new("/dev"))?;
    let core = Path::new("/proc/kcore").exists().then_some(("/proc/kcore", "core"));
    for (target, name) in LINKS.into_iter().chain(core) {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => (),
            Err(errno) => return Err(errno).doing(|| format!("make /dev/{name}")),
        }
    }
    let mut nodes = devices.iter().map(Node::of).collect::<Result<Vec<_>>>()?;
    for (name, major, minor) in DEFAULTS {
        let path = Path::new("/dev").join(name);
        if !nodes.iter().any(|node| node.path == path) {
            let number = rustix::fs::makedev(major, minor);
            nodes.push(Node { path, kind: FileType::CharacterDevice, number, mode: 0o666, owner: (0, 0) });
        }
    }
    let ours = umask(Umask::empty());
    // That one is a link.
    let made =
        nodes.iter().filter(|node| node.path != Path::new("/dev/ptmx")).try_for_each(|node| node.make(inside, bind));
    umask(ours);
    made?;
    ptmx(&dev)
}

/// New terminals come from the container's own devpts.
fn ptmx(dev: &impl AsFd) -> Result<()> {
    let doing = || "make /dev/ptmx".to_owned();
    match rustix::fs::unlinkat(dev, OsStr::new("ptmx"), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => (),
        Err(errno) => return Err(errno).doing(doing),
    }
    rustix::fs::symlinkat("pts/ptmx", dev, "ptmx").doing(doing)
}
