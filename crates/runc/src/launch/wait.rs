//! Waiting for children and passing signals on.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{Signal as Kill, kill_process};

use crate::error::{Doing, Result};

/// Kills a child and waits for its end.
pub fn kill_and_reap(pid: i32) {
    if let Some(target) = rustix::process::Pid::from_raw(pid) {
        let _ = kill_process(target, Kill::KILL);
    }
    // ECHILD: it is not ours, or it has been reaped.
    let _ = waitpid(Pid::from_raw(pid), None);
}

/// Says how a child ended that said nothing itself.
pub fn describe_end(pid: i32) -> String {
    match waitpid(Pid::from_raw(pid), None) {
        Ok(WaitStatus::Exited(_, status)) => format!("container init exited with status {status}"),
        Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => {
            "container init was killed (its memory limit may be too low)".to_owned()
        }
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("container init was ended by {signal}"),
        _ => "container init has gone".to_owned(),
    }
}

/// Blocks the signals that the waiting calls pass on or need. Must run before the child is made.
pub fn block_signals() -> Result<SigSet> {
    let set = SigSet::all();
    set.thread_block().doing(|| "block signals".into())?;
    Ok(set)
}

/// The exit code of a child that has ended, by shell convention.
pub fn exit_code(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
        _ => None,
    }
}

/// Reaps every child that has ended; gives the exit code of `pid` if it is among them.
pub fn reap(pid: i32) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(status) if status.pid() == Some(Pid::from_raw(pid)) => code = exit_code(status).or(code),
            Ok(_) => (),
        }
    }
}
