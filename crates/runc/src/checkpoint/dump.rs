//! Puts a container to sleep.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use criu::rpc;
use criu::{Event, Launch, Notify, Preload, Program, Session, Subject};
use libcontainer::oci_spec::runtime::Spec;
use serde_json::json;

use super::options::{self, Options, Tcp};
use super::shelf::Shelf;
use super::staging::Staging;
use super::watches::Watches;
use super::{DESCRIPTORS, LIMIT, OPTIONS, STATS, criu_log_level, inspect, mounts, network, open_dir, preflight, tmpfs};
use crate::cgroup::Cgroups;
use crate::error::{Doing, Error, Result};
use crate::launch::namespaces::Namespaces;
use crate::state::{Container, Status};

const LOG: &str = "dump.log";

/// A tree to pack while everything stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Becomes `<name>.tar`.
    pub name: String,
    /// The tree.
    pub path: PathBuf,
}

impl Capture {
    /// `name=path`, where the name cannot collide with CRIU's files or leave the directory.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::Invalid(format!("invalid capture {text:?}, it must be name=/path"));
        let (name, path) = text.split_once('=').ok_or_else(bad)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || !path.starts_with('/') {
            return Err(bad());
        }
        Ok(Capture { name: name.to_owned(), path: path.into() })
    }
}

/// `address:port`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageServer {
    address: String,
    port: u16,
}

impl PageServer {
    /// Splits it at the last colon.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::Invalid(format!("Use --page-server ADDRESS:PORT to specify the page server, not {text:?}"));
        let (address, port) = text.rsplit_once(':').ok_or_else(bad)?;
        match port.parse() {
            Ok(port) if port > 0 && !address.is_empty() => Ok(PageServer { address: address.to_owned(), port }),
            _ => Err(bad()),
        }
    }
}

/// What to do.
#[derive(Debug)]
pub struct Request<'a> {
    /// `--criu`
    pub criu: Option<&'a Path>,
    /// Where CRIU's kernel-feature cache lives.
    pub cache: Option<PathBuf>,
    /// Directory for the images.
    pub image: &'a Path,
    /// Directory for log and statistics.
    pub work: &'a Path,
    /// Let it run on.
    pub leave_running: bool,
    /// Only memory, for a later dump.
    pub pre_dump: bool,
    /// Images of an earlier pre-dump, relative to `image`.
    pub parent: Option<&'a Path>,
    /// Leave out connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Drop pages that are in the parent.
    pub auto_dedup: bool,
    /// Send memory to whoever asks for it here, instead of writing it.
    pub page_server: Option<PageServer>,
    /// Leave memory where it is until it is asked for.
    pub lazy_pages: bool,
    /// Told by a byte when the page server listens.
    pub status: Option<OwnedFd>,
    /// Bits of namespaces to leave empty.
    pub empty_namespaces: u32,
    /// The options, as given or as a start for looking.
    pub options: Options,
    /// Look at the container and choose.
    pub auto: bool,
    /// Trees to pack.
    pub captures: Vec<Capture>,
}

impl Request<'_> {
    /// Nobody has said what becomes of connections: they are kept, if there are any.
    fn chooses_tcp(&self, container: &Container) -> bool {
        self.auto && !container.record.annotations.contains_key(options::TCP_LABEL)
    }
}

/// Writes a checkpoint. A failure leaves the container as it was and no half-made images.
pub fn checkpoint(container: &Container, mut request: Request<'_>) -> Result<()> {
    let started = Instant::now();
    let status = container.status()?;
    match status {
        Status::Running | Status::Paused => (),
        Status::Created | Status::Creating => {
            return Err(Error::CannotCheckpoint("the container has not been started".into()));
        }
        Status::Stopped => return Err(Error::Conflict("cannot checkpoint a container that is not running".into())),
    }
    crate::lazy::wait_until_loaded(container)?;
    let program = Program::find(request.criu)?;
    let spec = container.spec()?;
    let network = NetworkNamespace::of(container, &spec);
    // It takes its time to come up; there is enough to look at meanwhile.
    let session = start_criu(&program, &request, &network)?;
    let mut findings = inspect::inspect(container)?;
    // CRIU would leave such a process behind in the cgroup and fail with words nobody understands, or lose it.
    inspect::refuse_foreign(&findings)?;
    if request.auto {
        if findings.established_tcp {
            request.options.tcp = Tcp::Established;
        }
        request.options.nested_cgroups = container.cgroups()?.has_children();
    }
    request.options.apply_annotations(&container.record.annotations)?;
    request.options.paused = status == Status::Paused;
    let watches = Watches::of(container.record.pid, &findings.pids);
    if request.auto && !request.pre_dump {
        if !request.tcp_skip_in_flight {
            inspect::await_connections(&mut findings);
        }
        if let Some(obstacle) = preflight::obstacle(container, &request.options, &findings, &watches)? {
            return Err(Error::CannotCheckpoint(obstacle));
        }
    }

    let staging = Staging::open(request.image)?;
    let dir = staging.dir();
    // The same with a shorter life.
    let mut request: Request<'_> = request;
    if request.work == request.image {
        request.work = &dir;
    }
    request.image = &dir;
    // Images of one dump only; a part of them that is elsewhere is found from where they belong.
    let at_once = request.leave_running && !request.pre_dump;
    let shelf = match at_once && request.parent.is_none() && request.page_server.is_none() {
        true => Shelf::for_memory_of(container),
        false => None,
    };
    let prepared = check_parent(&request)
        .and_then(|()| fs::create_dir_all(request.work).doing(|| format!("create {}", request.work.display())))
        .and_then(|()| match watches.found.is_empty() {
            true => Ok(()),
            false => Ok(criu::irmap::write(request.work, &watches.found)?),
        });
    let mut result =
        prepared.and_then(|()| dump(container, &spec, session, &network, &mut request, &staging, shelf.as_ref()));
    if result.is_err() && shelf.as_ref().is_some_and(Shelf::is_full) {
        tracing::debug!("the images did not fit into memory");
        drop(shelf);
        result = start_criu(&program, &request, &network)
            .and_then(|session| dump(container, &spec, session, &network, &mut request, &staging, None));
    }
    criu::irmap::remove(request.work);
    // CRIU was killed after it had begun to end the container: all there is of it is in the images.
    if let Err(err) = &result
        && !request.leave_running
        && !request.pre_dump
        && request.image.join(OPTIONS).exists()
        && ends(container.record.pid)
    {
        tracing::warn!("{err}; the container has ended and nothing is missing from its images");
        mend_timers(request.image);
        write_stats(&request, started.elapsed().as_micros());
        result = Ok(());
    }
    match &result {
        Ok(()) => staging.keep(),
        Err(_) => {
            // Whoever looks for more than the message finds CRIU's log with the container's state.
            let _ = fs::copy(request.work.join(LOG), container.dir.join(LOG));
            staging.undo(LOG);
            // Whoever was frozen by us or by CRIU goes on, unless the user froze it.
            if status == Status::Running
                && let Err(err) = container.cgroups().and_then(|cgroups| cgroups.thaw())
            {
                tracing::error!("{err}");
            }
        }
    }
    result
}

/// Whether a process ends within a moment, as one does that was sent SIGKILL.
fn ends(pid: i32) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    const MOMENT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    let Some(pid) = Pid::from_raw(pid) else { return true };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&MOMENT)).is_ok_and(|ready| ready > 0),
        Err(errno) => errno == rustix::io::Errno::SRCH,
    }
}

/// What becomes of the network namespace.
struct NetworkNamespace {
    /// It is not the host's.
    own: bool,
    /// It is handed over from outside at restore, and stays out of the images.
    outside: bool,
    /// There is nothing in it but loopback.
    only_loopback: bool,
}

impl NetworkNamespace {
    fn of(container: &Container, spec: &Spec) -> Self {
        let namespaces = Namespaces::of(spec);
        let named = namespaces.path(libc::CLONE_NEWNET).is_some();
        let own = namespaces.has_new(libc::CLONE_NEWNET) || named;
        let only_loopback = own && inspect::only_loopback(container.record.pid);
        // With loopback only there is nothing in it that could not be made again in no time.
        NetworkNamespace { own, outside: named || only_loopback, only_loopback }
    }
}

fn start_criu(program: &Program, request: &Request<'_>, network: &NetworkNamespace) -> Result<Session> {
    let mut launch = Launch::new(&program.path);
    launch.cache = request.cache.clone();
    launch.preload = Some(if network.outside { Preload::WithoutConnectionTracking } else { Preload::Refused });
    Ok(Session::start(launch)?)
}

/// Pages that are in the parent are not written again: without it the checkpoint would be worth nothing.
fn check_parent(request: &Request<'_>) -> Result<()> {
    let Some(parent) = request.parent else { return Ok(()) };
    let path = request.image.join(parent);
    if parent.is_absolute() || !path.is_dir() {
        return Err(Error::Invalid(format!(
            "invalid --parent-path {}: it must be a directory, given relative to the image path",
            parent.display()
        )));
    }
    Ok(())
}

fn dump(
    container: &Container,
    spec: &Spec,
    mut session: Session,
    namespace: &NetworkNamespace,
    request: &mut Request<'_>,
    staging: &Staging,
    shelf: Option<&Shelf>,
) -> Result<()> {
    let started = Instant::now();
    let pid = container.record.pid;
    let target = shelf.map_or_else(|| request.image.to_owned(), Shelf::path);
    let image = open_dir(&target)?;
    let work = open_dir(request.work)?;
    let cgroups = container.cgroups()?;

    let mut options = base_options(&image, &work, request);
    // One that is made between our look and the moment when everything stands still is no reason to fail.
    options.tcp_established = Some(request.options.tcp != Tcp::None || request.chooses_tcp(container));
    options.pid = Some(pid);
    options.config_file = super::criu_configuration(&container.record.annotations);
    options.root = Some(container.record.rootfs.to_string_lossy().into_owned());
    if request.options.paused {
        // Frozen tasks cannot be stopped by tracing: CRIU must know the freezer, and puts it back as it was.
        options.freeze_cgroup = cgroups.freezer().map(|freezer| freezer.dir().to_string_lossy().into_owned());
    }
    // Otherwise tracing alone stops the tasks: CRIU looks at the freezer only every 100 ms, and a killed CRIU leaves
    // nothing frozen behind.
    cgroup_options(&mut options, &request.options, &cgroups);

    let external = mounts::present(pid, mounts::of(spec, &container.record)?)?;
    request.options.external_mounts = external.keys().cloned().collect();
    options.external.extend(external.keys().map(|name| format!("mnt[{name}]:{name}")));

    // Without `auto` the images are such that another runtime can restore them.
    let tmpfs = match request.auto && !request.pre_dump {
        true => tmpfs::Trees::open(pid, spec, &container.record, &external)?,
        false => tmpfs::Trees::default(),
    };
    options.external.extend(tmpfs.names().map(|name| format!("mnt[{name}]:{name}")));
    request.options.own_tmpfs = tmpfs.names().map(str::to_owned).collect();

    if namespace.outside {
        let inode = inspect::namespace_inode(pid, "net")?;
        options.external.push(format!("net[{inode}]:{}", super::restore::NETWORK_KEY));
        request.options.external_netns = true;
    }
    if Namespaces::of(spec).path(libc::CLONE_NEWPID).is_some() {
        let inode = inspect::namespace_inode(pid, "pid")?;
        options.external.push(format!("pid[{inode}]:{}", super::restore::PID_KEY));
        request.options.external_pidns = true;
    }
    request.options.external_files.clear();
    external_files(container, request, &mut options);

    let network = match namespace.own {
        true => Some(network::Network::open(Path::new(&format!("/proc/{pid}/ns/net")))?),
        false => None,
    };

    // CRIU opens it again through our /proc directory.
    let status = request.status.take();
    options.status_fd = status.as_ref().map(AsRawFd::as_raw_fd);
    let mut listener =
        Listener { container, request, target, staging, tmpfs, network, has_connections: false, failure: None };
    let kind = if listener.request.pre_dump { rpc::RequestType::PreDump } else { rpc::RequestType::Dump };
    let call = rpc::Request { kind: kind as i32, opts: Some(options), ..Default::default() };
    let pids = || container.cgroups().and_then(|cgroups| cgroups.pids()).unwrap_or_default();
    let subject = Subject { init: pid, pids: &pids };
    let result = session.call_about(&call, &mut listener, LIMIT, Some(&subject));
    session.end();
    drop(status);
    let log = listener.request.work.join(LOG);
    let failure = listener.failure.take();
    let outcome = match (result, failure) {
        (_, Some(err)) => Err(err),
        (Ok(response), None) if response.success => Ok(()),
        (Ok(response), None) => Err(criu::explain::failure(&response, &log).into()),
        (Err(criu::Error::Died { .. }), None) => Err(criu::explain::death(&log).into()),
        (Err(err), None) => Err(err.into()),
    };
    if let Some(network) = &mut listener.network {
        match outcome.is_err() || request.leave_running || request.pre_dump || namespace.only_loopback {
            true => network.unlock()?,
            // Its peers must not hear that nobody is there. It sleeps, with or without that.
            false => {
                if let Err(err) = network.hold() {
                    tracing::warn!("{err}");
                }
            }
        }
    }
    outcome?;
    if let Some(shelf) = shelf {
        shelf.clear_into(request.image)?;
        staging.place()?;
    }
    if !request.leave_running && !request.pre_dump {
        // CRIU has killed everything; what was paused by the user must be thawed to die.
        cgroups.thaw()?;
    }
    mend_timers(request.image);
    write_stats(request, started.elapsed().as_micros());
    Ok(())
}

/// The container has ended, or goes on: a failure here is none of the dump's.
fn mend_timers(image: &Path) {
    match criu::timerfd::mend(image) {
        Ok(0) => (),
        Ok(count) => tracing::debug!("{count} timers would have stood still"),
        Err(err) => tracing::warn!("timers that have gone off will stand still: {err}"),
    }
}

fn base_options(image: &OwnedFd, work: &OwnedFd, request: &Request<'_>) -> rpc::Options {
    let chosen = &request.options;
    rpc::Options {
        images_dir_fd: image.as_raw_fd(),
        work_dir_fd: Some(work.as_raw_fd()),
        log_level: Some(criu_log_level()),
        log_file: Some(LOG.into()),
        notify_scripts: Some(true),
        orphan_pts_master: Some(true),
        leave_running: Some(request.leave_running),
        tcp_skip_in_flight: Some(request.tcp_skip_in_flight),
        ext_unix_sk: Some(chosen.ext_unix_sk),
        shell_job: Some(chosen.shell_job),
        file_locks: Some(chosen.file_locks),
        link_remap: Some(chosen.link_remap),
        ghost_limit: Some(chosen.ghost_limit_bytes),
        auto_dedup: Some(request.auto_dedup),
        lazy_pages: request.lazy_pages.then_some(true),
        ps: request
            .page_server
            .as_ref()
            .map(|server| rpc::PageServer { address: Some(server.address.clone()), port: Some(server.port.into()) }),
        track_mem: (request.pre_dump || request.parent.is_some()).then_some(true),
        parent_img: request.parent.map(|parent| parent.to_string_lossy().into_owned()),
        empty_ns: (request.empty_namespaces != 0).then_some(request.empty_namespaces),
        network_lock: Some(rpc::NetworkLock::Skip as i32),
        ..Default::default()
    }
}

/// Cgroups are ours, unless something inside has made groups of its own.
pub(super) fn cgroup_options(options: &mut rpc::Options, chosen: &Options, cgroups: &Cgroups) {
    options.manage_cgroups = Some(true);
    if chosen.nested_cgroups {
        options.manage_cgroups_mode = Some(rpc::CgroupMode::Soft as i32);
        let path = cgroups.path().to_string_lossy().into_owned();
        options.cg_root = vec![rpc::CgroupRoot { ctrl: None, path }];
    } else {
        options.manage_cgroups_mode = Some(rpc::CgroupMode::Ignore as i32);
    }
}

/// Standard streams that are files outside of the container's mounts.
fn external_files(container: &Container, request: &mut Request<'_>, options: &mut rpc::Options) {
    let pid = container.record.pid;
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let mounted: HashSet<&str> = table.lines().filter_map(|line| line.split(' ').next()).collect();
    for (fd, target) in container.record.descriptors.iter().enumerate() {
        let fd = fd as u32;
        if !target.starts_with('/') {
            continue;
        }
        let path = format!("/proc/{pid}/fd/{fd}");
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim).unwrap_or_default();
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let plain = metadata.is_file() || metadata.file_type().is_fifo();
        if !plain || mounted.contains(mount) {
            continue;
        }
        let Ok(mount) = mount.parse::<u64>() else { continue };
        let key = format!("file[{mount:x}:{:x}]", metadata.ino());
        options.external.push(key.clone());
        request.options.external_files.push((fd, key));
    }
}

struct Listener<'a, 'b> {
    container: &'a Container,
    request: &'a Request<'b>,
    /// Where the images are put.
    target: PathBuf,
    staging: &'a Staging,
    tmpfs: tmpfs::Trees,
    /// The container's own, whose traffic is blocked while it has connections and stands still.
    network: Option<network::Network>,
    has_connections: bool,
    failure: Option<Error>,
}

impl Notify for Listener<'_, '_> {
    fn notify(&mut self, event: Event, _pid: Option<i32>, _fd: Option<OwnedFd>) -> std::result::Result<(), String> {
        let done = match event {
            Event::NetworkLock => self.stop_traffic(),
            Event::NetworkUnlock => self.network.as_mut().map_or(Ok(()), network::Network::unlock),
            Event::PostDump if !self.request.pre_dump => self.complete(),
            _ => return Ok(()),
        };
        done.map_err(|err| {
            let text = err.to_string();
            self.failure = Some(err);
            text
        })
    }
}

impl Listener<'_, '_> {
    /// Everything stands still, so that what is there now is what there will be in the images. On the host's network CRIU
    /// does not call at this moment.
    fn stop_traffic(&mut self) -> Result<()> {
        match &mut self.network {
            Some(network) if inspect::has_connections(self.container.cgroups()?.pids()?) => {
                self.has_connections = true;
                network.lock()
            }
            _ => Ok(()),
        }
    }

    /// There the traffic is not blocked, and at the wake CRIU would send before there is anybody to take it.
    fn look_at_the_hosts_network(&mut self) -> Result<()> {
        let pids = self.container.cgroups()?.pids()?;
        if inspect::has_unsent(&pids) {
            let why = "a connection on the host's network has data that was not sent yet; try again";
            return Err(Error::CannotCheckpoint(why.into()));
        }
        self.has_connections = inspect::has_connections(pids);
        Ok(())
    }

    /// Everything stands still: now, and only now, the rest of the checkpoint can be taken. Nothing is synced here: who
    /// wants the checkpoint to outlive the host's power does that when the container goes on.
    fn complete(&mut self) -> Result<()> {
        if self.network.is_none() {
            self.look_at_the_hosts_network()?;
        }
        let image = self.target.as_path();
        self.tmpfs.pack(image)?;
        for capture in &self.request.captures {
            pack(capture, &image.join(format!("{}.tar", capture.name)))?;
        }
        let descriptors = serde_json::to_vec(&self.container.record.descriptors).doing(|| "encode".into())?;
        let write = |name, text: &[u8]| fs::write(image.join(name), text).doing(|| format!("write {name}"));
        write(DESCRIPTORS, &descriptors)?;
        // What was paused wakes paused under an engine that knows of it; with runc it runs, and containerd, which pauses what
        // it puts to sleep, counts on that.
        let mut options = self.request.options.clone();
        options.paused &= self.request.auto;
        if self.request.chooses_tcp(self.container) {
            options.tcp = if self.has_connections { Tcp::Established } else { Tcp::None };
        }
        write(OPTIONS, &options.encode()?)?;
        // From a shelf it has to be moved first.
        match self.target == *self.request.image {
            true => self.staging.place(),
            false => Ok(()),
        }
    }
}

fn pack(capture: &Capture, target: &Path) -> Result<()> {
    let failed = |err: archive::Error| Error::CannotCheckpoint(format!("capture of {}: {err}", capture.path.display()));
    let file = fs::File::create(target).doing(|| format!("create {}", target.display()))?;
    let mut tar = archive::TarWriter::new(std::io::BufWriter::with_capacity(1 << 20, file));
    let options = archive::PackOptions {
        whiteouts: archive::Whiteouts::Raw,
        root_entry: true,
        nanoseconds: true,
        ..archive::PackOptions::default()
    };
    archive::pack(&capture.path, &mut tar, &options).map_err(failed)?;
    let buffered = tar.finish().map_err(failed)?;
    let written = buffered.into_inner().map_err(std::io::IntoInnerError::into_error);
    written.map(|_| ()).doing(|| format!("write {}", target.display()))
}

fn write_stats(request: &Request<'_>, total_us: u128) {
    let measured = criu::stats::dump(request.work).or_else(|| criu::stats::dump(request.image)).unwrap_or_default();
    let bytes: u64 = fs::read_dir(request.image)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum();
    let stats = json!({
        "operation": "checkpoint",
        "freezing_us": measured.freezing_time,
        "frozen_us": measured.frozen_time,
        "total_us": u64::try_from(total_us).unwrap_or(u64::MAX),
        "bytes": bytes,
        "pages": measured.pages_written
    });
    // The checkpoint is whole without it.
    if let Err(err) = fs::write(request.image.join(STATS), stats.to_string()) {
        tracing::warn!("write {STATS}: {err}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_by_address_and_port() {
        let server = PageServer::parse("::1:27277").unwrap();
        assert_eq!(server, PageServer { address: "::1".into(), port: 27277 });
        for text in ["", "host", "host:", ":1", "host:0", "host:65536"] {
            assert!(PageServer::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn captures_by_name_and_path() {
        let capture = Capture::parse("rootfs=/var/lib/x/diff").unwrap();
        assert_eq!(capture, Capture { name: "rootfs".into(), path: "/var/lib/x/diff".into() });
        for text in ["", "x", "x=relative", "../x=/a", "a/b=/a", "=/a", "a.img=/a"] {
            assert!(Capture::parse(text).is_err(), "{text}");
        }
    }
}
