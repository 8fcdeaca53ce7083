//! The runtime's calls while they run, and what comes of them.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{WaitOptions, WaitStatus};

use super::calls::{failure, shim_error};
use super::{INIT, Shim};
use crate::process::is_namespace_init;
use crate::protocol::{Failure, Origin, Reply};
use crate::runtime::{Capture, exit_status_text, logged_error};

/// Orphans remembered while a call may name them; a container that sheds more of them in that time is not one whose
/// init we would find among the oldest.
const MAX_ORPHANS: usize = 1024;

/// Whom to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) client: u64,
    pub(super) seq: u64,
}

/// A runtime call.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: u32,
    pub(super) kind: JobKind,
    pub(super) pid: i32,
    pub(super) capture: Option<Capture>,
    pub(super) asked: Option<Asked>,
}

/// What a runtime call is for.
#[derive(Debug)]
pub(super) enum JobKind {
    /// `create`, `restore` or `exec`.
    Make {
        process: u32,
        restored: bool,
    },
    Start,
    Checkpoint,
    /// `delete` after a `create` that failed so.
    CleanUp(Failure),
    KillAll,
    Delete {
        forced: bool,
    },
}

/// A child that was reaped before anybody said whose it was.
#[derive(Debug)]
pub(super) struct Orphan {
    pid: i32,
    status: u8,
    timestamp_ns: u64,
}

impl Shim {
    /// Notes a call that has been started.
    pub(super) fn add_job(&mut self, kind: JobKind, pid: i32, capture: Option<Capture>, asked: Option<Asked>) {
        let key = self.next_job;
        self.next_job = self.next_job.wrapping_add(1);
        self.jobs.push(Job { key, kind, pid, capture, asked });
    }

    /// Reaps every child that has ended, ours and the container's.
    pub(super) fn reap(&mut self) {
        let mut finished = Vec::new();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let (pid, status) = (pid.as_raw_pid(), code(status));
            if let Some(at) = self.jobs.iter().position(|job| job.pid == pid) {
                finished.push((self.jobs.remove(at), status));
                continue;
            }
            let timestamp_ns = now_ns();
            let owner = self.processes.iter().find(|(_, process)| process.pid == Some(pid) && process.exit.is_none());
            if let Some((&key, _)) = owner {
                self.process_ended(key, status, timestamp_ns);
            } else if self.orphans.len() < MAX_ORPHANS {
                self.orphans.push(Orphan { pid, status, timestamp_ns });
            }
        }
        for (job, status) in finished {
            self.job_finished(job, status);
        }
        if !self.jobs.iter().any(|job| matches!(job.kind, JobKind::Make { .. })) {
            self.orphans = Vec::new();
        }
    }

    fn process_ended(&mut self, key: u32, status: u8, timestamp_ns: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if key != INIT {
            process.draining_since = Some(std::time::Instant::now());
        }
        if let Err(error) = process.ended(status, timestamp_ns) {
            self.log.error(&error.to_string());
        }
    }

    fn job_finished(&mut self, job: Job, status: u8) {
        let Job { kind, capture, asked, .. } = job;
        let output = capture.map(Capture::into_text).unwrap_or_default();
        let result = match kind {
            JobKind::Make { process, restored } => match self.made(process, status) {
                Ok(pid) => Ok(Reply::Pid { pid }),
                Err(failure) if process == INIT => return self.clean_up(failure, restored, asked),
                Err(failure) => Err(failure),
            },
            JobKind::Start => said(status, output).map(|_| Reply::Done),
            JobKind::Checkpoint => said(status, output).map(|text| Reply::Output { text }),
            JobKind::CleanUp(failure) => {
                self.ending_unmade();
                Err(failure)
            }
            JobKind::KillAll => return self.all_killed(),
            JobKind::Delete { forced } => return self.deleted(status, forced, &output),
        };
        if let Some(asked) = asked {
            self.reply(asked, result);
        }
    }

    /// The runtime has made a process, or not.
    fn made(&mut self, key: u32, status: u8) -> Result<i32, Failure> {
        let Some(process) = self.processes.get_mut(&key) else { return Err(failure("process not found")) };
        if status != 0 {
            let failure = match logged_error(&process.dir) {
                Some(message) => Failure { origin: Origin::Runtime, message },
                None => Failure { origin: Origin::ExitStatus, message: exit_status_text(status.into(), "") },
            };
            if key != INIT {
                self.processes.remove(&key);
            }
            return Err(failure);
        }
        let pid = match process.read_pid() {
            Ok(pid) => pid,
            Err(error) => {
                if key != INIT {
                    self.processes.remove(&key);
                }
                return Err(shim_error(error));
            }
        };
        process.pid = Some(pid);
        if key == INIT {
            self.kill_all_needed = !is_namespace_init(pid);
        }
        // A runtime's messenger may have come and gone in this very round.
        self.receive_terminal(key);
        if let Some(at) = self.orphans.iter().position(|orphan| orphan.pid == pid) {
            let Orphan { status, timestamp_ns, .. } = self.orphans.swap_remove(at);
            if key == INIT {
                self.kill_all_needed = true;
            }
            self.process_ended(key, status, timestamp_ns);
        }
        Ok(pid)
    }

    /// A container that was not made leaves nothing: the answer waits until the runtime has forgotten it.
    fn clean_up(&mut self, failure: Failure, restored: bool, asked: Option<Asked>) {
        self.log.error(&format!("{} failed: {}", if restored { "restore" } else { "create" }, failure.message));
        // The other container of that name is not ours to remove.
        let is_anothers = failure.message.contains("already exists") || failure.message.contains("already in use");
        // A runtime that was killed has said nothing, and may have left processes.
        let forced = failure.origin == Origin::ExitStatus;
        if !is_anothers {
            if let Ok((pid, capture)) = self.call_delete(forced) {
                return self.add_job(JobKind::CleanUp(failure), pid, Some(capture), asked);
            }
        }
        self.ending_unmade();
        if let Some(asked) = asked {
            self.reply(asked, Err(failure));
        }
    }
}

/// A call's output, or why it failed.
fn said(status: u8, output: String) -> Result<String, Failure> {
    if status == 0 {
        return Ok(output);
    }
    Err(Failure { origin: Origin::ExitStatus, message: exit_status_text(status.into(), &output) })
}

/// The exit code, or 128 + signal.
fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
