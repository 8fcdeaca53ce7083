//! The few things about processes that have no safe wrapper, and the shim's own standing in the process tree.
//!
//! The only file of the shim with `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;

use crate::error::{Context, Error};

/// Where a process's chance to be chosen by the out-of-memory killer is set, for the process that opens it.
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Makes orphans of the container our children, and signals something to be read: every signal is blocked, `SIGCHLD`
/// arrives through the returned descriptor, the others never.
pub(crate) fn become_reaper() -> Result<SignalFd, Error> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).during("prctl")?;
    let from_nix = |errno: nix::Error| io::Error::from_raw_os_error(errno as i32);
    SigSet::all().thread_block().map_err(from_nix).during("sigprocmask")?;
    // What our starter ignored (a `nohup`, say) is no business of the container. The C library keeps 32 and 33.
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: sets a disposition that is always valid; a number that cannot be set is answered with an error.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(from_nix).during("signalfd")
}

/// Asks the out-of-memory killer to spare us; gives what was set before, which our children must be given back.
pub(crate) fn lower_oom_score() -> Result<Option<String>, Error> {
    let before = std::fs::read_to_string(OOM_SCORE_ADJ).during("read oom_score_adj")?;
    std::fs::write(OOM_SCORE_ADJ, "-999").during("write oom_score_adj")?;
    Ok(Some(before.trim().to_owned()))
}

/// Makes the command die with us, and gives it what we changed for ourselves only: it hears signals, and has the
/// out-of-memory score that we had.
pub(crate) fn tie_to_us(command: &mut Command, oom_score_adj: Option<&str>) {
    let oom_score_adj = oom_score_adj.map(str::to_owned);
    // SAFETY: runs between fork and exec in a process with one thread; it makes a few system calls and allocates
    // nothing.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            if let Some(score) = &oom_score_adj {
                let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
                let file = rustix::fs::open(OOM_SCORE_ADJ, flags, rustix::fs::Mode::empty())?;
                rustix::io::write(&file, score.as_bytes())?;
            }
            Ok(())
        });
    }
}

/// The descriptor `number` if it is the end of a pipe that may be written; it is then ours. To be called before
/// anything else has opened a descriptor.
pub fn adopt_pipe(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl with F_GETFL only asks; a number that is no descriptor is answered with an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_ACCMODE == libc::O_RDONLY {
        return None;
    }
    // SAFETY: the descriptor is open (just asked) and nothing else in this program knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let stat = rustix::fs::fstat(&fd).ok()?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Fifo {
        // Not what we were promised: leave it as it was.
        std::mem::forget(fd);
        return None;
    }
    let _ = rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::CLOEXEC);
    Some(fd)
}

/// Sends any signal, real-time ones and 0 included, to the one process `pid`, which must be our unreaped child.
pub(crate) fn kill(pid: i32, signal: i32) -> rustix::io::Result<()> {
    if pid <= 0 {
        return Err(Errno::SRCH);
    }
    // SAFETY: kill takes two integers and touches no memory.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Which of the two we are after [`leave_behind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// The one that was started by docker-containerd.
    Parent,
    /// The one that stays.
    Child,
}

/// Splits off a copy of us that stays when we end.
pub(crate) fn leave_behind() -> Result<Half, Error> {
    // SAFETY: this program has one thread, so the copy may go on as if nothing had happened.
    match unsafe { libc::fork() } {
        0 => Ok(Half::Child),
        pid if pid > 0 => Ok(Half::Parent),
        _ => Err(io::Error::last_os_error()).during("fork"),
    }
}
