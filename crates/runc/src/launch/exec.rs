//! Starts a further process in a running container.
//!
//! It gets what the first one has: all its namespaces (through its pidfd, in one call), its cgroups, and its seccomp
//! filter.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use libcontainer::oci_spec::runtime::{Process, Spec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::attributes::{self, Processors};
use super::create::{ConsoleSocket, write_pid_file};
use super::namespaces::{CLONE_NEWTIME, file_name};
use super::notify::{self, Seccomp};
use super::process::{self, Program};
use super::sync::{Channel, Message};
use super::{Preserved, console, wait};
use crate::cgroup::Below;
use crate::error::{Doing, Error, Result};
use crate::logging;
use crate::state::{Container, Status};
use crate::sys::{self, Forked};

/// How to start it.
#[derive(Debug, Default)]
pub struct Options {
    /// Takes the terminal's master.
    pub console_socket: Option<ConsoleSocket>,
    /// Where to write the pid.
    pub pid_file: Option<PathBuf>,
    /// `--preserve-fds`
    pub preserve_fds: u32,
    /// Start it in a paused container; it will hang until that is resumed.
    pub ignore_paused: bool,
    /// Which groups below the container's it gets.
    pub groups: Below,
}

const ALL: [libc::c_int; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    CLONE_NEWTIME,
];

/// Starts the process; it runs when this returns. Gives its pid.
pub fn exec(container: &Container, process: &Process, options: Options) -> Result<i32> {
    match container.status()? {
        Status::Running | Status::Created => (),
        Status::Paused if options.ignore_paused => (),
        Status::Paused => {
            return Err(Error::Conflict("cannot exec in a paused container (use --ignore-paused to override)".into()));
        }
        Status::Stopped | Status::Creating => {
            return Err(Error::Conflict("cannot exec in a stopped container".into()));
        }
    }
    match (process.terminal() == Some(true), options.console_socket.is_some()) {
        (true, false) => {
            return Err(Error::Invalid(
                "cannot allocate tty if runc will detach without setting console socket".into(),
            ));
        }
        (false, true) => {
            return Err(Error::Invalid("cannot use console socket if runc will not detach or allocate tty".into()));
        }
        _ => (),
    }
    tracing::debug!("starting a process in container {}", container.record.id);
    let preserved = Preserved::new(options.preserve_fds)?;
    let spec = container.spec()?;
    let pid = container.record.pid;
    let init = Pid::from_raw(pid).ok_or(Error::NotRunning)?;
    let pidfd = pidfd_open(init, PidfdFlags::empty()).doing(|| format!("open process {pid}"))?;
    // The pid was checked before the descriptor was made: check again that it is the same process.
    if !container.is_alive() {
        return Err(Error::Conflict("cannot exec in a stopped container".into()));
    }
    let different = ALL.iter().copied().filter(|flag| !same_namespace(pid, *flag)).fold(0, |all, flag| all | flag);
    let processors = Processors::of(process)?;
    let console_socket = options.console_socket.map(ConsoleSocket::open).transpose()?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let seccomp = Seccomp::of(profile, container.root())?;
    let (ours, theirs) = Channel::pair()?;

    let own_pid_namespace = fs::File::open("/proc/self/ns/pid").doing(|| "open /proc/self/ns/pid".into())?;
    if different & libc::CLONE_NEWPID != 0 {
        sys::setns(pidfd.as_fd(), libc::CLONE_NEWPID).doing(|| "join the pid namespace".into())?;
    }
    let forked = sys::fork_into(0).doing(|| "create the process".into())?;
    let child = match forked {
        Forked::Child => {
            drop(ours);
            Tenant {
                spec: &spec,
                process,
                seccomp,
                pidfd: Some(pidfd),
                namespaces: different & !libc::CLONE_NEWPID,
                channel: theirs,
                console_socket,
                preserved,
            }
            .run()
        }
        Forked::Parent(child) => child,
    };
    drop(theirs);
    drop(console_socket);
    let result = join(container, child, different, &own_pid_namespace, &processors, &options.groups)
        .and_then(|()| accompany(container, child, &spec, &ours, options.pid_file));
    if result.is_err() {
        wait::kill_and_reap(child);
    }
    result.map(|()| child)
}

fn join(
    container: &Container,
    child: i32,
    different: libc::c_int,
    own_pid_namespace: &fs::File,
    processors: &Processors,
    groups: &Below,
) -> Result<()> {
    if different & libc::CLONE_NEWPID != 0 {
        sys::setns(own_pid_namespace.as_fd(), libc::CLONE_NEWPID).doing(|| "return to own pid namespace".into())?;
    }
    processors.apply_before(child)?;
    container.cgroups()?.join_below(child, groups)?;
    processors.apply_after(child)
}

fn accompany(
    container: &Container,
    child: i32,
    spec: &Spec,
    channel: &Channel,
    pid_file: Option<PathBuf>,
) -> Result<()> {
    // A child that has failed already has said why.
    let _ = channel.send(&Message::InCgroups);
    loop {
        match channel.receive()? {
            Some(Message::Ready) => break,
            Some(Message::Listener(number)) => {
                let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
                notify::forward(seccomp, &container.record, Status::Running, child, number)?;
                channel.send(&Message::ListenerSent)?;
            }
            Some(Message::Failed(text)) => return Err(Error::Init(text)),
            Some(other) => return Err(Error::Init(format!("unexpected {other:?}"))),
            None => return Err(Error::Init(wait::describe_end(child))),
        }
    }
    // The child's end closes when its program starts.
    match channel.receive()? {
        None => (),
        Some(Message::Failed(text)) => return Err(Error::Init(text)),
        Some(other) => return Err(Error::Init(format!("unexpected {other:?}"))),
    }
    if let Some(path) = pid_file {
        write_pid_file(&path, child)?;
    }
    Ok(())
}

fn same_namespace(pid: i32, flag: libc::c_int) -> bool {
    let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{}", file_name(flag))).ok();
    of("self") == of(&pid.to_string())
}

/// The child.
struct Tenant<'a> {
    spec: &'a Spec,
    process: &'a Process,
    seccomp: Option<Seccomp<'a>>,
    pidfd: Option<OwnedFd>,
    namespaces: libc::c_int,
    channel: Channel,
    console_socket: Option<OwnedFd>,
    preserved: Preserved,
}

impl Tenant<'_> {
    fn run(mut self) -> ! {
        let err = match self.set_up() {
            Ok(program) => match self.channel.send(&Message::Ready) {
                Ok(()) => {
                    sys::default_signals();
                    program.exec()
                }
                Err(err) => err,
            },
            Err(err) => err,
        };
        let _ = self.channel.send(&Message::Failed(super::words(&err)));
        sys::exit_now(255)
    }

    fn set_up(&mut self) -> Result<Program> {
        // Whoever traces processes in the container sees this one as soon as it has joined, with all that it has open; and the
        // program, an interpreter or the working directory may be named by `/proc/self/fd`.
        let console = self.console_socket.as_ref().map(|socket| socket.as_fd());
        let pidfd = self.pidfd.take();
        let namespaces = pidfd.as_ref().map(AsFd::as_fd);
        let kept = [namespaces, Some(self.channel.as_fd()), console, logging::descriptor()];
        let kept: Vec<_> = kept.iter().flatten().map(AsRawFd::as_raw_fd).collect();
        sys::close_all_from(self.preserved.end(), &kept).doing(|| "close descriptors".into())?;
        rustix::process::setsid().doing(|| "setsid".into())?;
        // The caller's keys are none of the container's business. No name: another container may have taken it, and would
        // share what is kept there.
        if let Err(err) = sys::join_session_keyring(None) {
            tracing::warn!("cannot start a session keyring: {err}");
        }
        // runc's, whatever its caller's is.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        process::set_oom_score(
            self.process
                .oom_score_adj()
                .or_else(|| self.spec.process().as_ref().and_then(|process| process.oom_score_adj())),
        );
        if let Some(namespaces) = namespaces.filter(|_| self.namespaces != 0) {
            sys::setns(namespaces, self.namespaces).doing(|| "join the container's namespaces".into())?;
        }
        drop(pidfd);
        if self.namespaces & libc::CLONE_NEWUSER != 0 {
            sys::set_gid(0).doing(|| "become root of the user namespace".into())?;
            sys::set_uid(0).doing(|| "become root of the user namespace".into())?;
        }
        if let Some(socket) = self.console_socket.take() {
            console::set_up(socket, self.process, false)?;
        }
        // Nothing of the program may run outside its limits.
        self.channel.expect(&Message::InCgroups)?;
        attributes::apply(self.process, self.spec.linux().as_ref())?;
        process::become_user(self.process, self.seccomp.as_ref(), &self.channel)?;
        let mut process = self.process.clone();
        let extra = self.preserved.environment();
        if !extra.is_empty() {
            let environment = process.env().iter().flatten().cloned().chain(extra).collect();
            process.set_env(Some(environment));
        }
        Program::find(&process)
    }
}
