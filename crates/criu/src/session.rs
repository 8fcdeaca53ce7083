//! One `criu swrk`: started, asked, answered, waited for.
//!
//! - Our end of the socket pair is close-on-exec: if this process dies, CRIU sees the end of the stream, undoes what it
//!   was doing and lets the tasks go on.
//! - CRIU gets its end, its standard streams and the descriptors named in [`Launch::inherit`], and nothing else.
//! - Whatever happens, the child is reaped. Its end is seen as such: CRIU's own children have its end of the socket, too,
//!   and may outlive it when it is killed. Those of a dump go with it.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Error, Result, io};
use crate::{preload, program, rpc, sys};

/// CRIU's cache of what the kernel can do; it is only used on a tmpfs.
pub(crate) const KDAT: &str = "criu.kdat";
/// No message of CRIU's is longer.
const MAX_PACKET: usize = 1 << 20;

/// What CRIU tells while it works, in the order of `criu/action-scripts.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Dump: before anything is stopped.
    PreDump,
    /// Dump: everything is written and every task is still stopped. A failure here lets them go on.
    PostDump,
    /// Restore: before anything is made.
    PreRestore,
    /// Restore: everything is there and stopped. A failure here kills it.
    PostRestore,
    /// Dump and restore: traffic must be blocked now.
    NetworkLock,
    /// Traffic may flow again.
    NetworkUnlock,
    /// Restore: the namespaces are made.
    SetupNamespaces,
    /// Restore: the namespaces are filled.
    PostSetupNamespaces,
    /// Restore: about to run. A failure is only logged by CRIU.
    PreResume,
    /// Restore: runs. A failure is only logged by CRIU.
    PostResume,
    /// Restore: a terminal whose master was outside; comes with its new master.
    OrphanPtsMaster,
    /// Dump: the last chance to name external files.
    QueryExtFiles,
    /// Lazy pages: the page server listens.
    StatusReady,
}

impl Event {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "pre-dump" => Event::PreDump,
            "post-dump" => Event::PostDump,
            "pre-restore" => Event::PreRestore,
            "post-restore" => Event::PostRestore,
            "network-lock" => Event::NetworkLock,
            "network-unlock" => Event::NetworkUnlock,
            "setup-namespaces" => Event::SetupNamespaces,
            "post-setup-namespaces" => Event::PostSetupNamespaces,
            "pre-resume" => Event::PreResume,
            "post-resume" => Event::PostResume,
            "orphan-pts-master" => Event::OrphanPtsMaster,
            "query-ext-files" => Event::QueryExtFiles,
            "status-ready" => Event::StatusReady,
            _ => return None,
        })
    }
}

/// Answers notifications.
pub trait Notify {
    /// Acts on an event. `pid` is that of the root task where CRIU gives it; `master` comes with
    /// [`Event::OrphanPtsMaster`]. An error is given back to CRIU as a failure.
    fn notify(&mut self, event: Event, pid: Option<i32>, master: Option<OwnedFd>) -> std::result::Result<(), String>;
}

/// The processes that are being dumped.
pub struct Subject<'a> {
    /// The first of them.
    pub init: i32,
    /// All that there are now.
    pub pids: &'a dyn Fn() -> Vec<i32>,
}

/// What tells that the first process of a pid namespace is killed while CRIU has stopped it. It waits for its children to
/// be reaped then, which only CRIU can do, and CRIU waits for it: both for ever, if nobody ends CRIU.
#[derive(Debug, Default)]
struct Watch {
    init: i32,
    /// Of all processes, once they stand still: none ends by itself then.
    pidfds: Vec<OwnedFd>,
}

impl Watch {
    fn over(subject: &Subject<'_>) -> Self {
        let open = |pid: i32| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
        Watch { init: subject.init, pidfds: (subject.pids)().into_iter().filter_map(open).collect() }
    }

    /// The first process has begun to end.
    fn is_over(&self) -> bool {
        const PF_EXITING: u64 = 4;
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.init)) else { return true };
        // After the name, which may hold anything: state, four numbers, the terminal, its group, the flags.
        let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u64>().ok());
        flags.is_some_and(|flags| flags & PF_EXITING != 0)
    }
}

/// Nobody listens.
impl Notify for () {
    fn notify(&mut self, _: Event, _: Option<i32>, _: Option<OwnedFd>) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// What the library that is loaded into CRIU for a dump answers in the kernel's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preload {
    /// What the kernel refuses to answer.
    Refused,
    /// That, and that the network namespaces track no connections. CRIU asks although a namespace that is handed over
    /// from outside keeps what it has, and the kernel looks for the answer in the table of all namespaces, which may take
    /// tens of milliseconds while everything stands still.
    WithoutConnectionTracking,
}

/// How to start CRIU.
#[derive(Debug)]
pub struct Launch<'a> {
    program: &'a Path,
    /// Its standard streams; `/dev/null` where there is none. What is restored inherits through them.
    pub stdio: [Option<OwnedFd>; 3],
    /// Further descriptors, which keep their numbers.
    pub inherit: Vec<OwnedFd>,
    /// Where the kernel-feature cache is kept between calls when `/run` is no tmpfs.
    pub cache: Option<PathBuf>,
    /// For a dump: load the library that answers for the kernel.
    pub preload: Option<Preload>,
}

impl<'a> Launch<'a> {
    /// Without streams, descriptors or cache.
    pub fn new(program: &'a Path) -> Self {
        Launch { program, stdio: [None, None, None], inherit: Vec::new(), cache: None, preload: None }
    }
}

/// A running `criu swrk`.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    child: Child,
    /// Tells of the child's end.
    pidfd: OwnedFd,
    /// The child leads a process group, which its own children are in.
    leads: bool,
    watch: Watch,
    reaped: bool,
    cache: Option<Cache>,
}

/// A tmpfs for CRIU's `/run`, and the file that its cache comes from and goes to.
#[derive(Debug)]
struct Cache {
    run: OwnedFd,
    file: PathBuf,
    was_there: bool,
}

impl Session {
    /// Starts it.
    pub fn start(launch: Launch<'_>) -> Result<Self> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| io("make a socket pair")(errno.into()))?;
        let cache = match launch.cache {
            Some(file) if !on_tmpfs("/run") => Cache::prepare(file),
            _ => None,
        };
        let preload = launch.preload.map(|_| preload::open()).transpose()?;
        let library = preload.as_ref().map(|library| format!("/proc/self/fd/{}", library.as_raw_fd()));
        let mut command = program::command(launch.program, library.as_deref());
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        let [stdin, stdout, stderr] = launch.stdio.map(|fd| fd.map_or_else(Stdio::null, Stdio::from));
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        if launch.preload == Some(Preload::WithoutConnectionTracking) {
            command.env(preload::WITHOUT_CONNECTION_TRACKING, "1");
        }
        let keep = launch.inherit.iter().chain([&theirs]).chain(&preload).map(AsRawFd::as_raw_fd).collect();
        let run = cache.as_ref().map(|cache| cache.run.as_raw_fd());
        sys::before_exec(&mut command, keep, run);
        // What is restored may have its first group from CRIU; what is dumped has nothing from it.
        let leads = launch.preload.is_some();
        if leads {
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(io(format!("start {}", launch.program.display())))?;
        let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io("watch criu")(errno.into()));
            }
        };
        Ok(Session { socket: ours, child, pidfd, leads, watch: Watch::default(), reaped: false, cache })
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Asks once and answers notifications until CRIU has answered. The answer may say that it failed: see
    /// [`crate::explain::failure`].
    pub fn call(&mut self, request: &rpc::Request, notify: &mut dyn Notify, limit: Duration) -> Result<rpc::Response> {
        self.call_about(request, notify, limit, None)
    }

    /// The same for a dump, which is given up when what is dumped is killed meanwhile.
    pub fn call_about(
        &mut self,
        request: &rpc::Request,
        notify: &mut dyn Notify,
        limit: Duration,
        subject: Option<&Subject<'_>>,
    ) -> Result<rpc::Response> {
        let deadline = Instant::now() + limit;
        self.send(request)?;
        loop {
            let (response, master) = match self.receive(deadline) {
                Ok(Some(received)) => received,
                Ok(None) => {
                    self.reap();
                    return Err(Error::Died { detail: None });
                }
                Err(WaitError::Deadline) => {
                    self.kill();
                    return Err(Error::Deadline(limit));
                }
                Err(WaitError::Other(err)) => {
                    self.kill();
                    return Err(err);
                }
            };
            if response.kind != rpc::RequestType::Notify as i32 {
                return Ok(response);
            }
            let notification = response.notify.unwrap_or_default();
            let name = notification.script.unwrap_or_default();
            let event = Event::named(&name);
            match (event, subject) {
                // Everything stands still now.
                (Some(Event::NetworkLock), Some(subject)) => self.watch = Watch::over(subject),
                // Everything is let go, or ended by CRIU.
                (Some(Event::PostDump), _) => self.watch = Watch::default(),
                _ => (),
            }
            let result = match event {
                Some(event) => notify.notify(event, notification.pid, master),
                // A newer CRIU may tell more than we know.
                None => Ok(()),
            };
            if let Err(reason) = &result {
                tracing::error!("{name}: {reason}");
            }
            self.send(&rpc::Request {
                kind: rpc::RequestType::Notify as i32,
                notify_success: Some(result.is_ok()),
                ..Default::default()
            })?;
        }
    }

    fn send(&self, request: &rpc::Request) -> Result<()> {
        let packet = request.encode_to_vec();
        match rustix::net::send(&self.socket, &packet, SendFlags::NOSIGNAL) {
            Ok(length) if length == packet.len() => Ok(()),
            Ok(_) => Err(Error::Protocol("a request was cut".into())),
            // It has gone; reading says so.
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(io("send to criu")(errno.into())),
        }
    }

    fn receive(
        &mut self,
        deadline: Instant,
    ) -> std::result::Result<Option<(rpc::Response, Option<OwnedFd>)>, WaitError> {
        if !self.wait_readable(deadline)? {
            return Ok(None);
        }
        let mut packet = vec![0u8; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut packet)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let length = match received {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(WaitError::Other(io("receive from criu")(errno.into()))),
        };
        let mut master = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // Further ones are closed as they are dropped.
                descriptors.for_each(|fd| {
                    master.get_or_insert(fd);
                });
            }
        }
        let response = rpc::Response::decode(&packet[..length])
            .map_err(|err| WaitError::Other(Error::Protocol(err.to_string())))?;
        Ok(Some((response, master)))
    }

    /// False when CRIU has ended and has left nothing to read.
    fn wait_readable(&mut self, deadline: Instant) -> std::result::Result<bool, WaitError> {
        loop {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Err(WaitError::Deadline) };
            let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let fds = [&self.socket, &self.pidfd].into_iter().chain(&self.watch.pidfds);
            let mut watched: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            match poll(&mut watched, Some(&limit)) {
                Ok(0) => return Err(WaitError::Deadline),
                Ok(_) if !watched[0].revents().is_empty() => return Ok(true),
                Ok(_) if watched[1].revents().is_empty() => {
                    // Somebody of the dumped has ended.
                    if self.watch.is_over() {
                        return Err(WaitError::Other(Error::Killed));
                    }
                    let alive: Vec<bool> = watched[2..].iter().map(|fd| fd.revents().is_empty()).collect();
                    let mut alive = alive.into_iter();
                    self.watch.pidfds.retain(|_| alive.next().unwrap_or(false));
                }
                Ok(_) => {
                    // Its last word may have come between the look at the socket and that at its end.
                    let mut last = [PollFd::new(&self.socket, PollFlags::IN)];
                    return Ok(poll(&mut last, Some(&Timespec::default())).is_ok_and(|ready| ready > 0));
                }
                Err(rustix::io::Errno::INTR) => (),
                Err(errno) => return Err(WaitError::Other(io("wait for criu")(errno.into()))),
            }
        }
    }

    /// Tells CRIU that there is nothing more, and waits until it has ended.
    pub fn end(mut self) {
        self.reap();
    }

    fn reap(&mut self) {
        if std::mem::replace(&mut self.reaped, true) {
            return;
        }
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        while poll(&mut ended, None) == Err(rustix::io::Errno::INTR) {}
        if self.leads {
            // Before it is reaped, so that its number is still nobody else's. Without it they would stay for ever.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
        if let Some(cache) = self.cache.take() {
            cache.keep();
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        self.reap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.reaped {
            // Its end of the stream closes with ours, which makes CRIU give up in good order; only waiting is left.
            self.reap();
        }
    }
}

enum WaitError {
    Deadline,
    Other(Error),
}

fn on_tmpfs(path: &str) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == TMPFS_MAGIC)
}

impl Cache {
    /// `None` where the kernel cannot do it: CRIU then works without a cache, which only takes longer.
    fn prepare(file: PathBuf) -> Option<Self> {
        let make = || -> rustix::io::Result<OwnedFd> {
            let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "0755")?;
            rustix::mount::fsconfig_create(context.as_fd())?;
            rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        let run = make().inspect_err(|err| tracing::debug!("no private /run for criu: {err}")).ok()?;
        let mut was_there = false;
        if let Ok(text) = std::fs::read(&file)
            && let Ok(fd) = rustix::fs::openat(
                &run,
                KDAT,
                OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o600),
            )
        {
            was_there = File::from(fd).write_all(&text).is_ok();
        }
        Some(Cache { run, file, was_there })
    }

    /// Keeps what CRIU found out, for the next time.
    fn keep(self) {
        if self.was_there {
            return;
        }
        let Ok(fd) = rustix::fs::openat(&self.run, KDAT, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        let mut text = Vec::new();
        if File::from(fd).take(1 << 20).read_to_end(&mut text).is_err() || text.is_empty() {
            return;
        }
        let temporary = self.file.with_extension(format!("{}.tmp", std::process::id()));
        let written = std::fs::write(&temporary, &text).and_then(|()| std::fs::rename(&temporary, &self.file));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
    }
}
