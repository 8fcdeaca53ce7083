//! A process's standard streams: opened for the client on one side, for the container on the other.
//!
//! Nothing here ever waits: a missing reader, a missing writer and a full pipe are states, not places to stand.

mod pump;
mod sink;
mod terminal;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::pipe::PipeFlags;

pub(crate) use pump::{Inner, Input, Output};
use sink::Sink;
pub(crate) use terminal::Terminal;

use crate::error::{Context, Error};
use crate::protocol::Stdio;

/// What the runtime is given as its descriptors 0, 1 and 2.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What stays with us.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) input: Option<Input>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) terminal: Option<Terminal>,
}

/// Opens everything a process's stdio needs. `dir` is the process's own directory, for a spill; `console` is the name
/// of the console socket to make, should there be a terminal.
pub(crate) fn open(stdio: &Stdio, dir: &Path, console: &Path) -> Result<(Child, Streams), Error> {
    if stdio.terminal {
        return open_terminal(stdio, dir, console);
    }
    let mut streams = Streams::default();
    let stdin = match direct(&stdio.stdin, OFlags::RDONLY)? {
        Some(fd) => fd,
        None => {
            let source = Input::open(&stdio.stdin)?;
            let (theirs, ours) = pipe(stdio)?;
            nonblocking(&ours)?;
            streams.input = Some(Input::new(source, Inner::Pipe(ours)));
            theirs
        }
    };
    let mut output = |path: &Path| -> Result<OwnedFd, Error> {
        if let Some(fd) = direct(path, OFlags::WRONLY)? {
            return Ok(fd);
        }
        let sink = Sink::open(path, dir)?;
        let (ours, theirs) = pipe(stdio)?;
        nonblocking(&ours)?;
        streams.outputs.push(Output::new(Inner::Pipe(ours), sink));
        Ok(theirs)
    };
    let stdout = output(&stdio.stdout)?;
    // One file for both is one pipe for both: their order is kept, and neither is read by only one of two readers.
    let stderr = if stdio.stderr == stdio.stdout { duplicate(&stdout)? } else { output(&stdio.stderr)? };
    Ok((Child { stdin, stdout, stderr }, streams))
}

fn open_terminal(stdio: &Stdio, dir: &Path, console: &Path) -> Result<(Child, Streams), Error> {
    let null = |flags| rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty()).during("open /dev/null");
    let source = if is_null(&stdio.stdin) { None } else { Some(Input::open(&stdio.stdin)?) };
    let sink = Sink::open(if is_null(&stdio.stdout) { Path::new("/dev/null") } else { &stdio.stdout }, dir)?;
    let terminal = Terminal::listen(console, source, sink)?;
    let child = Child { stdin: null(OFlags::RDONLY)?, stdout: null(OFlags::WRONLY)?, stderr: null(OFlags::WRONLY)? };
    Ok((child, Streams { terminal: Some(terminal), ..Streams::default() }))
}

fn is_null(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/dev/null")
}

/// Devices, `/dev/null` above all, are given to the container as they are: there is nothing to be kept of them.
fn direct(path: &Path, access: OFlags) -> Result<Option<OwnedFd>, Error> {
    let path = if is_null(path) { Path::new("/dev/null") } else { path };
    let stat = rustix::fs::stat(path).at("stat", path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => {
            let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
            Ok(Some(rustix::fs::open(path, flags, Mode::empty()).at("open", path)?))
        }
        FileType::Fifo | FileType::RegularFile => Ok(None),
        _ => Err(rustix::io::Errno::INVAL).at("open", path),
    }
}

/// A pipe owned by the container's root, so that it may open it again as `/dev/stdout`.
fn pipe(stdio: &Stdio) -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during("pipe")?;
    let (uid, gid) = (Some(Uid::from_raw(stdio.uid)), Some(Gid::from_raw(stdio.gid)));
    rustix::fs::fchown(&read, uid, gid).during("fchown")?;
    Ok((read, write))
}

/// Our end never waits; the container's does, as its programs expect.
fn nonblocking(fd: &OwnedFd) -> Result<(), Error> {
    rustix::fs::fcntl_setfl(fd.as_fd(), OFlags::NONBLOCK).during("fcntl")
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Error> {
    fd.try_clone().during("dup")
}
