//! Looks at a running container and finds out what a checkpoint of it needs, and what forbids one.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::error::{Doing, Error, Result};
use crate::state::{Container, process_stat};
use crate::sys;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// A process holds a TCP connection that is more than a listener.
    pub established_tcp: bool,
    /// Somebody has connected to a process that listens, and was not accepted yet.
    pub tcp_backlog: bool,
    /// A process is connecting to somebody.
    pub tcp_connecting: bool,
    /// All processes.
    pub pids: Vec<i32>,
    /// The inodes of all sockets that they hold.
    pub sockets: HashSet<u64>,
    /// Processes that were started from outside (an exec): pid and command.
    pub foreign: Vec<(i32, String)>,
}

/// Looks at every process of the container.
pub fn inspect(container: &Container) -> Result<Findings> {
    let init = container.record.pid;
    let mut findings = Findings { pids: container.cgroups()?.pids()?, ..Findings::default() };
    for pid in &findings.pids {
        if !descends(*pid, init) {
            findings.foreign.push((*pid, command(*pid)));
        }
    }
    findings.look_at_sockets();
    Ok(findings)
}

impl Findings {
    fn look_at_sockets(&mut self) {
        (self.established_tcp, self.tcp_backlog, self.tcp_connecting) = (false, false, false);
        self.sockets = each_socket(&self.pids, |socket| match sys::tcp_state(socket) {
            Ok((LISTENS, waiting)) => self.tcp_backlog |= waiting > 0,
            Ok((state, _)) => {
                self.established_tcp |= is_connection(state);
                self.tcp_connecting |= state == CONNECTS;
            }
            // Another kind of socket.
            Err(_) => (),
        });
    }
}

/// Looks at each socket of these processes once, and says which there are. They are asked themselves: the kernel's tables in
/// `/proc/net` take ten milliseconds to read on a large machine, however few sockets there are.
fn each_socket(pids: &[i32], mut look: impl FnMut(BorrowedFd<'_>)) -> HashSet<u64> {
    let mut seen = HashSet::new();
    for pid in pids {
        let Some(pidfd) = Pid::from_raw(*pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            continue;
        };
        for (number, inode) in sockets_of(*pid) {
            if seen.insert(inode)
                && let Ok(socket) = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())
            {
                look(socket.as_fd());
            }
        }
    }
    seen
}

/// Whether one of these processes holds a connection with data that the kernel has not sent once.
pub fn has_unsent(pids: &[i32]) -> bool {
    let mut found = false;
    each_socket(pids, |socket| {
        let connected = sys::tcp_state(socket).is_ok_and(|(state, _)| is_connection(state));
        found |= connected && sys::unsent_bytes(socket).is_ok_and(|bytes| bytes > 0);
    });
    found
}

/// Whether one of these processes holds a connection at this moment.
pub fn has_connections(pids: Vec<i32>) -> bool {
    let mut findings = Findings { pids, ..Findings::default() };
    findings.look_at_sockets();
    findings.established_tcp
}

/// CRIU cannot take along who is connecting, nor who has connected and was not accepted. Both pass, where the other side
/// does its work: waits a moment for it.
pub fn await_connections(findings: &mut Findings) {
    const MOMENTS: u32 = 40;
    const MOMENT: std::time::Duration = std::time::Duration::from_millis(25);
    for _ in 0..MOMENTS {
        if !findings.tcp_backlog && !findings.tcp_connecting {
            return;
        }
        std::thread::sleep(MOMENT);
        findings.look_at_sockets();
    }
}

/// Refuses, naming them, when there are processes that CRIU cannot take along.
pub fn refuse_foreign(findings: &Findings) -> Result<()> {
    if findings.foreign.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = findings.foreign.iter().map(|(pid, name)| format!("{name} (pid {pid})")).collect();
    Err(Error::CannotCheckpoint(format!(
        "processes were started in the container from outside (exec, health check) and still run: {}; wait for them or end \
         them first",
        list.join(", ")
    )))
}

/// Whether a process comes from the container's first one. A process that ends meanwhile does not matter.
fn descends(pid: i32, init: i32) -> bool {
    let mut current = pid;
    // Bounded by the depth of any process tree.
    for _ in 0..4096 {
        if current == init {
            return true;
        }
        match process_stat(current) {
            Ok(stat) if stat.parent > 0 => current = stat.parent,
            Ok(_) => return false,
            Err(_) => return true,
        }
    }
    false
}

/// A process's command line, cut short.
pub fn command(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = text.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    if words.is_empty() {
        return fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    }
    let text = words.join(" ");
    text.chars().take(80).collect()
}

/// Number and inode of each socket of a process.
fn sockets_of(pid: i32) -> Vec<(i32, u64)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, inode))
        })
        .collect()
}

const CONNECTS: u8 = 2;
const LISTENS: u8 = 10;

/// Not a listener (10), not closed (7), not only waiting for time to pass (6).
fn is_connection(state: u8) -> bool {
    !matches!(state, 6 | 7 | LISTENS)
}

/// The inode of a namespace of a process, as CRIU names it.
pub fn namespace_inode(pid: i32, kind: &str) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let path = format!("/proc/{pid}/ns/{kind}");
    fs::metadata(&path).map(|metadata| metadata.ino()).doing(|| format!("stat {path}"))
}

/// Whether a network namespace holds nothing but its loopback interface.
pub fn only_loopback(pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/net/dev")) else { return false };
    text.lines().skip(2).filter_map(|line| line.split(':').next()).all(|name| name.trim() == "lo")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Of this process itself.
    #[test]
    fn sockets_are_asked_for_their_state() {
        let look = || {
            let mut findings = Findings { pids: vec![std::process::id() as i32], ..Findings::default() };
            findings.look_at_sockets();
            (findings.established_tcp, findings.tcp_backlog, findings.sockets.len())
        };
        assert_eq!(look(), (false, false, 0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _other = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(look(), (false, false, 2));
        let _guest = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(look(), (true, true, 3));
        let _host = listener.accept().unwrap();
        assert_eq!(look(), (true, false, 4));
    }
}
