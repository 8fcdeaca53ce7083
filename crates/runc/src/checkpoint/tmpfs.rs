//! The temporary file systems of a container's configuration (`/dev`, `/tmp`, what holds the cgroup mounts), packed and
//! filled by us.
//!
//! CRIU would start `tar` and `gzip` for each of them, while everything stands still. For CRIU ours are mounts from
//! outside, as binds are.
//!
//! ```text
//! <image>/dormouse-tmpfs-<n>.tar   what was in the n-th of the stored options' `own_tmpfs`
//! ```
//!
//! Ours are only those that nobody else can have anything to do with: mounted once, as a whole, where the configuration
//! says, and not propagated. The rest is left to CRIU. At restore their options come from the configuration of that
//! moment, never from the images.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, BufWriter, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{Mount, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use super::mounts::External;
use crate::cgroup::Cgroups;
use crate::error::{Doing, Error, Result};
use crate::launch::sync::{Channel, Message};
use crate::state::{Container, Record};
use crate::sys::{self, Forked};

/// More of them in one container are left to CRIU.
const MOST: usize = 32;
/// What is larger is unpacked by a process in the container's memory group, so that it counts as the container's.
const CHARGED_ABOVE_BYTES: u64 = 1 << 20;
/// Where they are mounted for CRIU, below the container's directory.
const PLACE: &str = "criu-tmpfs";
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Those of a running container, each open as a detached mount without what is mounted on top of it.
#[derive(Debug, Default)]
pub struct Trees(Vec<(String, OwnedFd)>);

impl Trees {
    /// Finds and opens them. To be done before everything stands still: what is in them is read later.
    pub fn open(pid: i32, spec: &Spec, record: &Record, external: &External) -> Result<Self> {
        let path = format!("/proc/{pid}/mountinfo");
        let table = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
        let configured: BTreeSet<String> =
            spec.mounts().iter().flatten().filter(|m| is_ours(m, spec)).map(|m| place(record, m)).collect();
        let mut names = candidates(&table, external);
        names.retain(|name| configured.contains(name) && !external.contains_key(name));
        names.truncate(MOST);
        if names.is_empty() {
            return Ok(Trees::default());
        }
        let trees = clones(pid, &names)?;
        Ok(Trees(names.into_iter().zip(trees).collect()))
    }

    /// Where they lie in the container.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Packs them. To be done while everything stands still.
    pub fn pack(&self, image: &Path) -> Result<()> {
        self.0.iter().enumerate().try_for_each(|(index, (name, tree))| pack(name, tree, &file(image, index)))
    }
}

fn file(image: &Path, index: usize) -> PathBuf {
    image.join(format!("dormouse-tmpfs-{index}.tar"))
}

fn is_ours(mount: &Mount, spec: &Spec) -> bool {
    match mount.typ().as_deref() {
        Some("tmpfs") => !super::mounts::is_bind(mount),
        Some("cgroup") => !super::mounts::has_cgroup_namespace(spec),
        _ => false,
    }
}

/// Where it lies in the container once links are followed.
fn place(record: &Record, mount: &Mount) -> String {
    match rustix::fs::open(&record.rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(root) => super::mounts::inside(&root, mount.destination()),
        Err(_) => mount.destination().to_string_lossy().into_owned(),
    }
}

/// The mount points of temporary file systems that are mounted once, whole, and without propagation. What is handed over
/// does not count: masked files are covered by the null device out of the container's own `/dev`.
fn candidates(table: &str, external: &External) -> Vec<String> {
    let lines = table.lines().map(|line| line.split(' ').collect::<Vec<&str>>());
    let handed_over = |fields: &[&str]| fields.get(4).is_some_and(|point| external.contains_key(*point));
    let lines: Vec<Vec<&str>> = lines.filter(|fields| !handed_over(fields)).collect();
    let once = |at: usize, text: &str| lines.iter().filter(|fields| fields.get(at) == Some(&text)).count() == 1;
    lines
        .iter()
        .filter_map(|fields| {
            let (device, root, point) = (*fields.get(2)?, *fields.get(3)?, *fields.get(4)?);
            let dash = fields.iter().position(|field| *field == "-")?;
            // Nothing between the options and the dash: neither shared nor a slave.
            let fits =
                *fields.get(dash + 1)? == "tmpfs" && dash == 6 && root == "/" && once(2, device) && once(4, point);
            (fits && !point.contains('\\')).then(|| point.to_owned())
        })
        .collect()
}

/// Copies of these mounts of the container's mount namespace, which a child enters for it.
fn clones(pid: i32, names: &[String]) -> Result<Vec<OwnedFd>> {
    let namespace = format!("/proc/{pid}/ns/mnt");
    let namespace = fs::File::open(&namespace).doing(|| format!("open {namespace}"))?;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .doing(|| "make a socket pair".into())?;
    let child = match sys::fork_into(0).doing(|| "fork".into())? {
        Forked::Child => {
            drop(ours);
            let sent = sys::setns(namespace.as_fd(), libc::CLONE_NEWNS).is_ok()
                && names.iter().all(|name| {
                    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                    rustix::mount::open_tree(rustix::fs::CWD, name.as_str(), flags)
                        .is_ok_and(|tree| send(theirs.as_fd(), tree.as_fd()))
                });
            sys::exit_now(i32::from(!sent))
        }
        Forked::Parent(child) => child,
    };
    drop(theirs);
    let trees: Vec<OwnedFd> = names.iter().map_while(|_| receive(ours.as_fd())).collect();
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
    let is_tmpfs = |tree: &OwnedFd| rustix::fs::fstatfs(tree).is_ok_and(|fs| fs.f_type as u64 == TMPFS_MAGIC);
    if trees.len() != names.len() || !trees.iter().all(is_tmpfs) {
        return Err(Error::CannotCheckpoint(format!(
            "the container's temporary file systems ({}) cannot be reached",
            names.join(", ")
        )));
    }
    Ok(trees)
}

fn send(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [fd];
    control.push(SendAncillaryMessage::ScmRights(&descriptors))
        && rustix::net::sendmsg(socket, &[IoSlice::new(b"t")], &mut control, SendFlags::NOSIGNAL).is_ok()
}

fn receive(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

fn pack(name: &str, tree: &OwnedFd, target: &Path) -> Result<()> {
    let failed = |err: archive::Error| Error::CannotCheckpoint(format!("capture of {name}: {err}"));
    let doing = || format!("write {}", target.display());
    let file = fs::File::create(target).doing(doing)?;
    let mut tar = archive::TarWriter::new(BufWriter::with_capacity(256 << 10, file));
    let options = archive::PackOptions {
        whiteouts: archive::Whiteouts::Raw,
        root_entry: true,
        nanoseconds: true,
        ..archive::PackOptions::default()
    };
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    archive::pack(Path::new(&path), &mut tar, &options).map_err(failed)?;
    let buffered = tar.finish().map_err(failed)?;
    buffered.into_inner().map_err(std::io::IntoInnerError::into_error).map(|_| ()).doing(doing)
}

/// Makes them and fills them. Says where they are, for CRIU to bind; they lie in this process's mount namespace, which
/// must be its own. A name that the configuration does not have is refused.
pub fn fill(container: &Container, spec: &Spec, names: &[String], image: &Path, cgroups: &Cgroups) -> Result<External> {
    let mut list = External::new();
    if names.is_empty() {
        return Ok(list);
    }
    if names.len() > MOST {
        return Err(Error::CannotRestore(format!("the checkpoint has {} temporary file systems", names.len())));
    }
    let record = &container.record;
    let configured: Vec<(String, &Mount)> =
        spec.mounts().iter().flatten().filter(|m| is_ours(m, spec)).map(|m| (place(record, m), m)).collect();
    let top = container.dir.join(PLACE);
    fs::create_dir(&top).doing(|| format!("create {}", top.display()))?;
    attach(&[("mode".into(), "0700".into())], &top)?;
    for (index, name) in names.iter().enumerate() {
        let Some((_, mount)) = configured.iter().rev().find(|(place, _)| place == name) else {
            return Err(Error::CannotRestore(format!(
                "the checkpoint has a temporary file system at {name} that the container's configuration does not have"
            )));
        };
        let place = top.join(index.to_string());
        fs::create_dir(&place).doing(|| format!("create {}", place.display()))?;
        attach(&parameters(mount), &place)?;
        unpack(name, &file(image, index), &place, cgroups)?;
        list.insert(name.clone(), place);
    }
    Ok(list)
}

/// Takes away what [`fill`] made in this process's mount namespace.
pub fn clean_up(container: &Container) {
    let top = container.dir.join(PLACE);
    let _ = rustix::mount::unmount(&top, rustix::mount::UnmountFlags::DETACH);
    let _ = fs::remove_dir(&top);
}

/// What a configuration's options say to the file system itself.
fn parameters(mount: &Mount) -> Vec<(String, String)> {
    const KNOWN: [&str; 7] = ["size", "mode", "nr_inodes", "nr_blocks", "uid", "gid", "huge"];
    if mount.typ().as_deref() == Some("cgroup") {
        return vec![("mode".into(), "755".into())];
    }
    let options = mount.options().iter().flatten();
    let split = options.filter_map(|option| option.split_once('='));
    split.filter(|(key, _)| KNOWN.contains(key)).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn attach(parameters: &[(String, String)], place: &Path) -> Result<()> {
    let make = || -> rustix::io::Result<()> {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", "tmpfs")?;
        for (key, value) in parameters {
            rustix::mount::fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        let tree = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(tree.as_fd(), "", rustix::fs::CWD, place, here)
    };
    make().doing(|| format!("mount a temporary file system at {}", place.display()))
}

fn unpack(name: &str, tar: &Path, place: &Path, cgroups: &Cgroups) -> Result<()> {
    let doing = || format!("open {}", tar.display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tar = fs::File::from(rustix::fs::open(tar, flags, Mode::empty()).doing(doing)?);
    let metadata = tar.metadata().doing(doing)?;
    if !metadata.is_file() {
        return Err(Error::CannotRestore(format!("the content of {name} is no regular file")));
    }
    let bytes = metadata.len();
    let limits = archive::Limits { max_entries: 10_000_000, max_bytes: bytes };
    let options =
        archive::UnpackOptions { whiteouts: archive::Whiteouts::Raw, limits, ..archive::UnpackOptions::default() };
    let fill = move || {
        archive::unpack(BufReader::with_capacity(256 << 10, tar), place, &options)
            .map(|_| ())
            .map_err(|err| Error::CannotRestore(format!("fill {name}: {err}")))
    };
    if bytes <= CHARGED_ABOVE_BYTES {
        return fill();
    }
    let (ours, theirs) = Channel::pair()?;
    let child = match sys::fork_into(0).doing(|| "fork".into())? {
        Forked::Child => {
            drop(ours);
            let done = cgroups.join_memory(std::process::id() as i32).and_then(|()| fill());
            let message = done.err().map_or(Message::Ready, |err| Message::Failed(err.to_string()));
            let _ = theirs.send(&message);
            sys::exit_now(0)
        }
        Forked::Parent(child) => child,
    };
    drop(theirs);
    let heard = ours.receive();
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
    match heard? {
        Some(Message::Ready) => Ok(()),
        Some(Message::Failed(text)) => Err(Error::CannotRestore(text)),
        _ => Err(Error::CannotRestore(format!("fill {name}: it takes more memory than the container may use"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_once_and_not_propagated_is_ours() {
        let table = "\
1 0 0:50 / / rw,relatime - overlay overlay rw
2 1 0:51 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
3 2 0:52 / /dev/pts rw - devpts devpts rw
4 1 0:53 / /twice rw - tmpfs tmpfs rw
5 1 0:53 /part /half rw - tmpfs tmpfs rw
6 1 0:54 / /shared rw shared:7 - tmpfs tmpfs rw
7 1 0:55 / /over rw - tmpfs tmpfs rw
8 7 0:56 / /over rw - tmpfs tmpfs rw
9 1 0:57 / /a\\040b rw - tmpfs tmpfs rw
10 1 0:58 / /tmp rw - tmpfs tmpfs rw
11 1 0:51 /null /proc/timer_list rw,nosuid - tmpfs tmpfs rw,size=65536k
";
        let masked = External::from([("/proc/timer_list".to_owned(), PathBuf::new())]);
        assert_eq!(candidates(table, &masked), ["/dev", "/tmp"]);
        assert_eq!(candidates(table, &External::new()), ["/tmp"]);
    }

    #[test]
    fn the_file_system_gets_the_configurations_sizes() {
        let mount: Mount = serde_json::from_value(serde_json::json!({
            "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "ro", "mode=1777", "size=64m", "context=x"]
        }))
        .unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parameters(&mount), [pair("mode", "1777"), pair("size", "64m")]);
    }
}
