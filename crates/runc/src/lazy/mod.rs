//! Lazy wake: a container runs at once, and its memory follows.
//!
//! CRIU can leave private anonymous memory out of a restore: it registers it with userfaultfd and hands the descriptors
//! over a socket to whoever is to fill it. That is [`keeper`] with its [`feeder`], a page daemon of ours:
//!
//! ```text
//! docker-runc restore ── starts ──► docker-runc feed-pages  (watches)
//!    │                                 └─ clone(CLONE_FILES) (feeds) ◄── userfaultfd ── the container's processes
//!    └─ criu swrk ── <work>/lazy-pages.socket: descriptors ──┘  └── pages-*.img
//! ```
//!
//! It outlives docker-runc as a child of whoever takes its orphans (the shim), is in none of the container's cgroups, ends
//! by itself when all is loaded or the container has ended, and never leaves a container running that lacks memory.
//! CRIU's own `lazy-pages` is used only where somebody has started it (its socket is in the work directory, or the memory
//! was left with a page server), as under runc: a kill of it goes unnoticed while the kernel fills in zeros, and an area above
//! 2 GiB overflows its buffer.
//!
//! The pages file is open as long as it is needed: a checkpoint may be removed while a container is still loading from it.
//!
//! ```text
//! <root>/<id>/lazy.json      the page daemon: pid and start time
//! <root>/<id>/lazy-failure   why it has killed the container
//! ```

mod feeder;
pub mod keeper;
mod ranges;
mod uffd;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criu::pagemap::{self, Pagemap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::checkpoint::options::Lazy;
use crate::error::{Doing, Error, Result};
use crate::logging::Log;
use crate::state::{Container, is_alive, process_stat, write_file};

/// CRIU's name for its socket, in its work directory.
const SOCKET: &str = "lazy-pages.socket";
const NOTE: &str = "lazy.json";
/// Why the page daemon has killed the container.
pub(crate) const FAILURE: &str = "lazy-failure";
/// Memory that the processes have in common (because they were forked) is common again only after an ordinary wake: no
/// more than one part in so many may be, for a lazy wake to be chosen.
const SHARED_PART: u64 = 4;
/// How long a checkpoint waits for the rest of the memory.
const LOAD_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long somebody else's page daemon may take to come up.
const SERVER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the page daemon may take to notice that its container is gone.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// What the page daemon is told.
#[derive(Debug)]
pub struct Request {
    /// The container.
    pub id: String,
    /// Directory of the images.
    pub images: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    pid: i32,
    start_ticks: u64,
    bytes: u64,
}

/// How a container is to be woken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// So many bytes follow later.
    Lazy(u64),
    /// All at once.
    Eager,
    /// All at once, although it was asked for otherwise; and why.
    Impossible(String),
    /// Later, from somebody else's page daemon (`criu lazy-pages`).
    Elsewhere,
}

/// Looks at the images and the kernel. Images that do not fit together are an error.
pub fn choose(images: &Path, wanted: Lazy) -> Result<Choice> {
    let above = match wanted {
        Lazy::Never => None,
        Lazy::Always => Some(0),
        Lazy::Above(bytes) => Some(bytes),
    };
    let dir = fs::File::open(images).doing(|| format!("open {}", images.display()))?;
    let mut maps = Vec::new();
    for pid in pagemap::tasks(images)? {
        let map = Pagemap::read(&dir, pid)?;
        if !map.elsewhere && above.is_some() {
            map.open_pages(&dir)?;
        }
        maps.push(map);
    }
    if maps.iter().any(|map| map.elsewhere) {
        return match wanted {
            Lazy::Always => Ok(Choice::Elsewhere),
            _ => Err(Error::CannotRestore("its memory is with a page server: --lazy-pages is needed".into())),
        };
    }
    let Some(above) = above else { return Ok(Choice::Eager) };
    let bytes: u64 = maps.iter().map(Pagemap::lazy_bytes).sum();
    if bytes == 0 || bytes < above {
        return Ok(Choice::Eager);
    }
    if maps.iter().any(|map| map.has_parent) {
        return Ok(Choice::Impossible("a part of its memory is in another checkpoint".into()));
    }
    if wanted != Lazy::Always && in_common(&maps) > bytes / SHARED_PART {
        return Ok(Choice::Impossible("its processes have memory in common".into()));
    }
    Ok(match uffd::check_support() {
        Ok(()) => Choice::Lazy(bytes),
        Err(err) => Choice::Impossible(format!("the kernel does not allow it (userfaultfd: {err})")),
    })
}

/// Bytes that lie at the same address in several tasks. Programs that were started apart have different addresses.
fn in_common(maps: &[Pagemap]) -> u64 {
    let mut all: Vec<(u64, u64)> = maps.iter().flat_map(|map| map.lazy.iter().map(|r| (r.start, r.end))).collect();
    all.sort_unstable();
    let mut common = 0;
    let mut reached = 0;
    for (start, end) in all {
        common += end.min(reached).saturating_sub(start);
        reached = reached.max(end);
    }
    common
}

/// A page daemon that was started for a restore under way.
#[derive(Debug)]
pub struct Started {
    socket: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        // CRIU is connected by now, or never will be.
        let _ = fs::remove_file(&self.socket);
    }
}

/// Starts the page daemon. CRIU's work directory must be `work`.
pub fn start(container: &Container, images: &Path, work: &Path, log: Option<&Log>, bytes: u64) -> Result<Started> {
    // What we have from our caller is not for it.
    crate::sys::close_on_exec_from(3).doing(|| "close descriptors".into())?;
    let listener = listen(work)?;
    let started = Started { socket: work.join(SOCKET) };
    let root = container.dir.parent().unwrap_or(Path::new("/"));
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(root);
    if let Some(Log { path, format }) = log {
        command.arg("--log").arg(path).args(["--log-format", format.name()]);
    }
    command.arg("feed-pages").arg("--image-path").arg(images).arg(&container.record.id);
    command.stdin(listener).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().doing(|| "start the page daemon".into())?;
    let pid = i32::try_from(child.id()).map_err(|_| Error::Conflict("the page daemon has no pid".into()))?;
    let start_ticks = process_stat(pid).doing(|| "look at the page daemon".into())?.start_ticks;
    let note =
        serde_json::to_vec(&Note { pid, start_ticks, bytes }).doing(|| "encode the page daemon's note".into())?;
    write_file(&container.dir.join(NOTE), &note)?;
    Ok(started)
}

fn listen(work: &Path) -> Result<OwnedFd> {
    let doing = || format!("listen at {}", work.join(SOCKET).display());
    let dir = rustix::fs::open(
        work,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .doing(doing)?;
    let _ = rustix::fs::unlinkat(&dir, SOCKET, rustix::fs::AtFlags::empty());
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.doing(doing)?;
    // The name of a socket is short; that of the directory may be long.
    let name = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(name).doing(doing)?).doing(doing)?;
    rustix::net::listen(&socket, 1).doing(doing)?;
    Ok(socket)
}

/// Whether somebody else's page daemon serves this work directory. One that has gone leaves its socket behind, and one that
/// is there takes the first connection for CRIU's: it is asked with a socket of another type, which the kernel refuses in
/// one way if there is somebody, and in another if there is not.
pub fn is_served(work: &Path) -> bool {
    let ask = || -> rustix::io::Result<()> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let dir = rustix::fs::open(work, flags, rustix::fs::Mode::empty())?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?)
    };
    ask() == Err(rustix::io::Errno::PROTOTYPE)
}

/// Waits until it does: whoever starts it and then restores cannot know when it is ready.
pub fn wait_until_served(work: &Path) -> Result<()> {
    use rustix::fs::inotify;
    let doing = || format!("wait for {}", work.join(SOCKET).display());
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).doing(doing)?;
    inotify::add_watch(&watch, work, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO).doing(doing)?;
    let deadline = Instant::now() + SERVER_PATIENCE;
    let mut space = [0; 4096];
    while !is_served(work) {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&limit)) {
            Ok(0) => {
                let socket = work.join(SOCKET);
                return Err(Error::CannotRestore(format!("no page daemon listens at {}", socket.display())));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(errno).doing(doing),
        }
        let _ = rustix::io::read(&watch, &mut space);
    }
    Ok(())
}

/// Why the page daemon has killed this container, if it has.
pub fn failure(container: &Container) -> Option<String> {
    fs::read_to_string(container.dir.join(FAILURE)).ok()
}

/// Waits until all memory is loaded, if it still is being loaded.
pub fn wait_until_loaded(container: &Container) -> Result<()> {
    if let Some((daemon, _)) = daemon(container)? {
        tracing::info!("waiting until the container's memory is loaded");
        if !ends_within(&daemon, LOAD_PATIENCE) {
            return Err(Error::CannotCheckpoint("its memory is still being loaded from the checkpoint before".into()));
        }
    }
    match failure(container) {
        Some(reason) => Err(Error::CannotCheckpoint(reason)),
        None => Ok(()),
    }
}

/// Sees to it that no page daemon is left of a container that has ended.
pub fn stop(container: &Container) {
    if let Ok(Some((daemon, pid))) = daemon(container)
        && !ends_within(&daemon, END_PATIENCE)
    {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let half = children.split_ascii_whitespace().find_map(|pid| Pid::from_raw(pid.parse().ok()?));
        let half = half.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        for pidfd in half.iter().chain([&daemon]) {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

/// The page daemon (the half that watches) and its pid, if it is at work.
fn daemon(container: &Container) -> Result<Option<(OwnedFd, i32)>> {
    let path = container.dir.join(NOTE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { what: format!("read {}", path.display()), source }),
    };
    let note: Note = serde_json::from_slice(&text).doing(|| format!("parse {}", path.display()))?;
    let Some(pidfd) = Pid::from_raw(note.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return Ok(None);
    };
    Ok(is_alive(note.pid, note.start_ticks).then_some((pidfd, note.pid)))
}

fn ends_within(daemon: &OwnedFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(daemon, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => (),
            Ok(_) | Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use criu::pagemap::Range;

    use super::*;

    #[test]
    fn a_page_daemon_that_has_gone_serves_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_served(dir.path()));
        let daemon = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        assert!(is_served(dir.path()));
        wait_until_served(dir.path()).unwrap();
        daemon.set_nonblocking(true).unwrap();
        assert!(daemon.accept().is_err(), "it was disturbed");
        drop(daemon);
        assert!(!is_served(dir.path()));
    }

    #[test]
    fn memory_in_common_is_that_at_the_same_addresses() {
        let map = |list: &[(u64, u64)]| Pagemap {
            lazy: list.iter().map(|(start, end)| Range { start: *start, end: *end, offset: 0 }).collect(),
            ..Pagemap::default()
        };
        assert_eq!(in_common(&[map(&[(0x1000, 0x5000)]), map(&[(0x9000, 0xa000)])]), 0);
        assert_eq!(in_common(&[map(&[(0x1000, 0x5000)]), map(&[(0x2000, 0x7000)])]), 0x3000);
        let three = map(&[(0x1000, 0x2000)]);
        assert_eq!(in_common(&[three.clone(), three.clone(), three]), 0x2000);
    }
}
