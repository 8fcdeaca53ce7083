//! Creates a container: the parent's part.
//!
//! Whatever fails, nothing stays behind: the child is killed and reaped, its cgroups and its directory are removed.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{LinuxIdMapping, Spec};

use super::namespaces::Namespaces;
use super::notify::{self, Seccomp};
use super::sync::{Channel, Message};
use super::{Preserved, attributes, console, devices, init, wait};
use crate::cgroup::{self, Cgroups};
use crate::error::{Doing, Error, Result};
use crate::rootfs::idmap;
use crate::state::{Container, EXEC_FIFO, Record, Status, check_id, write_file};
use crate::sys::Forked;
use crate::{hooks, spec, sys};

/// How to create.
#[derive(Debug, Default)]
pub struct Options {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Takes the terminal's master.
    pub console_socket: Option<ConsoleSocket>,
    /// Where to write the pid.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting (for a root on ramfs).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// `--preserve-fds`
    pub preserve_fds: u32,
}

/// Who takes the terminal's master.
#[derive(Debug)]
pub enum ConsoleSocket {
    /// A listening socket of the caller.
    Path(PathBuf),
    /// This program itself.
    Connected(OwnedFd),
}

impl ConsoleSocket {
    /// The connection to hand to the child.
    pub fn open(self) -> Result<OwnedFd> {
        match self {
            ConsoleSocket::Path(path) => console::connect(&path),
            ConsoleSocket::Connected(fd) => Ok(fd),
        }
    }
}

/// Whether the configuration asks for a terminal.
pub fn wants_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(|process| process.terminal()) == Some(true)
}

/// The user who calls. Root is not looked up.
fn owner() -> String {
    let uid = nix::unistd::geteuid();
    match uid.is_root() {
        true => "root".into(),
        false => nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default(),
    }
}

/// A fresh record for this configuration.
pub fn record(id: &str, bundle: &Path, spec: &Spec) -> Result<Record> {
    let linux = spec.linux().as_ref();
    Ok(Record {
        oci_version: spec.version().clone(),
        id: id.to_owned(),
        pid: 0,
        start_ticks: 0,
        created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
        bundle: bundle.to_owned(),
        rootfs: spec::rootfs(spec)?,
        cgroup_path: cgroup::path_for(linux.and_then(|linux| linux.cgroups_path().as_deref()), id)?,
        owner: owner(),
        terminal: wants_terminal(spec),
        descriptors: Vec::new(),
        annotations: spec.annotations().clone().unwrap_or_default(),
        mask_directory: None,
    })
}

/// Makes the empty directory that covers masked directories.
pub fn make_mask_directory(container: &mut Container) -> Result<PathBuf> {
    let path = container.dir.join("masked");
    fs::create_dir(&path).doing(|| format!("create {}", path.display()))?;
    container.record.mask_directory = Some(path.clone());
    Ok(path)
}

/// Creates a container whose first process waits for [`start`].
pub fn create(root: &Path, id: &str, spec: &Spec, options: Options) -> Result<Container> {
    check_id(id)?;
    match (wants_terminal(spec), options.console_socket.is_some()) {
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
    let mut container = Container::make(root, record(id, &options.bundle, spec)?, spec)?;
    if let Err(err) = container.cgroups().and_then(|cgroups| cgroups.refuse_taken()) {
        // The groups are somebody else's: they stay.
        let _ = container.forget();
        return Err(err);
    }
    tracing::debug!("creating container {id} from bundle {}", options.bundle.display());
    let result = launch(&mut container, spec, options);
    if let Err(err) = result {
        discard(&container);
        return Err(err);
    }
    Ok(container)
}

/// Removes all traces of a container that could not be made. What cannot be removed is only logged: the first error is
/// what the caller must hear.
pub fn discard(container: &Container) {
    if container.record.pid > 0 {
        wait::kill_and_reap(container.record.pid);
    }
    let removed = container.cgroups().and_then(|cgroups| cgroups.remove());
    if let Err(err) = removed.and_then(|()| container.forget()) {
        tracing::warn!("clean up {}: {err}", container.record.id);
    }
}

fn launch(container: &mut Container, spec: &Spec, mut options: Options) -> Result<()> {
    let preserved = Preserved::new(options.preserve_fds)?;
    let empty = make_mask_directory(container)?;
    let namespaces = Namespaces::of(spec);
    let console_socket = options.console_socket.take().map(ConsoleSocket::open).transpose()?;
    let path = container.dir.join(EXEC_FIFO);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .doing(|| format!("make {}", path.display()))?;
    // Open for both, so that neither side blocks in open; it is the read that waits.
    let fifo = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(&path)
        .doing(|| format!("open {}", path.display()))?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let seccomp = Seccomp::of(profile, container.root())?;
    let cgroups = container.cgroups()?;
    let early = idmap::early(spec, &container.record.bundle, &container.record.rootfs)?;
    let (ours, theirs) = Channel::pair()?;
    match namespaces.fork()? {
        Forked::Child => {
            drop(ours);
            init::Init {
                spec,
                record: &container.record,
                namespaces: &namespaces,
                cgroups: &cgroups,
                seccomp: seccomp.as_ref(),
                channel: theirs,
                console_socket,
                fifo,
                preserved,
                empty: &empty,
                early,
                no_pivot: options.no_pivot,
                new_keyring: !options.no_new_keyring,
            }
            .run()
        }
        Forked::Parent(pid) => {
            drop(theirs);
            drop(console_socket);
            drop(early);
            container.record.pid = pid;
            container.set_process(pid)?;
            container.save()?;
            tracing::debug!("container {} starts as process {pid}", container.record.id);
            accompany(container, spec, &namespaces, &cgroups, &ours)?;
        }
    }
    container.note_descriptors()?;
    container.save()?;
    if let Some(path) = &options.pid_file {
        write_pid_file(path, container.record.pid)?;
    }
    Ok(())
}

/// The parent's part while the child sets itself up.
fn accompany(
    container: &Container,
    spec: &Spec,
    namespaces: &Namespaces,
    cgroups: &Cgroups,
    channel: &Channel,
) -> Result<()> {
    let pid = container.record.pid;
    let linux = spec.linux().as_ref();
    if namespaces.has_new(libc::CLONE_NEWUSER) {
        let mappings = |list: Option<&Vec<LinuxIdMapping>>| list.map_or(String::new(), |list| idmap::lines(list));
        for (file, text) in [
            ("uid_map", mappings(linux.and_then(|l| l.uid_mappings().as_ref()))),
            ("gid_map", mappings(linux.and_then(|l| l.gid_mappings().as_ref()))),
        ] {
            fs::write(format!("/proc/{pid}/{file}"), text).doing(|| format!("write {file}"))?;
        }
        channel.send(&Message::Mapped)?;
    }
    let joined = join_cgroups(cgroups, pid, spec);
    if let Err(err) = joined {
        // A child that has failed meanwhile has the better explanation.
        return Err(child_failure(channel, pid).unwrap_or(err));
    }
    attributes::reset_processors(pid);
    if let Some(devices) = linux.and_then(|linux| linux.net_devices().as_ref()).filter(|devices| !devices.is_empty()) {
        devices::give(devices, pid)?;
    }
    if channel.send(&Message::InCgroups).is_err() {
        return Err(child_failure(channel, pid).unwrap_or_else(|| Error::Init("the process has gone".into())));
    }
    loop {
        match channel.receive()? {
            Some(Message::Ready) => return Ok(()),
            Some(Message::RunHooks) => {
                let hooks = spec.hooks().as_ref();
                let record = &container.record;
                #[allow(deprecated)]
                let prestart = hooks.and_then(|hooks| hooks.prestart().as_ref());
                hooks::run("prestart", prestart, record, Status::Creating, None)?;
                let create_runtime = hooks.and_then(|hooks| hooks.create_runtime().as_ref());
                hooks::run("createRuntime", create_runtime, record, Status::Creating, None)?;
                channel.send(&Message::HooksDone)?;
            }
            Some(Message::Listener(number)) => {
                let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
                notify::forward(seccomp, &container.record, Status::Creating, pid, number)?;
                channel.send(&Message::ListenerSent)?;
            }
            Some(Message::Failed(text)) => return Err(Error::Init(text)),
            Some(other) => return Err(Error::Init(format!("unexpected {other:?}"))),
            None => return Err(Error::Init(wait::describe_end(pid))),
        }
    }
}

fn join_cgroups(cgroups: &Cgroups, pid: i32, spec: &Spec) -> Result<()> {
    cgroups.create()?;
    cgroups.join(pid)?;
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    cgroups.apply(&resources.unwrap_or_default())
}

fn child_failure(channel: &Channel, pid: i32) -> Option<Error> {
    // Only what has been said already: killing the child first makes sure that this does not wait for more.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid)?, rustix::process::Signal::KILL);
    loop {
        match channel.receive() {
            Ok(Some(Message::Failed(text))) => return Some(Error::Init(text)),
            Ok(Some(_)) => (),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Writes a pid where the caller wants it, whole.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    write_file(path, pid.to_string().as_bytes())
}

/// Lets the first process of a created container go on to its program.
pub fn start(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Created => (),
        Status::Stopped => return Err(Error::Conflict("cannot start a container that has stopped".into())),
        Status::Running => return Err(Error::Conflict("cannot start an already running container".into())),
        status => {
            return Err(Error::Conflict(format!("cannot start a container in the {status} state")));
        }
    }
    let path = container.dir.join(EXEC_FIFO);
    let fifo = fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(&path);
    let fifo = match fifo {
        Ok(fifo) => fifo,
        Err(err) if err.raw_os_error() == Some(libc::ENXIO) => {
            return Err(Error::Conflict("cannot start a container that has stopped".into()));
        }
        Err(source) => return Err(Error::Io { what: format!("open {}", path.display()), source }),
    };
    // Whoever removes the name first is the one who starts.
    match fs::remove_file(&path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Conflict("cannot start an already running container".into()));
        }
        other => other.doing(|| format!("remove {}", path.display()))?,
    }
    rustix::io::write(fifo.as_fd(), b"s").doing(|| format!("write {}", path.display()))?;
    let spec = container.spec()?;
    let list = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref());
    if let Err(err) = hooks::run("poststart", list, &container.record, Status::Running, None) {
        if let Some(pid) = rustix::process::Pid::from_raw(container.record.pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        return Err(err);
    }
    Ok(())
}

/// Runs `poststop` hooks and removes cgroups and directory of a container that has stopped.
pub fn remove(container: &Container) -> Result<()> {
    crate::lazy::stop(container);
    container.cgroups()?.remove()?;
    let hooks = container.spec().ok().and_then(|spec| spec.hooks().clone());
    if let Some(hooks) = hooks
        && let Err(err) = hooks::run("poststop", hooks.poststop().as_ref(), &container.record, Status::Stopped, None)
    {
        // The specification: a failing poststop hook is logged and the removal goes on.
        tracing::warn!("{err}");
    }
    container.forget()
}

/// Seals the program and starts the kernel's grace period, before anything else is done.
pub fn prepare() -> Result<()> {
    crate::seal::seal()?;
    cgroup::warm_up();
    let _ = sys::prctl(libc::PR_SET_DUMPABLE, 0, 0);
    Ok(())
}
