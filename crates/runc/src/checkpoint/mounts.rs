//! Which mounts of a container are made by CRIU, and which are handed to it.
//!
//! Everything that comes from outside is handed over under the name of where it lies in the container: binds (with what is
//! mounted below a recursive one), v1 cgroup binds, and what covers masked paths. The names go into the stored options; the
//! sources never do: at restore they come from the configuration of that moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{Mount, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Doing, Error, Result};
use crate::rootfs::options::Options;
use crate::state::Record;

/// Where each mount that comes from outside lies, and what is to be bound there.
pub type External = BTreeMap<String, PathBuf>;

/// The configuration's mounts that come from outside.
pub fn of(spec: &Spec, record: &Record) -> Result<External> {
    let root = rustix::fs::open(&record.rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {}", record.rootfs.display()))?;
    let mut list = External::new();
    for mount in spec.mounts().iter().flatten() {
        // CRIU would bind it again with the owners as they are on the disk.
        if Options::of(mount)?.id_mapped.is_some() {
            return Err(Error::NotImplemented(format!(
                "checkpoint and restore with an id-mapped mount ({})",
                mount.destination().display()
            )));
        }
        if is_bind(mount) {
            list.insert(inside(&root, mount.destination()), bind_source(mount, record));
        } else if mount.typ().as_deref() == Some("cgroup") && !has_cgroup_namespace(spec) {
            for (name, source) in cgroup_binds(record) {
                list.insert(inside(&root, &mount.destination().join(name)), source);
            }
        }
    }
    let linux = spec.linux().as_ref();
    for path in linux.and_then(|linux| linux.masked_paths().as_ref()).into_iter().flatten() {
        list.insert(path.clone(), PathBuf::new());
    }
    Ok(list)
}

/// Keeps what is mounted in the running container, and adds what lies below recursive binds.
pub fn present(pid: i32, mut external: External) -> Result<External> {
    let path = format!("/proc/{pid}/mountinfo");
    let table = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let points = mount_points(&table);
    let mut more = External::new();
    for point in &points {
        let below = external
            .iter()
            .filter(|(bind, source)| !source.as_os_str().is_empty() && Path::new(point).starts_with(bind))
            .max_by_key(|(bind, _)| bind.len());
        if let Some((bind, source)) = below
            && bind != point
            && let Ok(suffix) = Path::new(point).strip_prefix(bind)
        {
            more.insert(point.clone(), source.join(suffix));
        }
    }
    external.retain(|point, _| points.contains(point));
    for (point, source) in more {
        external.entry(point).or_insert(source);
    }
    Ok(external)
}

fn mount_points(table: &str) -> Vec<String> {
    let unescape =
        |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

/// What to bind at each of the stored names, from the configuration of now. A name that it does not have is refused.
pub fn sources(spec: &Spec, record: &Record, names: &[String]) -> Result<External> {
    let known = of(spec, record)?;
    let mut result = External::new();
    for name in names {
        let source = match known.get(name) {
            Some(source) if source.as_os_str().is_empty() => mask_source(name, record)?,
            Some(source) => source.clone(),
            None => {
                let below = known
                    .iter()
                    .filter(|(bind, source)| !source.as_os_str().is_empty() && Path::new(name).starts_with(bind))
                    .max_by_key(|(bind, _)| bind.len());
                match below.and_then(|(bind, source)| Some(source.join(Path::new(name).strip_prefix(bind).ok()?))) {
                    Some(source) => source,
                    None => {
                        return Err(Error::CannotRestore(format!(
                            "the checkpoint has a mount at {name} that the container's configuration does not have"
                        )));
                    }
                }
            }
        };
        // CRIU follows no link here.
        let source = fs::canonicalize(&source).map_err(|_| {
            Error::CannotRestore(format!("{} (for {name} in the container) is missing", source.display()))
        })?;
        result.insert(name.clone(), source);
    }
    Ok(result)
}

/// A masked path is covered by an empty directory or by the null device.
fn mask_source(name: &str, record: &Record) -> Result<PathBuf> {
    let directory = || record.mask_directory.clone().unwrap_or_else(|| PathBuf::from("/nonexistent"));
    // Masked paths lie in /proc and /sys, which are the same kernel's here and there.
    match fs::metadata(name) {
        Ok(metadata) if metadata.is_dir() => Ok(directory()),
        Ok(_) => Ok(PathBuf::from("/dev/null")),
        Err(_) => Err(Error::CannotRestore(format!("masked path {name} does not exist on this host"))),
    }
}

/// Makes the directory that covers masked ones a read-only mount, in this process's mount namespace, which must be its own:
/// what is bound from it is read-only from the start. (CRIU does not make every one of several binds of one place
/// read-only again.)
pub fn protect_masks(record: &Record) -> Result<()> {
    let Some(directory) = &record.mask_directory else { return Ok(()) };
    let doing = || format!("make {} read-only", directory.display());
    rustix::mount::mount_bind(directory, directory).doing(doing)?;
    let flags = rustix::mount::MountFlags::RDONLY | rustix::mount::MountFlags::BIND;
    rustix::mount::mount_remount(directory, flags, "").doing(doing)
}

/// Takes away what [`protect_masks`] made.
pub fn release_masks(record: &Record) {
    if let Some(directory) = &record.mask_directory {
        let _ = rustix::mount::unmount(directory, rustix::mount::UnmountFlags::DETACH);
    }
}

pub(super) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind")
}

pub(super) fn has_cgroup_namespace(spec: &Spec) -> bool {
    crate::launch::namespaces::Namespaces::of(spec).has_new(libc::CLONE_NEWCGROUP)
}

/// The hierarchies as they are bound: under the name of their mount.
fn cgroup_binds(record: &Record) -> Vec<(String, PathBuf)> {
    let Ok(cgroups) = crate::cgroup::Cgroups::at(&record.cgroup_path) else { return Vec::new() };
    cgroups
        .hierarchies()
        .iter()
        .filter(|hierarchy| hierarchy.kind != crate::cgroup::HierarchyKind::V2)
        .filter_map(|hierarchy| {
            let name = hierarchy.mount.file_name()?.to_str()?.to_owned();
            Some((name, cgroups.dir(hierarchy)))
        })
        .collect()
}

/// Where a destination lies once links inside the root file system are followed; as given when it is not there.
pub(super) fn inside(root: &std::os::fd::OwnedFd, destination: &Path) -> String {
    use std::os::fd::AsRawFd;
    let plain = || {
        let mut clean = PathBuf::from("/");
        clean.extend(destination.components().filter_map(|component| match component {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        }));
        clean.to_string_lossy().into_owned()
    };
    let base = fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd()));
    let opened =
        rustix::fs::openat2(root, destination, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    let found = opened.ok().and_then(|fd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok());
    match (base, found) {
        (Ok(base), Some(found)) => match found.strip_prefix(&base) {
            Ok(relative) => Path::new("/").join(relative).to_string_lossy().into_owned(),
            Err(_) => plain(),
        },
        _ => plain(),
    }
}

/// Makes the places in the root file system on which CRIU will mount.
pub fn make_mount_points(spec: &Spec, record: &Record) -> Result<()> {
    let open = |path: &Path| {
        archive::Root::open(path).map_err(|err| Error::CannotRestore(format!("{}: {err}", path.display())))
    };
    let root = open(&record.rootfs)?;
    let mounts: Vec<&Mount> = spec.mounts().iter().flatten().collect();
    for (index, mount) in mounts.iter().enumerate() {
        let destination = mount.destination();
        let is_file = is_bind(mount) && bind_source(mount, record).is_file();
        let below = mounts[..index]
            .iter()
            .filter(|other| destination != other.destination() && destination.starts_with(other.destination()))
            .max_by_key(|other| other.destination().components().count());
        match below {
            None => make_place(&root, destination, is_file)?,
            // The directory that is bound is as it is now: somebody may have cleared it since.
            Some(other) if is_bind(other) && is_bind(mount) => {
                let source = bind_source(other, record);
                if source.is_dir() {
                    let within = destination.strip_prefix(other.destination()).unwrap_or(destination);
                    make_place(&open(&source)?, within, is_file)?;
                }
            }
            // The place comes with that mount's content.
            Some(_) => (),
        }
    }
    Ok(())
}

fn bind_source(mount: &Mount, record: &Record) -> PathBuf {
    let source = mount.source().clone().unwrap_or_default();
    if source.is_absolute() { source } else { record.bundle.join(source) }
}

fn make_place(root: &archive::Root, destination: &Path, is_file: bool) -> Result<()> {
    let parts: Vec<&std::ffi::OsStr> = destination
        .components()
        .filter_map(|component| match component {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut path = PathBuf::new();
    for (index, part) in parts.iter().enumerate() {
        use std::os::unix::ffi::OsStrExt;
        let parent = if path.as_os_str().is_empty() { b".".to_vec() } else { path.as_os_str().as_bytes().to_vec() };
        path.push(part);
        if root.open_path(path.as_os_str().as_bytes(), OFlags::PATH).is_ok() {
            continue;
        }
        let doing = || format!("create {} in the root file system", destination.display());
        let dir = root.open_path(&parent, OFlags::RDONLY | OFlags::DIRECTORY).doing(doing)?;
        if is_file && index + 1 == parts.len() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, *part, flags, Mode::from_raw_mode(0o644)).doing(doing)?;
        } else {
            rustix::fs::mkdirat(&dir, *part, Mode::from_raw_mode(0o755)).doing(doing)?;
        }
    }
    Ok(())
}
