//! Makes one mount of the configuration.
//!
//! It is made detached, gets its attributes, and is put in its place as it shall be: nobody sees it half-made.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Mount;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::inside::{self, Inside};
use super::options::{Attributes, Options, READ_ONLY, Recursive};
use super::{Plan, cgroups, idmap};
use crate::error::{Doing, Error, Result};
use crate::sys::{self, MountChange};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// What lxcfs gives containers of their own.
const ALLOWED_BELOW_PROC: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];
/// These are no file systems of somebody's disk: read-only is said of the mount alone.
const VIRTUAL: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// Makes a mount. `tree` is the mount itself, if it was made before; `users` maps the owners in it.
pub fn make(
    mount: &Mount,
    tree: Option<OwnedFd>,
    users: Option<OwnedFd>,
    plan: &Plan<'_>,
    inside: &Inside,
) -> Result<()> {
    let options = Options::of(mount)?;
    let kind = mount.typ().as_deref().unwrap_or_default();
    if options.bind.is_some() {
        let tree = match tree {
            Some(tree) => tree,
            None => clone_of(mount, plan.bundle, options.bind == Some(Recursive::Yes))?,
        };
        if let Some(users) = users {
            idmap::map_owners(tree.as_fd(), users.as_fd(), &options)?;
        }
        return bind(mount, &options, tree, inside);
    }
    if kind == "cgroup" {
        return cgroups::make(mount, inside, plan.cgroups, plan.own_cgroup_namespace);
    }
    file_system(mount, kind, &options, inside)
}

/// A detached copy of what a bind mount is of.
pub fn clone_of(mount: &Mount, bundle: &Path, recursive: bool) -> Result<OwnedFd> {
    let source = source(mount, bundle)?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, &source, flags).doing(|| format!("bind {}", source.display()))
}

fn source(mount: &Mount, bundle: &Path) -> Result<PathBuf> {
    match mount.source() {
        Some(source) if !source.as_os_str().is_empty() => Ok(bundle.join(source)),
        _ => Err(Error::Init("a bind mount without a source".into())),
    }
}

fn bind(mount: &Mount, options: &Options, tree: OwnedFd, inside: &Inside) -> Result<()> {
    for flag in &options.superblock {
        tracing::debug!("{}: a bind mount has no {flag} of its own", mount.destination().display());
    }
    let stat = rustix::fs::fstat(&tree).doing(|| "look at the source".into())?;
    let place = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => inside.directory(mount.destination())?,
        _ => inside.file(mount.destination())?,
    };
    check_place(mount, true, Some(tree.as_fd()), inside, place.as_fd())?;
    change(tree.as_fd(), &options.attributes, false)?;
    change(tree.as_fd(), &options.below, true)?;
    attach(tree.as_fd(), place.as_fd())?;
    propagate(tree.as_fd(), options)
}

fn file_system(mount: &Mount, kind: &str, options: &Options, inside: &Inside) -> Result<()> {
    let destination = mount.destination();
    let existed = inside.find(destination)?;
    let mut data = options.data.clone();
    if let ("tmpfs", Some(there)) = (kind, &existed)
        && !data.iter().any(|option| option.starts_with("mode="))
    {
        // It looks as what it covers.
        let mode = rustix::fs::fstat(there).doing(|| "look at the mount point".into())?.st_mode & 0o7777;
        data.push(format!("mode={mode:o}"));
    }
    let place = match existed {
        Some(place) => place,
        None => inside.directory(destination)?,
    };
    check_place(mount, false, None, inside, place.as_fd())?;
    if let "proc" | "sysfs" = kind {
        check_ordinary(kind, destination, inside, place.as_fd())?;
    }
    let tree = fresh(kind, mount.source().as_deref(), &data, options)?;
    if options.copy_up {
        copy(place.as_fd(), tree.as_fd())?;
    }
    let mut attributes = options.attributes;
    if kind == "tmpfs" && inside::normal(destination) == Path::new("/dev") {
        // Later: there is more to be made in it.
        attributes.set &= !READ_ONLY;
    }
    change(tree.as_fd(), &attributes, false)?;
    change(tree.as_fd(), &options.below, true)?;
    attach(tree.as_fd(), place.as_fd())?;
    propagate(tree.as_fd(), options)
}

/// A file system that nobody has mounted yet.
fn fresh(kind: &str, source: Option<&Path>, data: &[String], options: &Options) -> Result<OwnedFd> {
    let doing = || format!("make a file system of type {kind:?}");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    let fd = context.as_fd();
    let source = source.filter(|source| !source.as_os_str().is_empty()).unwrap_or(Path::new(kind));
    rustix::mount::fsconfig_set_string(fd, "source", source).doing(doing)?;
    for flag in &options.superblock {
        rustix::mount::fsconfig_set_flag(fd, flag.as_str()).doing(|| format!("option {flag}"))?;
    }
    if options.attributes.read_only() && !VIRTUAL.contains(&kind) {
        rustix::mount::fsconfig_set_flag(fd, "ro").doing(|| "option ro".into())?;
    }
    for option in data {
        let set = match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(fd, key, value),
            None => rustix::mount::fsconfig_set_flag(fd, option.as_str()),
        };
        set.doing(|| format!("option {option}"))?;
    }
    rustix::mount::fsconfig_create(fd).doing(doing)?;
    rustix::mount::fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).doing(doing)
}

/// Puts a detached mount in its place.
pub fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", place, "", flags).doing(|| "put the mount in its place".into())
}

fn change(tree: BorrowedFd<'_>, attributes: &Attributes, recursive: bool) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let change = MountChange { set: attributes.set, clear: attributes.clear, ..MountChange::default() };
    sys::change_mount(tree, &change, recursive).doing(|| "set the flags of the mount".into())
}

fn propagate(tree: BorrowedFd<'_>, options: &Options) -> Result<()> {
    for propagation in &options.propagation {
        let change = MountChange { propagation: propagation.kind, ..MountChange::default() };
        sys::change_mount(tree, &change, propagation.recursive).doing(|| "set the propagation of the mount".into())?;
    }
    Ok(())
}

/// Refuses mounts on the root itself, and those in `/proc` that could make docker-runc or the container's programs believe
/// that they talk to the kernel.
fn check_place(
    mount: &Mount,
    is_bind: bool,
    source: Option<BorrowedFd<'_>>,
    inside: &Inside,
    place: BorrowedFd<'_>,
) -> Result<()> {
    let place = inside.place(place).doing(|| "find the mount point".into())?;
    if place == Path::new("/") {
        return Err(Error::Init(format!("mountpoint {:?} is on the top of rootfs", mount.destination())));
    }
    let Ok(below) = place.strip_prefix("/proc") else { return Ok(()) };
    if below.as_os_str().is_empty() {
        let is_proc = match source {
            Some(source) => {
                rustix::fs::fstatfs(source).doing(|| "look at the source".into())?.f_type as u64 == PROC_SUPER_MAGIC
            }
            None => !is_bind && mount.typ().as_deref() == Some("proc"),
        };
        return match is_proc {
            true => Ok(()),
            false => Err(Error::Init(format!("{place:?} cannot be mounted because it is not of type proc"))),
        };
    }
    match ALLOWED_BELOW_PROC.iter().any(|allowed| below == Path::new(allowed)) {
        true => Ok(()),
        false => Err(Error::Init(format!("{place:?} cannot be mounted because it is inside /proc"))),
    }
}

/// These must lie where the configuration says, and not where a link in the image leads.
fn check_ordinary(kind: &str, destination: &Path, inside: &Inside, place: BorrowedFd<'_>) -> Result<()> {
    let found = inside.place(place).doing(|| "find the mount point".into())?;
    let stat = rustix::fs::fstat(place).doing(|| "look at the mount point".into())?;
    match FileType::from_raw_mode(stat.st_mode) == FileType::Directory && found == inside::normal(destination) {
        true => Ok(()),
        false => Err(Error::Init(format!("filesystem {kind:?} must be mounted on ordinary directory"))),
    }
}

/// Fills a new file system with what lies at the place that it will cover (`tmpcopyup`).
fn copy(place: BorrowedFd<'_>, tree: BorrowedFd<'_>) -> Result<()> {
    let failed = |err: archive::Error| Error::Init(format!("tmpcopyup: {err}"));
    let doing = || "tmpcopyup".to_owned();
    let memory = rustix::fs::memfd_create("tmpcopyup", rustix::fs::MemfdFlags::CLOEXEC).doing(doing)?;
    let mut tar = archive::TarWriter::new(File::from(memory));
    let whole = archive::PackOptions {
        whiteouts: archive::Whiteouts::Raw,
        root_entry: true,
        nanoseconds: true,
        ..archive::PackOptions::default()
    };
    archive::pack(&inside::name(place), &mut tar, &whole).map_err(failed)?;
    let mut tar = tar.finish().map_err(failed)?;
    tar.seek(SeekFrom::Start(0)).doing(doing)?;
    let target = rustix::fs::openat(tree, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let target = target.doing(doing)?;
    let options = archive::UnpackOptions { whiteouts: archive::Whiteouts::Raw, ..archive::UnpackOptions::default() };
    archive::unpack(tar, &inside::name(target.as_fd()), &options).map(|_| ()).map_err(failed)
}
