//! Looks at a running container and says what a checkpoint of it would run into, touching nothing.
//!
//! What CRIU cannot dump is looked for where the kernel shows it: descriptors, sockets, mapped devices, tracers, mounts. What
//! is not known to stand in the way is not named; a checkpoint may still fail for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use serde::Serialize;

use super::options::{Options, Tcp};
use super::{inspect, mounts};
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
    let findings = inspect::inspect(container)?;
    if findings.established_tcp {
        options.tcp = Tcp::Established;
    }
    options.nested_cgroups = container.cgroups()?.has_children();
    options.paused = status == Status::Paused;
    options.apply_annotations(&container.record.annotations)?;
    if findings.established_tcp && options.tcp == Tcp::None {
        report.obstacle(
            "tcp-established",
            None,
            "a process has established TCP connections, and the label says that there must be none".into(),
            "set the label dormouse.checkpoint.tcp to established or close, or close the connections",
        );
    }
    for (pid, name) in &findings.foreign {
        let message = format!("{name} (pid {pid}) was started in the container from outside");
        report.obstacle("foreign-process", Some(*pid), message, "wait for its end, or end it");
    }
    for pid in container.cgroups()?.pids()? {
        look_at_process(&mut report, &options, pid);
    }
    look_at_connections(&mut report, container.record.pid);
    look_at_mounts(&mut report, container)?;
    report.options = Some(options);
    Ok(report)
}

/// A process that ends meanwhile is no obstacle: everything that cannot be read any more is passed over.
fn look_at_process(report: &mut Report, options: &Options, pid: i32) {
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
        } else if target.starts_with("socket:") {
            let number = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
            if let Some(pidfd) = &pidfd
                && let Ok(socket) = rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())
            {
                look_at_socket(report, pid, &socket);
            }
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

fn look_at_socket(report: &mut Report, pid: i32, socket: &OwnedFd) {
    const TCP: u32 = 6;
    const UDP: u32 = 17;
    const UDP_LITE: u32 = 136;
    let Ok(family) = sockopt::socket_domain(socket) else { return };
    let kind = sockopt::socket_type(socket).ok();
    let protocol = sockopt::socket_protocol(socket).ok().flatten().map_or(0, |protocol| protocol.as_raw().get());
    let what = match family {
        AddressFamily::UNIX | AddressFamily::NETLINK | AddressFamily::PACKET => return,
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

/// Connections on their way to being established, which CRIU can neither keep nor close.
fn look_at_connections(report: &mut Report, init: i32) {
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{init}/net/{table}")).unwrap_or_default();
        // SYN_SENT; what is only received has no socket of a process yet.
        if text.lines().skip(1).any(|line| line.split_ascii_whitespace().nth(3) == Some("02")) {
            let message = "a TCP connection is just being made".to_owned();
            report.obstacle("tcp-connecting", None, message, "try again");
            return;
        }
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
