//! The page daemon: two processes, of which one does the work and the other watches.
//!
//! When the last descriptor of a userfaultfd is closed, the kernel takes the pages that are missing for empty ones: a
//! page daemon that was killed would leave a program that computes with zeros, and nobody would know. So the two share
//! one table of descriptors (`CLONE_FILES`): whichever of them dies, the other still holds them, whoever waits for a page
//! goes on waiting, and the container is killed before they are closed. Only both killed at one instant would defeat that.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::feeder::{Feeder, Outcome};
use super::{FAILURE, Request};
use crate::error::{Doing, Error, Result};
use crate::state::{Container, write_file};
use crate::sys::{self, Forked};

/// How long killed processes may take to die.
const DEATH_PATIENCE: Duration = Duration::from_secs(30);
/// The feeder's exit status when it has said why it failed.
const FAILED: i32 = 3;

/// The whole of `docker-runc feed-pages`: standard input is the socket that CRIU will connect to.
pub fn main(root: &Path, request: &Request) -> Result<i32> {
    let starter = starter()?;
    let listener = rustix::stdio::stdin().try_clone_to_owned().doing(|| "take over the socket".into())?;
    let images = rustix::fs::open(
        &request.images,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .doing(|| format!("open {}", request.images.display()))?;
    // Nothing of where we were started shall be held.
    rustix::process::chdir("/").doing(|| "leave the directory".into())?;
    // Without memory for us the container would have to be killed. Where we may not, we are as others are.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    let keeper = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).doing(|| "watch ourselves".into())?;
    let container = root.join(&request.id);
    match sys::fork_into(libc::CLONE_FILES).doing(|| "start the page daemon".into())? {
        Forked::Child => sys::exit_now(feed(&container, images, &listener, &keeper, &starter)),
        Forked::Parent(pid) => keep(&container, pid),
    }
}

/// A descriptor of the docker-runc that has started us: it must still be there.
fn starter() -> Result<OwnedFd> {
    let gone = || Error::Conflict("whoever asked for the page daemon is gone".into());
    let parent = rustix::process::getppid().ok_or_else(gone)?;
    let pidfd = pidfd_open(parent, PidfdFlags::empty()).map_err(|_| gone())?;
    // Otherwise it had ended before and the number may be anybody's.
    if rustix::process::getppid() == Some(parent) { Ok(pidfd) } else { Err(gone()) }
}

/// The one who works. Gives its exit status.
fn feed(container: &Path, images: OwnedFd, listener: &OwnedFd, keeper: &OwnedFd, starter: &OwnedFd) -> i32 {
    // It holds the descriptors, and must do so until whoever would miss memory is dead.
    let mut feeder = Feeder::new(images);
    let result = accept(listener, keeper, starter).and_then(|connection| match connection {
        Some(connection) => feeder.run(connection, keeper),
        None => Ok(Outcome::NotRestored),
    });
    match result {
        Ok(Outcome::Loaded) => tracing::debug!("all memory is loaded"),
        Ok(Outcome::NotRestored) => tracing::debug!("nothing was restored"),
        Err(err) => {
            end_container(container, &format!("its memory could not be loaded: {err}"));
            return FAILED;
        }
    }
    0
}

/// CRIU's connection; `None` when docker-runc has ended before there was one.
fn accept(listener: &OwnedFd, keeper: &OwnedFd, starter: &OwnedFd) -> Result<Option<OwnedFd>> {
    loop {
        let mut watched = [listener, keeper, starter].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(errno).doing(|| "wait for criu".into()),
        }
        let [called, widowed, abandoned] = watched.map(|fd| !fd.revents().is_empty());
        if called {
            let flags = rustix::net::SocketFlags::CLOEXEC;
            return rustix::net::accept_with(listener, flags).doing(|| "accept criu's connection".into()).map(Some);
        }
        if widowed || abandoned {
            return Ok(None);
        }
    }
}

/// The one who watches.
fn keep(container: &Path, feeder: i32) -> Result<i32> {
    let Some(pid) = Pid::from_raw(feeder) else { return Err(Error::Conflict("no page daemon".into())) };
    let status = loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(errno).doing(|| "wait for the page daemon".into()),
        }
    };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => return Ok(0),
        (Some(FAILED), _) => return Ok(1),
        (Some(code), _) => end_container(container, &format!("its page daemon ended with status {code}")),
        (None, Some(signal)) => end_container(
            container,
            &format!("its page daemon was killed by signal {signal} before all of its memory was loaded"),
        ),
        (None, None) => end_container(container, "its page daemon is gone"),
    }
    Ok(1)
}

/// Kills a container (or, while it is being restored, what there is of it and CRIU), says why, and waits until nobody is
/// left who could compute with pages that are missing.
fn end_container(dir: &Path, reason: &str) {
    if let Err(err) = write_file(&dir.join(FAILURE), reason.as_bytes()) {
        tracing::error!("{err}");
    }
    tracing::error!("the container is killed: {reason}");
    if let Err(err) = kill_all(dir) {
        tracing::error!("kill the container: {err}");
    }
}

fn kill_all(dir: &Path) -> Result<()> {
    let (root, id) = (dir.parent().map(PathBuf::from).unwrap_or_default(), dir.file_name().unwrap_or_default());
    let container = match Container::open(&root, &id.to_string_lossy()) {
        Err(Error::NoContainer) => return Ok(()),
        other => other?,
    };
    let cgroups = container.cgroups()?;
    let deadline = Instant::now() + DEATH_PATIENCE;
    loop {
        let pids: Vec<Pid> = cgroups.pids()?.into_iter().filter_map(Pid::from_raw).collect();
        if pids.is_empty() {
            return Ok(());
        }
        let watched: Vec<OwnedFd> = pids.iter().filter_map(|pid| pidfd_open(*pid, PidfdFlags::empty()).ok()).collect();
        for pidfd in &watched {
            let _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
        }
        // What is frozen does not die.
        cgroups.thaw()?;
        for pidfd in &watched {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit));
        }
        if Instant::now() >= deadline {
            return Err(Error::Conflict("killed processes do not die".into()));
        }
    }
}
