//! From the end of a process to the end of the shim.
//!
//! An exec is reported when its output is drained. For init the order is: its exit status is on disk; runtime calls
//! that are under way come to their end (a checkpoint that stops the container is one); `kill --all`, where the kernel
//! has not done that by itself (init was not the first process of its own pid namespace); every exec is reported and
//! the output drained; `delete`; init is reported; the shim ends when everybody was told. If a reader has still not
//! taken everything then, a copy of the shim stays with the FIFOs for a while, and with nothing else.

use std::time::{Duration, Instant};

use super::jobs::JobKind;
use super::{INIT, Shim};
use crate::error::Error;
use crate::process::DRAIN_LIMIT;
use crate::protocol::Message;
use crate::runtime::Capture;
use crate::sys::{self, Half};

/// How long a runtime call may go on after init has ended.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a client that does not take its messages holds up our end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);

/// How far the end has come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// Init lives, or has not been made.
    NotYet,
    /// Runtime calls are still under way.
    Calls { until: Instant },
    /// `kill --all` is under way.
    KillingAll,
    /// Output is being drained, execs reported.
    Draining { until: Instant },
    /// `delete` is under way.
    Deleting,
    /// Nothing is left but to be heard.
    Told { until: Instant },
}

impl Shim {
    /// Takes every step of the end that can be taken now.
    pub(super) fn advance_ending(&mut self) {
        self.report_execs();
        let now = Instant::now();
        match self.ending {
            Ending::NotYet => {
                if self.processes.get(&INIT).is_some_and(|init| init.exit.is_some()) {
                    self.ending = Ending::Calls { until: now + CALL_LIMIT };
                    self.advance_ending();
                }
            }
            Ending::Calls { .. } if self.jobs.is_empty() => self.kill_all(),
            Ending::Calls { until } if now >= until => {
                for job in &self.jobs {
                    self.log.warn("a runtime call outlived the container by too much and is killed");
                    let _ = sys::kill(job.pid, libc::SIGKILL);
                }
                self.ending = Ending::Calls { until: now + CALL_LIMIT };
            }
            Ending::Draining { until } => self.drained(now >= until),
            Ending::Calls { .. } | Ending::KillingAll | Ending::Deleting | Ending::Told { .. } => {}
        }
    }

    /// When to look again although nothing has happened.
    pub(super) fn ending_deadline(&self) -> Option<Instant> {
        match self.ending {
            Ending::Calls { until } | Ending::Draining { until } => Some(until),
            Ending::Told { until } => (!self.clients.all_told()).then_some(until),
            Ending::NotYet | Ending::KillingAll | Ending::Deleting => None,
        }
    }

    /// Whether the shim has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        match self.ending {
            Ending::Told { until } => {
                let delivered = self.processes.values().all(|process| process.is_delivered());
                delivered && (self.clients.all_told() || Instant::now() >= until)
            }
            Ending::NotYet => {
                self.is_unused() && self.clients.is_empty() && self.started_at.elapsed() >= super::IDLE_LIMIT
            }
            _ => false,
        }
    }

    /// With nothing left but a reader to be waited for, a copy of us does that, so that whoever waits for our end need
    /// not. True for the one of us that may go.
    pub(super) fn is_relieved(&mut self) -> Result<bool, Error> {
        let Ending::Told { until } = self.ending else { return Ok(false) };
        if self.is_copy || !(self.clients.all_told() || Instant::now() >= until) {
            return Ok(false);
        }
        if sys::leave_behind()? == Half::Parent {
            return Ok(true);
        }
        self.is_copy = true;
        self.clients.close();
        Ok(false)
    }

    /// The container was not made; its shim ends with the answer.
    pub(super) fn ending_unmade(&mut self) {
        self.processes.remove(&INIT);
        self.ending = Ending::Told { until: Instant::now() + FAREWELL_LIMIT };
    }

    /// `kill --all` has ended, whatever came of it: no process of the container is left that it could reach.
    pub(super) fn all_killed(&mut self) {
        let now = Instant::now();
        if let Some(init) = self.processes.get_mut(&INIT) {
            init.draining_since = Some(now);
        }
        self.ending = Ending::Draining { until: now + DRAIN_LIMIT };
    }

    /// `delete` has ended.
    pub(super) fn deleted(&mut self, status: u8, forced: bool, output: &str) {
        if status != 0 && !output.contains("does not exist") {
            self.log.warn(&format!("delete: {}", output.trim_end()));
            if !forced {
                return self.delete(true);
            }
        }
        self.tell_of_init();
    }

    /// Starts `delete`.
    pub(super) fn call_delete(&self, forced: bool) -> Result<(i32, Capture), Error> {
        let args = self.runtime.args.iter().map(String::as_str).chain(["delete"]);
        self.runtime.call(args.chain(forced.then_some("--force")).chain([self.runtime.id.as_str()]))
    }

    fn report_execs(&mut self) {
        for (&key, process) in &mut self.processes {
            if key != INIT && process.may_be_reported() {
                process.reported = true;
                process.draining_since = Some(Instant::now());
                if let Some(exit) = process.exit.clone() {
                    self.clients.tell_all(&Message::Exit(exit));
                }
            }
        }
        self.processes.retain(|_, process| !process.is_over());
    }

    fn kill_all(&mut self) {
        if !self.kill_all_needed {
            return self.all_killed_now();
        }
        let args = self.runtime.args.iter().map(String::as_str).chain(["kill", "--all"]);
        match self.runtime.call(args.chain([self.runtime.id.as_str(), "KILL"])) {
            Ok((pid, capture)) => {
                self.ending = Ending::KillingAll;
                self.add_job(JobKind::KillAll, pid, Some(capture), None);
            }
            Err(error) => {
                self.log.warn(&error.to_string());
                self.all_killed_now();
            }
        }
    }

    fn all_killed_now(&mut self) {
        self.all_killed();
        self.advance_ending();
    }

    /// Goes on to `delete` once the output is out and every exec was reported, or the time for that is over.
    fn drained(&mut self, is_late: bool) {
        let ready = self.processes.values().all(|process| process.reported || process.may_be_reported());
        if !ready && !is_late {
            return;
        }
        if is_late {
            for (&key, process) in &mut self.processes {
                // An exec that has not even been reaped: its namespace was not the container's.
                if key != INIT && process.exit.is_none() && process.pid.is_some() {
                    self.log.warn(&format!("process {} did not end with the container", process.name));
                    if let Err(error) = process.ended(255, super::jobs::now_ns()) {
                        self.log.error(&error.to_string());
                    }
                }
                for output in &mut process.streams.outputs {
                    output.abandon();
                }
                process.released = true;
            }
        }
        self.report_execs();
        self.delete(false);
    }

    fn delete(&mut self, forced: bool) {
        match self.call_delete(forced) {
            Ok((pid, capture)) => {
                self.ending = Ending::Deleting;
                self.add_job(JobKind::Delete { forced }, pid, Some(capture), None);
            }
            Err(error) => {
                self.log.warn(&error.to_string());
                self.tell_of_init();
            }
        }
    }

    fn tell_of_init(&mut self) {
        let now = Instant::now();
        if let Some(init) = self.processes.get_mut(&INIT) {
            init.reported = true;
            init.draining_since = Some(now);
            if let Some(exit) = init.exit.clone() {
                self.clients.tell_all(&Message::Exit(exit));
            }
        }
        self.ending = Ending::Told { until: now + FAREWELL_LIMIT };
    }
}
