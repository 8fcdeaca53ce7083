//! Wakes a container.
//!
//! Everything that can be made before CRIU starts is made before: directory, cgroups, network namespace, root. CRIU is
//! put into the container's cgroups and gives birth to its processes there; the first one becomes *our* child, so that it
//! ends up with whoever takes over our orphans, as after a start.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use criu::rpc;
use criu::{Event, Launch, Notify, Program, Session};
use libcontainer::oci_spec::runtime::Spec;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::dump::cgroup_options;
use super::options::{Lazy, Options, Tcp};
use super::{DESCRIPTORS, LIMIT, STATS, mounts, network, open_dir, read_small, tmpfs};
use crate::cgroup::Cgroups;
use crate::error::{Doing, Error, Result};
use crate::hooks;
use crate::launch::console;
use crate::launch::create::{ConsoleSocket, discard, make_mask_directory, record, write_pid_file};
use crate::launch::namespaces::Namespaces;
use crate::lazy::{self, Choice};
use crate::logging::Log;
use crate::state::{Container, Status, check_id};
use crate::sys;

const LOG: &str = "restore.log";
/// Where the root file system is bound for CRIU.
const CRIU_ROOT: &str = "criu-root";
/// runc's name for a network namespace that is not in the images.
pub(super) const NETWORK_KEY: &str = "extRootNetNS";
/// runc's name for a pid namespace that is not in the images.
pub(super) const PID_KEY: &str = "extRootPidNS";

/// What to do.
#[derive(Debug)]
pub struct Request<'a> {
    /// `--criu`
    pub criu: Option<&'a Path>,
    /// Where CRIU's kernel-feature cache lives.
    pub cache: Option<PathBuf>,
    /// Directory of the images.
    pub image: &'a Path,
    /// Directory for log and statistics.
    pub work: &'a Path,
    /// The bundle.
    pub bundle: &'a Path,
    /// Takes the terminal's master.
    pub console_socket: Option<ConsoleSocket>,
    /// Where to write the pid.
    pub pid_file: Option<PathBuf>,
    /// Bits of namespaces that are left empty.
    pub empty_namespaces: u32,
    /// Close connections instead of keeping them.
    pub tcp_close: bool,
    /// Let memory come later, whatever the stored options say.
    pub lazy_pages: bool,
    /// Where the log goes.
    pub log: Option<Log>,
    /// Profile of the security module.
    pub lsm_profile: Option<String>,
    /// Mount context of the security module.
    pub lsm_mount_context: Option<String>,
    /// The options where none are stored.
    pub options: Options,
}

/// Restores a container; it runs when this returns.
pub fn restore(root: &Path, id: &str, spec: &Spec, request: Request<'_>) -> Result<Container> {
    let started = Instant::now();
    check_id(id)?;
    if !request.image.join("inventory.img").is_file() {
        return Err(Error::CannotRestore(format!("{} holds no checkpoint", request.image.display())));
    }
    let program = Program::find(request.criu)?;
    let mut options = match Options::load(request.image)? {
        Some(stored) => stored,
        None => foreign_options(request.options.clone(), spec, &record(id, request.bundle, spec)?)?,
    };
    options.apply_annotations(&spec.annotations().clone().unwrap_or_default())?;
    if request.tcp_close {
        options.tcp = Tcp::Close;
    }
    if request.lazy_pages {
        options.lazy = Lazy::Always;
    }
    let choice = match request.lazy_pages && lazy::is_served(request.work) {
        true => Choice::Elsewhere,
        false => lazy::choose(request.image, options.lazy)?,
    };
    let later_bytes = match &choice {
        Choice::Lazy(bytes) => *bytes,
        Choice::Eager | Choice::Elsewhere => 0,
        Choice::Impossible(why) => {
            tracing::info!("all memory is read before the container runs: {why}");
            0
        }
    };
    fs::create_dir_all(request.work).doing(|| format!("create {}", request.work.display()))?;
    if choice == Choice::Elsewhere {
        lazy::wait_until_served(request.work)?;
    }
    let mut container = Container::make(root, record(id, request.bundle, spec)?, spec)?;
    let image = request.image.to_owned();
    let work = request.work.to_owned();
    let result = make_mask_directory(&mut container)
        .and_then(|_| wake(&mut container, spec, &program, &options, &choice, request));
    // It lies in our own mount namespace; gone it must be before the directory is touched.
    let _ = umount2(&container.dir.join(CRIU_ROOT), MntFlags::MNT_DETACH);
    let _ = fs::remove_dir(container.dir.join(CRIU_ROOT));
    tmpfs::clean_up(&container);
    mounts::release_masks(&container.record);
    if let Err(err) = result {
        // Whatever CRIU says then, this is where it comes from.
        let reason = lazy::failure(&container);
        discard(&container);
        return Err(reason.map_or(err, Error::CannotRestore));
    }
    write_stats(&image, &work, started, later_bytes);
    Ok(container)
}

fn wake(
    container: &mut Container,
    spec: &Spec,
    program: &Program,
    chosen: &Options,
    choice: &Choice,
    mut request: Request<'_>,
) -> Result<()> {
    // First, because it takes its time to come up; and before this process has a mount namespace of its own.
    let page_daemon = match *choice {
        Choice::Lazy(bytes) => Some(lazy::start(container, request.image, request.work, request.log.as_ref(), bytes)?),
        _ => None,
    };
    let cgroups = container.cgroups()?;
    cgroups.create()?;
    let external = mounts::sources(spec, &container.record, &chosen.external_mounts)?;
    mounts::make_mount_points(spec, &container.record)?;
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    // CRIU and its helpers count as well while they are in there: the limit on tasks comes when they have gone.
    let mut early = resources.clone();
    early.set_pids(None);
    cgroups.apply(&early)?;

    let mut options = base_options(chosen, &request, matches!(choice, Choice::Lazy(_) | Choice::Elsewhere));
    let image = open_dir(request.image)?;
    let work = open_dir(request.work)?;
    options.images_dir_fd = image.as_raw_fd();
    options.work_dir_fd = Some(work.as_raw_fd());
    options.external = external.iter().map(|(name, source)| format!("mnt[{name}]:{}", source.display())).collect();
    options.config_file = super::criu_configuration(&container.record.annotations);
    cgroup_options(&mut options, chosen, &cgroups);
    options.root = Some(bind_root(container)?.to_string_lossy().into_owned());
    mounts::protect_masks(&container.record)?;
    let tmpfs = tmpfs::fill(container, spec, &chosen.own_tmpfs, request.image, &cgroups)?;
    options.external.extend(tmpfs.iter().map(|(name, source)| format!("mnt[{name}]:{}", source.display())));

    let mut launch = Launch::new(&program.path);
    launch.cache = request.cache.clone();
    let namespaces = Namespaces::of(spec);
    let mut network = None;
    if chosen.external_netns {
        let namespace = match namespaces.path(libc::CLONE_NEWNET) {
            Some(path) => network::Network::open(path)?,
            None => network::Network::from(network::make_empty()?),
        };
        let copy = namespace.as_fd().try_clone_to_owned().doing(|| "duplicate a descriptor".into())?;
        options.inherit_fd.push(rpc::InheritFd { key: NETWORK_KEY.into(), fd: copy.as_raw_fd() });
        launch.inherit.push(copy);
        network = Some(namespace);
    }
    if chosen.external_pidns {
        let path = namespaces
            .path(libc::CLONE_NEWPID)
            .ok_or_else(|| Error::CannotRestore("the checkpoint was made in a joined pid namespace".into()))?;
        let file = fs::File::open(path).doing(|| format!("open {}", path.display()))?;
        options.inherit_fd.push(rpc::InheritFd { key: PID_KEY.into(), fd: file.as_raw_fd() });
        launch.inherit.push(file.into());
    }
    for (kind, name) in [(libc::CLONE_NEWIPC, "ipc"), (libc::CLONE_NEWUTS, "uts"), (0x80, "time")] {
        if let Some(path) = namespaces.path(kind) {
            let ns_file = path.to_string_lossy().into_owned();
            options.join_ns.push(rpc::JoinNamespace { ns: name.into(), ns_file });
        }
    }
    stdio(chosen, &request, &mut launch, &mut options)?;
    if chosen.tcp == Tcp::Established
        && let Some(network) = &mut network
    {
        network.lock()?;
    } else if let Some(network) = &mut network
        && chosen.tcp != Tcp::None
    {
        network.clear()?;
    }

    let mut session = Session::start(launch)?;
    cgroups.join(session.pid())?;
    let console_socket = request.console_socket.take().map(ConsoleSocket::open).transpose()?;
    let frozen = chosen.paused.then(|| (&cgroups, session.pid()));
    let mut listener = Listener { container, spec, network, console_socket, frozen, failure: None };
    let call = rpc::Request { kind: rpc::RequestType::Restore as i32, opts: Some(options), ..Default::default() };
    let response = session.call(&call, &mut listener, LIMIT);
    session.end();
    drop(page_daemon);
    let log = request.work.join(LOG);
    if let Some(err) = listener.failure.take() {
        return Err(err);
    }
    if let Some(network) = &mut listener.network {
        network.unlock()?;
    }
    let pid = match response {
        Ok(response) if response.success => response.restore.map(|restore| restore.pid).unwrap_or_default(),
        Ok(response) => return Err(criu::explain::failure(&response, &log).into()),
        Err(criu::Error::Died { .. }) => return Err(criu::explain::death(&log).into()),
        Err(err) => return Err(err.into()),
    };
    // What CRIU has let go stands still by now, or is about to.
    if chosen.paused {
        cgroups.freeze()?;
    }
    if container.record.pid != pid && pid > 0 {
        container.set_process(pid)?;
    }
    cgroups.apply(&resources)?;
    container.note_descriptors()?;
    container.save()?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, container.record.pid)?;
    }
    let list = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref());
    hooks::run("poststart", list, &container.record, Status::Running, None)
}

fn base_options(chosen: &Options, request: &Request<'_>, is_lazy: bool) -> rpc::Options {
    rpc::Options {
        log_level: Some(super::criu_log_level()),
        log_file: Some(LOG.into()),
        notify_scripts: Some(true),
        rst_sibling: Some(true),
        evasive_devices: Some(true),
        orphan_pts_master: Some(true),
        tcp_established: Some(chosen.tcp == Tcp::Established),
        tcp_close: Some(chosen.tcp == Tcp::Close),
        ext_unix_sk: Some(chosen.ext_unix_sk),
        shell_job: Some(chosen.shell_job),
        file_locks: Some(chosen.file_locks),
        link_remap: Some(chosen.link_remap),
        ghost_limit: Some(chosen.ghost_limit_bytes),
        lazy_pages: is_lazy.then_some(true),
        lsm_profile: request.lsm_profile.clone(),
        lsm_mount_context: request.lsm_mount_context.clone(),
        empty_ns: (request.empty_namespaces != 0).then_some(request.empty_namespaces),
        network_lock: Some(rpc::NetworkLock::Skip as i32),
        ..Default::default()
    }
}

/// Images that another runtime has made have no stored options: the configuration says what was outside.
fn foreign_options(mut options: Options, spec: &Spec, record: &crate::state::Record) -> Result<Options> {
    options.external_mounts = mounts::of(spec, record)?.into_keys().filter(|name| Path::new(name).exists()).collect();
    options.external_netns = Namespaces::of(spec).path(libc::CLONE_NEWNET).is_some();
    options.external_pidns = Namespaces::of(spec).path(libc::CLONE_NEWPID).is_some();
    Ok(options)
}

/// CRIU wants a root that is a mount of its own. It lies in a mount namespace that ends with this process, so that
/// nothing stays mounted whatever happens.
fn bind_root(container: &Container) -> Result<PathBuf> {
    sys::unshare(libc::CLONE_NEWNS).doing(|| "make a mount namespace".into())?;
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).doing(|| "make mounts private".into())?;
    let path = container.dir.join(CRIU_ROOT);
    let doing = || format!("bind the root file system to {}", path.display());
    fs::create_dir(&path).doing(doing)?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&container.record.rootfs), &path, None::<&str>, bind, None::<&str>).doing(doing)?;
    Ok(path)
}

/// Our standard streams become CRIU's, and take the place of the pipes that the checkpoint knows.
fn stdio(chosen: &Options, request: &Request<'_>, launch: &mut Launch<'_>, options: &mut rpc::Options) -> Result<()> {
    let text = read_small(request.image, DESCRIPTORS)?;
    let descriptors: Vec<String> = match text {
        Some(text) => serde_json::from_slice(&text).doing(|| format!("parse {DESCRIPTORS}"))?,
        None => Vec::new(),
    };
    let streams: [std::os::fd::BorrowedFd<'_>; 3] =
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for (slot, stream) in launch.stdio.iter_mut().zip(streams) {
        *slot = Some(stream.try_clone_to_owned().doing(|| "duplicate a standard stream".into())?);
    }
    let mut seen = HashMap::new();
    for (fd, name) in descriptors.iter().take(3).enumerate() {
        // One pipe may be two of them (stdout and stderr).
        if name.starts_with("pipe:") && seen.insert(name.clone(), fd).is_none() {
            options.inherit_fd.push(rpc::InheritFd { key: name.clone(), fd: fd as i32 });
        }
    }
    for (fd, name) in &chosen.external_files {
        options.inherit_fd.push(rpc::InheritFd { key: name.clone(), fd: *fd as i32 });
    }
    Ok(())
}

struct Listener<'a> {
    container: &'a mut Container,
    spec: &'a Spec,
    network: Option<network::Network>,
    console_socket: Option<OwnedFd>,
    /// The groups of a container that was paused, and CRIU's pid.
    frozen: Option<(&'a Cgroups, i32)>,
    failure: Option<Error>,
}

impl Notify for Listener<'_> {
    fn notify(&mut self, event: Event, pid: Option<i32>, master: Option<OwnedFd>) -> std::result::Result<(), String> {
        self.act(event, pid, master).map_err(|err| {
            let text = err.to_string();
            self.failure = Some(err);
            text
        })
    }
}

impl Listener<'_> {
    fn act(&mut self, event: Event, pid: Option<i32>, master: Option<OwnedFd>) -> Result<()> {
        match event {
            Event::SetupNamespaces => {
                let hooks = self.spec.hooks().as_ref();
                let mut record = self.container.record.clone();
                record.pid = pid.unwrap_or_default();
                #[allow(deprecated)]
                let prestart = hooks.and_then(|hooks| hooks.prestart().as_ref());
                hooks::run("prestart", prestart, &record, Status::Creating, None)?;
                let create_runtime = hooks.and_then(|hooks| hooks.create_runtime().as_ref());
                hooks::run("createRuntime", create_runtime, &record, Status::Creating, None)
            }
            Event::PostRestore => {
                let pid = pid.ok_or_else(|| Error::CannotRestore("criu named no pid".into()))?;
                self.container.set_process(pid)?;
                self.container.save()
            }
            Event::OrphanPtsMaster => match (master, &self.console_socket) {
                (Some(master), Some(socket)) => console::send_master(socket.as_fd(), master.as_fd(), "/dev/ptmx"),
                (Some(_), None) => Err(Error::CannotRestore(
                    "the container has a terminal, but there is no console socket to take it".into(),
                )),
                (None, _) => Err(Error::CannotRestore("criu sent no terminal".into())),
            },
            Event::PreResume => match self.frozen {
                // Every task still stands still; nothing of a paused container may run when CRIU lets go of it. CRIU
                // is in the group itself and must not freeze with it.
                Some((cgroups, criu)) => cgroups.begin_freeze_without(criu),
                None => Ok(()),
            },
            Event::NetworkUnlock => match &mut self.network {
                Some(network) => network.unlock(),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn write_stats(image: &Path, work: &Path, started: Instant, later_bytes: u64) {
    let measured = criu::stats::restore(work).or_else(|| criu::stats::restore(image)).unwrap_or_default();
    let stats = json!({
        "operation": "restore",
        "forking_us": measured.forking_time,
        "restore_us": measured.restore_time,
        "total_us": u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        "pages": measured.pages_restored,
        "later_bytes": later_bytes
    });
    // The images are not ours to write to; the work directory is.
    if let Err(err) = fs::write(work.join(STATS), stats.to_string()) {
        tracing::warn!("write {STATS}: {err}");
    }
}
