//! Looks at a running container and says what a checkpoint of it would run into, touching nothing.
//!
//! What CRIU cannot dump is looked for where the kernel shows it: descriptors, sockets, mapped devices, tracers, mounts. What
//! is not known to stand in the way is not named; a checkpoint may still fail for it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use serde::Serialize;

use super::inspect::{self, Findings};
use super::options::{Options, Tcp};
use super::watches::Watches;
use super::{mounts, network, unix_peers, waits};
use crate::error::Result;
use crate::launch::namespaces::Namespaces;
use crate::state::{Container, Status};

/// No more than so many are told of one kind: a thousand threads with io_uring are one obstacle.
const MOST_OF_A_KIND: usize = 5;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What stands in the way.
    pub obstacles: Vec<Finding>,
    /// What works, but should be known.
    pub warnings: Vec<Finding>,
    /// What would be chosen.
    pub options: Option<Options>,
}

/// One thing that was found.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// A stable word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// What to do.
    pub advice: &'static str,
    /// The process, as the host numbers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

impl Report {
    fn obstacle(&mut self, code: &'static str, pid: Option<i32>, message: String, advice: &'static str) {
        if self.obstacles.iter().filter(|finding| finding.code == code).count() < MOST_OF_A_KIND {
            self.obstacles.push(Finding { code, message, advice, pid });
        }
    }
}

/// Looks.
pub fn look(container: &Container, criu: Option<&Path>) -> Result<Report> {
    let mut report = Report::default();
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        let message = format!("the container is {status}");
        report.obstacle("not-running", None, message, "start it first");
        return Ok(report);
    }
    if let Err(err) = criu::program::check(criu) {
        report.obstacle("criu", None, err.to_string(), "run scripts/install-criu, or install CRIU 4 or newer");
    }
    let mut options = Options::automatic();
    let mut findings = inspect::inspect(container)?;
    if findings.established_tcp {
        options.tcp = Tcp::Established;
    }
    options.nested_cgroups = container.cgroups()?.has_children();
    options.paused = status == Status::Paused;
    options.apply_annotations(&container.record.annotations)?;
    inspect::await_connections(&mut findings);
    for (pid, name) in &findings.foreign {
        let message = format!("{name} (pid {pid}) was started in the container from outside");
        report.obstacle("foreign-process", Some(*pid), message, "wait for its end, or end it");
    }
    let watches = Watches::of(container.record.pid, &findings.pids);
    look_at_what_is_there(&mut report, container, &options, &findings, &watches)?;
    report.options = Some(options);
    Ok(report)
}

/// The first thing that stands in the way, in a sentence; for who is about to make a checkpoint.
pub fn obstacle(
    container: &Container,
    options: &Options,
    findings: &Findings,
    watches: &Watches,
) -> Result<Option<String>> {
    let mut report = Report::default();
    look_at_what_is_there(&mut report, container, options, findings, watches)?;
    Ok(report.obstacles.into_iter().next().map(|found| format!("{}; {}", found.message, found.advice)))
}

fn look_at_what_is_there(
    report: &mut Report,
    container: &Container,
    options: &Options,
    findings: &Findings,
    watches: &Watches,
) -> Result<()> {
    let init = container.record.pid;
    if findings.established_tcp && options.tcp == Tcp::None {
        report.obstacle(
            "tcp-established",
            None,
            "the container has established TCP connections, and its label says that there must be none".into(),
            "set the label dormouse.checkpoint.tcp to established or close, or close the connections",
        );
    }
    if findings.tcp_backlog {
        let message = "somebody has connected by TCP to a program that does not accept the connection".to_owned();
        report.obstacle("tcp-backlog", None, message, "try again when the program has accepted it");
    }
    if findings.tcp_connecting {
        let message = "a TCP connection is just being made".to_owned();
        report.obstacle("tcp-connecting", None, message, "try again");
    }
    for (pid, inode) in &watches.lost {
        let message = format!(
            "{} (pid {pid}) watches a file (inode {inode}, by inotify) that is deleted or cannot be found",
            inspect::command(*pid)
        );
        report.obstacle("watch", Some(*pid), message, "end the watch");
    }
    for (pid, call) in waits::for_a_child(&findings.pids) {
        let message = format!(
            "{} (pid {pid}) waits in the kernel ({call}) for a child that has not become a program of its own yet",
            inspect::command(pid)
        );
        report.obstacle("vfork", Some(pid), message, "try again, or end the child");
    }
    let peers = network::Network::open(Path::new(&format!("/proc/{init}/ns/net")))
        .and_then(|network| network.within(unix_peers::all));
    let sockets = Sockets { findings, peers: peers.ok().and_then(std::io::Result::ok).unwrap_or_default() };
    for pid in &findings.pids {
        look_at_namespaces(report, init, *pid);
        look_at_process(report, options, &sockets, *pid);
    }
    look_at_message_queues(report, init);
    look_at_mounts(report, container)
}

/// What is known of sockets beforehand.
struct Sockets<'a> {
    findings: &'a Findings,
    /// Of each connected unix socket the other end.
    peers: HashMap<u64, u64>,
}

/// Mounts and networks may be a process's own; of the rest CRIU makes one for all.
fn look_at_namespaces(report: &mut Report, init: i32, pid: i32) {
    const ONE_FOR_ALL: [&str; 5] = ["user", "pid", "ipc", "uts", "time"];
    let inode = |pid, kind| inspect::namespace_inode(pid, kind).ok();
    let own = ONE_FOR_ALL.into_iter().find(|kind| inode(pid, kind).is_some_and(|own| Some(own) != inode(init, kind)));
    if let Some(kind) = own {
        let message = format!("{} (pid {pid}) has made a namespace of its own ({kind})", inspect::command(pid));
        report.obstacle("namespace", Some(pid), message, "end it");
    }
}

/// A process that ends meanwhile is no obstacle: everything that cannot be read any more is passed over.
fn look_at_process(report: &mut Report, options: &Options, sockets: &Sockets<'_>, pid: i32) {
    let name = || inspect::command(pid);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).map(str::trim);
    if let Some(tracer) = tracer.filter(|tracer| *tracer != "0") {
        let message = format!("{} (pid {pid}) is being traced by process {tracer}", name());
        report.obstacle("traced", Some(pid), message, "end the debugger");
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let devices = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, rest)| format!("/{rest}"));
    if let Some(device) = devices.into_iter().find(|path| is_gpu(path)) {
        gpu(report, pid, &device);
    }
    let pidfd = Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        if let Some(kind) = target.strip_prefix("anon_inode:") {
            look_at_anonymous(report, pid, kind.trim_matches(['[', ']']));
        } else if let Some(inode) = target.strip_prefix("socket:[") {
            let number = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
            let inode = inode.trim_end_matches(']').parse().unwrap_or(0);
            if let Some(pidfd) = &pidfd
                && let Ok(socket) = rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())
            {
                look_at_socket(report, sockets, pid, &socket, inode);
            }
        } else if target.starts_with("pipe:") {
            look_at_pipe(report, pid, &entry.file_name().to_string_lossy());
        } else if target.starts_with('/') {
            look_at_file(report, options, pid, &entry.path(), &target);
        }
    }
}

fn look_at_anonymous(report: &mut Report, pid: i32, kind: &str) {
    let (what, advice) = match kind {
        "io_uring" => ("an io_uring", "switch io_uring off in the program, if it can"),
        "bpf-prog" | "bpf_link" | "bpf_iter" | "btf" => ("a BPF program", "close it"),
        "perf_event" => ("a performance counter", "close it"),
        "kvm-vm" | "kvm-vcpu" => ("a virtual machine", "stop the virtual machine"),
        "userfaultfd" => ("a userfaultfd", "wait until the program has closed it"),
        "fscontext" | "seccomp notify" | "dma_buf" | "sync_file" | "iommufd" => {
            ("a descriptor of a kind that CRIU does not know", "close it")
        }
        _ => return,
    };
    let message = format!("{} (pid {pid}) has {what} open ({kind})", inspect::command(pid));
    let code = match kind {
        "io_uring" => "io-uring",
        _ => "descriptor",
    };
    report.obstacle(code, Some(pid), message, advice);
}

/// A pipe that keeps what was written apart would come back as one that does not.
fn look_at_pipe(report: &mut Report, pid: i32, number: &str) {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    if flags & libc::O_DIRECT != 0 {
        let message = format!("{} (pid {pid}) has a pipe in packet mode open (O_DIRECT)", inspect::command(pid));
        report.obstacle("pipe", Some(pid), message, "close it");
    }
}

/// A unix socket whose other end no process of the container holds or has made. What is sent to a name without a connection
/// is found again by the name.
fn look_at_unix_socket(report: &mut Report, sockets: &Sockets<'_>, pid: i32, socket: &OwnedFd, inode: u64) {
    let Some(peer) = sockets.peers.get(&inode) else { return };
    if sockets.findings.sockets.contains(peer) || sockopt::socket_type(socket).ok() == Some(SocketType::DGRAM) {
        return;
    }
    let maker = sockopt::socket_peercred(socket).map_or(0, |peer| peer.pid.as_raw_nonzero().get());
    if !sockets.findings.pids.contains(&maker) {
        let message = format!(
            "{} (pid {pid}) is connected by a unix socket to {} (pid {maker}), which is not in the container",
            inspect::command(pid),
            inspect::command(maker)
        );
        report.obstacle("unix-socket", Some(pid), message, "close the connection");
    }
}

fn look_at_socket(report: &mut Report, sockets: &Sockets<'_>, pid: i32, socket: &OwnedFd, inode: u64) {
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    const UDP_LITE: u32 = 136;
    let Ok(family) = sockopt::socket_domain(socket) else { return };
    let kind = sockopt::socket_type(socket).ok();
    let protocol = sockopt::socket_protocol(socket).ok().flatten().map_or(0, |protocol| protocol.as_raw().get());
    let what = match family {
        AddressFamily::UNIX => return look_at_unix_socket(report, sockets, pid, socket, inode),
        AddressFamily::NETLINK | AddressFamily::PACKET => return,
        AddressFamily::INET | AddressFamily::INET6 => match (kind, protocol) {
            (Some(SocketType::RAW), _) | (_, TCP | UDP | UDP_LITE) => return,
            (_, 1 | 58) => "a ping socket".to_owned(),
            (_, 132) => "an SCTP socket".to_owned(),
            (_, 262) => "a multipath TCP socket".to_owned(),
            (_, other) => format!("an internet socket of protocol {other}"),
        },
        other => format!("a socket of address family {}", other.as_raw()),
    };
    let message = format!("{} (pid {pid}) has {what} open", inspect::command(pid));
    report.obstacle("socket", Some(pid), message, "close it");
}

fn look_at_file(report: &mut Report, options: &Options, pid: i32, link: &Path, target: &str) {
    if is_gpu(target) {
        return gpu(report, pid, target);
    }
    let Ok(metadata) = fs::metadata(link) else { return };
    const MQUEUE_MAGIC: u64 = 0x1980_0202;
    if metadata.is_file() && rustix::fs::statfs(link).is_ok_and(|system| system.f_type as u64 == MQUEUE_MAGIC) {
        let message = format!("{} (pid {pid}) has a POSIX message queue open ({target})", inspect::command(pid));
        return report.obstacle("message-queue", Some(pid), message, "close it, and remove it (mq_unlink)");
    }
    if metadata.file_type().is_char_device() {
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let terminal = matches!(major, 136..=143);
        let own = || fs::metadata(format!("/proc/{pid}/root/dev/pts")).is_ok_and(|pts| pts.dev() == metadata.dev());
        if (terminal || major == 4) && !own() {
            let message = format!("{} (pid {pid}) has a terminal of the host open: {target}", inspect::command(pid));
            report.obstacle("host-terminal", Some(pid), message, "start the container with -t, or without a terminal");
        } else if !terminal && !matches!((major, minor), (1 | 4 | 5, _) | (10, 200)) {
            let message = format!("{} (pid {pid}) has the device {target} open", inspect::command(pid));
            report.obstacle("device", Some(pid), message, "close it");
        }
        return;
    }
    let deleted = metadata.is_file() && metadata.nlink() == 0 && !target.starts_with("/memfd:");
    let limit = u64::from(options.ghost_limit_bytes);
    if deleted && metadata.len() > limit {
        let message = format!(
            "{} (pid {pid}) has a file open that was deleted and is larger than {limit} bytes: {target}",
            inspect::command(pid)
        );
        report.obstacle("deleted-file", Some(pid), message, "raise the label dormouse.checkpoint.ghost-limit");
    }
}

fn is_gpu(path: &str) -> bool {
    ["/dev/nvidia", "/dev/dri/", "/dev/kfd", "/dev/dxg"].iter().any(|device| path.starts_with(device))
}

fn gpu(report: &mut Report, pid: i32, device: &str) {
    let message = format!("{} (pid {pid}) uses the graphics processor {device}", inspect::command(pid));
    report.obstacle("gpu", Some(pid), message, "its memory cannot be kept: close the device");
}

/// POSIX message queues: neither those that are open nor what waits in others is kept.
fn look_at_message_queues(report: &mut Report, init: i32) {
    let queues = fs::read_dir(format!("/proc/{init}/root/dev/mqueue")).into_iter().flatten().flatten();
    for queue in queues {
        let message = format!("there is a POSIX message queue ({})", queue.file_name().to_string_lossy());
        report.obstacle("message-queue", None, message, "remove it (mq_unlink)");
    }
}

/// Mounts that were made inside, on file systems that CRIU cannot make again.
fn look_at_mounts(report: &mut Report, container: &Container) -> Result<()> {
    const KNOWN: &[&str] = &[
        "proc",
        "sysfs",
        "devtmpfs",
        "binfmt_misc",
        "tmpfs",
        "devpts",
        "pstore",
        "mqueue",
        "securityfs",
        "fusectl",
        "debugfs",
        "tracefs",
        "cgroup",
        "cgroup2",
        "overlay",
        "autofs",
    ];
    let (pid, spec) = (container.record.pid, container.spec()?);
    let external = mounts::present(pid, mounts::of(&spec, &container.record)?)?;
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let mut devices = BTreeMap::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (Some(device), Some(point)) = (fields.get(2), fields.get(4)) else { continue };
        let kind = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 1)).unwrap_or(&"");
        let outside = *point == "/" || external.contains_key(*point);
        // What lies on a file system that is there anyway (the root, or one handed over) is only another view of it.
        if outside {
            devices.insert((*device).to_owned(), ());
        } else if !KNOWN.contains(kind) && !devices.contains_key(*device) {
            let message = format!("a file system of type {kind} is mounted at {point} inside the container");
            report.obstacle("mount", None, message, "unmount it, or mount it from outside");
        }
    }
    if Namespaces::of(&spec).has_new(libc::CLONE_NEWUSER) {
        let message = "the container has a user namespace of its own, which has not been tried".to_owned();
        report.warnings.push(Finding { code: "user-namespace", message, advice: "try it", pid: None });
    }
    Ok(())
}
