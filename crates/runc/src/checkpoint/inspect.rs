//! Looks at a running container and finds out what a checkpoint of it needs, and what forbids one.

use std::collections::HashSet;
use std::fs;

use crate::error::{Doing, Error, Result};
use crate::state::{Container, process_stat};

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// A process holds a TCP connection that is more than a listener.
    pub established_tcp: bool,
    /// Processes that were started from outside (an exec): pid and command.
    pub foreign: Vec<(i32, String)>,
}

/// Looks at every process of the container.
pub fn inspect(container: &Container) -> Result<Findings> {
    let init = container.record.pid;
    let pids = container.cgroups()?.pids()?;
    let mut findings = Findings::default();
    let mut sockets = HashSet::new();
    for pid in &pids {
        if !descends(*pid, init) {
            findings.foreign.push((*pid, command(*pid)));
        }
        sockets.extend(socket_inodes(*pid));
    }
    findings.established_tcp = ["tcp", "tcp6"].iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/{init}/net/{table}")).unwrap_or_default();
        text.lines()
            .skip(1)
            .filter_map(parse_socket)
            .any(|(state, inode)| is_connection(state) && sockets.contains(&inode))
    });
    Ok(findings)
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

fn socket_inodes(pid: i32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// One line of `/proc/net/tcp`: state and inode.
fn parse_socket(line: &str) -> Option<(u8, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    Some((u8::from_str_radix(fields.get(3)?, 16).ok()?, fields.get(9)?.parse().ok()?))
}

/// Not a listener (10), not closed (7), not only waiting for time to pass (6).
fn is_connection(state: u8) -> bool {
    !matches!(state, 6 | 7 | 10)
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
    use super::*;

    #[test]
    fn lines_of_proc_net_tcp() {
        let line = "   1: 0100007F:1F90 0100007F:A2C4 01 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        let (state, inode) = parse_socket(line).unwrap();
        assert_eq!(inode, 4711);
        assert!(is_connection(state) && !is_connection(10));
        assert_eq!(parse_socket("nonsense"), None);
    }
}
