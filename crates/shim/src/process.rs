//! One process of the container, init or exec: its stdio, its pid, its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error};
use crate::protocol::{Exit, ProcessState};
use crate::stdio::{Streams, Terminal};

/// How long the end of the output is waited for after the process has ended, when somebody it left behind holds it.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long a reader that takes nothing is given once its process was reported.
pub(crate) const LINGER_LIMIT: Duration = Duration::from_secs(60);

/// A process the shim looks after.
#[derive(Debug)]
pub(crate) struct Process {
    /// `init` or an exec's name.
    pub(crate) name: String,
    /// `<state-dir>/<id>/<name>`.
    pub(crate) dir: PathBuf,
    pub(crate) streams: Streams,
    /// Set once the runtime has made it.
    pub(crate) pid: Option<i32>,
    /// Set once it was reaped.
    pub(crate) exit: Option<Exit>,
    /// Since when its output is waited for.
    pub(crate) draining_since: Option<Instant>,
    /// Its output was waited for long enough.
    pub(crate) released: bool,
    /// Everybody was told of its end.
    pub(crate) reported: bool,
}

impl Process {
    pub(crate) fn new(name: String, dir: PathBuf, streams: Streams) -> Self {
        Self { name, dir, streams, pid: None, exit: None, draining_since: None, released: false, reported: false }
    }

    /// Reads the pid that the runtime wrote.
    pub(crate) fn read_pid(&self) -> Result<i32, Error> {
        let path = self.dir.join("pid");
        let text = fs::read_to_string(&path).at("open", &path)?;
        text.trim().parse().map_err(|_| rustix::io::Errno::INVAL).at("read", &path)
    }

    /// It was reaped: record that where it outlives us, and let its output run out.
    pub(crate) fn ended(&mut self, status: u8, timestamp_ns: u64) -> Result<(), Error> {
        self.exit = Some(Exit { process: self.name.clone(), status, timestamp_ns });
        self.streams.input = None;
        if let Some(terminal) = &mut self.streams.terminal {
            terminal.process_ended();
        }
        for output in &mut self.streams.outputs {
            output.turn();
        }
        write_exit_status(&self.dir, status)
    }

    /// It has ended and its output need not be waited for.
    pub(crate) fn may_be_reported(&self) -> bool {
        self.exit.is_some() && !self.reported && (self.released || self.is_drained())
    }

    /// Everything it wrote was given on or left where the client finds it.
    pub(crate) fn is_drained(&self) -> bool {
        self.streams.outputs.iter().all(|output| output.is_done())
    }

    /// The client has all of it, and nothing of it is in our hands any more.
    pub(crate) fn is_delivered(&self) -> bool {
        self.streams.outputs.iter().all(|output| output.is_delivered())
    }

    /// Nothing of it is left to be done, its end having been reported.
    pub(crate) fn is_over(&self) -> bool {
        self.reported && self.streams.outputs.iter().all(|output| output.is_over())
    }

    /// When the wait for its output ends: a fixed time while the container's end is open, and as long as the reader
    /// goes on reading once it is closed.
    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        let since = self.draining_since?;
        let is_settled = if self.reported { self.is_delivered() } else { self.is_drained() || self.released };
        if is_settled {
            return None;
        }
        let ended = self.streams.outputs.iter().all(|output| output.has_ended());
        let moved_at = self.streams.outputs.iter().map(|output| output.moved_at()).max();
        let from = if ended { moved_at.map_or(since, |moved_at| moved_at.max(since)) } else { since };
        Some(from + if self.reported { LINGER_LIMIT } else { DRAIN_LIMIT })
    }

    /// What a client is told of it.
    pub(crate) fn state(&self) -> Option<ProcessState> {
        Some(ProcessState { process: self.name.clone(), pid: self.pid?, exit: self.exit.clone() })
    }

    pub(crate) fn terminal(&mut self) -> Option<&mut Terminal> {
        self.streams.terminal.as_mut()
    }
}

/// Writes the status so that a reader finds all of it or nothing.
fn write_exit_status(dir: &Path, status: u8) -> Result<(), Error> {
    let (temporary, path) = (dir.join(".exitStatus"), dir.join("exitStatus"));
    fs::write(&temporary, status.to_string()).at("write", &temporary)?;
    fs::rename(&temporary, &path).at("rename", &temporary)
}

/// Whether `pid` is the first process of a pid namespace of its own, so that the kernel ends all others with it.
pub(crate) fn is_namespace_init(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let Some(line) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else { return false };
    let mut pids = line.split_ascii_whitespace();
    pids.next().is_some() && pids.next_back() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::new("init".into(), dir.path().into(), Streams::default());
        process.ended(137, 1).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("exitStatus")).unwrap(), "137");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pid_file_with_rubbish_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::new("init".into(), dir.path().into(), Streams::default());
        assert!(process.read_pid().is_err());
        fs::write(dir.path().join("pid"), "12x").unwrap();
        assert!(process.read_pid().is_err());
        fs::write(dir.path().join("pid"), "12\n").unwrap();
        assert_eq!(process.read_pid().unwrap(), 12);
    }

    #[test]
    fn we_are_not_the_first_of_a_namespace_below() {
        assert!(!is_namespace_init(i32::try_from(std::process::id()).unwrap()));
    }
}
