//! The first process of a container, from `clone` to `execve`.
//!
//! Runs in the child. It must not return into the caller: it ends in the container's program, or reports its failure to
//! the parent and exits.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::create_syscall;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags};

use super::namespaces::Namespaces;
use super::notify::Seccomp;
use super::process::{self, Program};
use super::sync::{Channel, Message};
use super::{Preserved, attributes, console, procfs, words};
use crate::cgroup::Cgroups;
use crate::error::{Doing, Error, Result};
use crate::rootfs::cover::{check_null, cover};
use crate::rootfs::inside::Inside;
use crate::rootfs::{self, Plan, cgroups, idmap};
use crate::state::{Record, Status};
use crate::{hooks, logging, sys};

/// What the child needs to know.
pub struct Init<'a> {
    pub spec: &'a Spec,
    pub record: &'a Record,
    pub namespaces: &'a Namespaces,
    pub cgroups: &'a Cgroups,
    pub seccomp: Option<&'a Seccomp<'a>>,
    pub channel: Channel,
    pub console_socket: Option<OwnedFd>,
    pub fifo: fs::File,
    pub preserved: Preserved,
    pub empty: &'a Path,
    pub early: idmap::Early,
    pub no_pivot: bool,
    pub new_keyring: bool,
}

impl Init<'_> {
    /// Does everything and never returns.
    pub fn run(mut self) -> ! {
        let program = match self.set_up() {
            Ok(program) => program,
            Err(err) => {
                // A parent that has gone cannot be told.
                let _ = self.channel.send(&Message::Failed(words(&err)));
                sys::exit_now(1)
            }
        };
        // From here on nobody listens but who reads the container's output.
        let err = self.wait_and_exec(program);
        let _ = writeln!(std::io::stderr(), "{}", words(&err));
        sys::exit_now(255)
    }

    fn set_up(&mut self) -> Result<Program> {
        let spec = self.spec;
        let process = spec.process().as_ref().ok_or_else(|| Error::Init("\"process\" is missing".into()))?.clone();
        let linux = spec.linux().as_ref().ok_or_else(|| Error::Init("\"linux\" is missing".into()))?;
        if self.namespaces.has_new(libc::CLONE_NEWUSER) {
            self.channel.expect(&Message::Mapped)?;
            sys::set_gid(0).doing(|| "become root of the user namespace".into())?;
            sys::set_uid(0).doing(|| "become root of the user namespace".into())?;
        }
        self.namespaces.enter_last()?;
        rustix::process::setsid().doing(|| "setsid".into())?;
        if self.new_keyring {
            let name = CString::new(format!("_ses.{}", self.record.id)).unwrap_or_default();
            if let Err(err) = sys::join_session_keyring(Some(&name)) {
                tracing::warn!("cannot start a session keyring: {err}");
            }
        }
        process::set_oom_score(process.oom_score_adj());

        let mounts_cgroup =
            spec.mounts().iter().flatten().any(|mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")));
        let cgroup_mount = cgroups::last(spec, self.namespaces, self.cgroups);
        let needs_cgroup_early = (mounts_cgroup && cgroup_mount.is_none())
            || self.namespaces.has_new(libc::CLONE_NEWCGROUP)
            || self.namespaces.path(libc::CLONE_NEWCGROUP).is_some();
        if needs_cgroup_early {
            self.channel.expect(&Message::InCgroups)?;
            self.namespaces.enter_cgroup_namespace()?;
        }
        if self.namespaces.has_new(libc::CLONE_NEWNET) {
            sys::loopback_up().doing(|| "bring up the loopback interface".into())?;
        }
        self.name_host()?;

        let rootfs = &self.record.rootfs;
        // runc's, whatever its caller's is.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let has = |kind| self.namespaces.has_new(kind) || self.namespaces.path(kind).is_some();
        let own_cgroup_namespace = has(libc::CLONE_NEWCGROUP);
        rootfs::prepare(&mut Plan {
            spec,
            rootfs,
            bundle: &self.record.bundle,
            cgroups: self.cgroups,
            own_cgroup_namespace,
            in_user_namespace: has(libc::CLONE_NEWUSER),
            later: cgroup_mount,
            early: std::mem::take(&mut self.early),
        })?;
        if let Some(mount) = cgroup_mount {
            self.channel.expect(&Message::InCgroups)?;
            cgroups::make(mount, &Inside::open(rootfs)?, self.cgroups, own_cgroup_namespace)?;
        }
        for (name, value) in linux.sysctl().iter().flatten() {
            procfs::set_sysctl(name, value)?;
        }
        if hooks::before_pivot(spec.hooks().as_ref()) {
            self.channel.send(&Message::RunHooks)?;
            self.channel.expect(&Message::HooksDone)?;
            let list = spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_ref());
            std::env::set_current_dir(rootfs).doing(|| format!("enter {}", rootfs.display()))?;
            hooks::run("createContainer", list, &self.own_record(), Status::Creating, None)?;
        }
        cover(&Inside::open(rootfs)?, linux, self.empty)?;
        self.change_root()?;
        rootfs::set_propagation(linux.rootfs_propagation().as_deref())?;
        reopen_null()?;
        if let Some(socket) = self.console_socket.take() {
            console::set_up(socket, &process, true)?;
        }
        if rootfs::has_read_only_dev(spec) {
            remount_read_only(Path::new("/dev"))?;
        }
        if spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
            remount_read_only(Path::new("/"))?;
        }
        if !needs_cgroup_early && cgroup_mount.is_none() {
            self.channel.expect(&Message::InCgroups)?;
        }
        // Not only on exec: the program, an interpreter or the working directory may be named by `/proc/self/fd`.
        let kept = [Some(self.channel.as_fd()), Some(self.fifo.as_fd()), logging::descriptor()];
        let kept: Vec<_> = kept.iter().flatten().map(AsRawFd::as_raw_fd).collect();
        sys::close_all_from(self.preserved.end(), &kept).doing(|| "close descriptors".into())?;
        attributes::apply(&process, Some(linux))?;
        process::become_user(&process, self.seccomp, &self.channel)?;
        let mut process = process;
        let extra = self.preserved.environment();
        if !extra.is_empty() {
            let environment = process.env().iter().flatten().cloned().chain(extra).collect();
            process.set_env(Some(environment));
        }
        Program::find(&process)
    }

    fn wait_and_exec(&mut self, program: Program) -> Error {
        if let Err(err) = self.channel.send(&Message::Ready) {
            return err;
        }
        // Whoever enters a container that waits must not find the caller's descriptors here; not even those that would
        // not survive `execve`.
        // A seccomp filter may know nothing of this call; what is left then is no directory.
        let _ = sys::close_all_from(self.preserved.end(), &[self.fifo.as_raw_fd()]);
        let mut byte = [0];
        if let Err(source) = self.fifo.read_exact(&mut byte) {
            return Error::Io { what: "wait for start".into(), source };
        }
        let list = self.spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
        let environment = hooks::environment(&program.environment());
        if let Err(err) = hooks::run("startContainer", list, &self.own_record(), Status::Created, Some(&environment)) {
            return err;
        }
        sys::default_signals();
        program.exec()
    }

    /// Hooks that run in the container are told the pid that they can see.
    fn own_record(&self) -> Record {
        Record { pid: std::process::id().cast_signed(), ..self.record.clone() }
    }

    fn name_host(&self) -> Result<()> {
        if !self.namespaces.has_new(libc::CLONE_NEWUTS) && self.namespaces.path(libc::CLONE_NEWUTS).is_none() {
            return Ok(());
        }
        if let Some(name) = self.spec.hostname().as_deref().filter(|name| !name.is_empty()) {
            rustix::system::sethostname(name.as_bytes()).doing(|| format!("set hostname {name:?}"))?;
        }
        if let Some(name) = self.spec.domainname().as_deref().filter(|name| !name.is_empty()) {
            rustix::system::setdomainname(name.as_bytes()).doing(|| format!("set domainname {name:?}"))?;
        }
        Ok(())
    }

    fn change_root(&self) -> Result<()> {
        let rootfs = &self.record.rootfs;
        if !self.no_pivot {
            return create_syscall()
                .pivot_rootfs(rootfs)
                .map_err(|err| Error::Init(format!("pivot_root to {}: {err}", rootfs.display())));
        }
        // The host's /proc and /sys would stay reachable below the new root: hide or remove them first.
        let doing = || format!("move the root to {}", rootfs.display());
        std::env::set_current_dir(rootfs).doing(doing)?;
        for path in ["/sys", "/proc"] {
            if umount2(path, MntFlags::MNT_DETACH).is_err() {
                let empty = Some("size=0k");
                mount(None::<&str>, path, Some("tmpfs"), MsFlags::MS_RDONLY, empty).doing(doing)?;
            }
        }
        mount(Some(rootfs), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).doing(doing)?;
        rustix::process::chroot(".").doing(doing)?;
        std::env::set_current_dir("/").doing(doing)
    }
}

/// Adds read-only to a mount and keeps its other flags.
fn remount_read_only(path: &Path) -> Result<()> {
    let doing = || format!("remount {} read-only", path.display());
    let current = rustix::fs::statvfs(path).doing(doing)?.f_flag;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    use rustix::fs::StatVfsMountFlags as Is;
    for (is, flag) in [
        (Is::NOSUID, MsFlags::MS_NOSUID),
        (Is::NODEV, MsFlags::MS_NODEV),
        (Is::NOEXEC, MsFlags::MS_NOEXEC),
        (Is::NOATIME, MsFlags::MS_NOATIME),
        (Is::NODIRATIME, MsFlags::MS_NODIRATIME),
        (Is::RELATIME, MsFlags::MS_RELATIME),
    ] {
        if current.contains(is) {
            flags |= flag;
        }
    }
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).doing(doing)
}

/// Standard streams that point to the host's `/dev/null` are pointed to the container's.
fn reopen_null() -> Result<()> {
    let doing = || "reopen /dev/null".to_owned();
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).doing(doing)?;
    let device = check_null(null.as_fd())?;
    let is_null = |stat: rustix::fs::Stat| stat.st_rdev == device.st_rdev && stat.st_mode == device.st_mode;
    if rustix::fs::fstat(rustix::stdio::stdin()).is_ok_and(is_null) {
        rustix::stdio::dup2_stdin(&null).doing(doing)?;
    }
    if rustix::fs::fstat(rustix::stdio::stdout()).is_ok_and(is_null) {
        rustix::stdio::dup2_stdout(&null).doing(doing)?;
    }
    if rustix::fs::fstat(rustix::stdio::stderr()).is_ok_and(is_null) {
        rustix::stdio::dup2_stderr(&null).doing(doing)?;
    }
    Ok(())
}
