//! The two directions of a process's stdio, each a small machine that is stepped when `poll` says so.
//!
//! Between the container and the client's FIFO lies an anonymous pipe (or a terminal), for three reasons: the
//! container can neither see nor hold up the client's FIFO; a checkpoint names the container's ends `pipe:[…]`, which
//! is what a restore can be given new ones for, while a FIFO would be recorded by its path on the host; and the end of
//! the container's output can be told from the end of the client. Data crosses by `splice`: no bytes in this program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use super::sink::{Sink, Step, discard};
use crate::error::{Context, Error};

/// Steps taken for one stream before the others have their turn.
const STEPS_PER_TURN: usize = 32;

/// What the container writes to or reads from, seen from our side.
#[derive(Debug)]
pub(crate) enum Inner {
    /// Our end of an anonymous pipe.
    Pipe(OwnedFd),
    /// A terminal's master.
    Terminal(OwnedFd),
}

impl Inner {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(fd) | Self::Terminal(fd) => fd.as_fd(),
        }
    }
}

/// What a stream waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Source,
    Target,
    /// Only something from outside gets it going again.
    Nothing,
}

/// The container's output on its way to the client.
#[derive(Debug)]
pub(crate) struct Output {
    /// Gone once it has ended.
    source: Option<Inner>,
    /// Gone once everything was given on, or once nobody is to have it any more.
    sink: Option<Sink>,
    wait: Wait,
    /// See [`Output::abandon`].
    abandoned: bool,
    /// The stream is at its end, and the reader is given time to read it.
    closing: bool,
    /// When something last moved towards the client.
    moved_at: Instant,
}

impl Output {
    pub(crate) fn new(source: Inner, sink: Sink) -> Self {
        Self {
            source: Some(source),
            sink: Some(sink),
            wait: Wait::Source,
            abandoned: false,
            closing: false,
            moved_at: Instant::now(),
        }
    }

    /// What to poll for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self.wait {
            Wait::Source => self.source.as_ref().map(|source| (source.fd(), PollFlags::IN)),
            Wait::Target => self.sink.as_ref().map(|sink| (sink.fd(), PollFlags::OUT)),
            Wait::Nothing => None,
        }
    }

    /// The FIFO to watch for a reader, when there is none.
    pub(crate) fn awaits_reader(&self) -> Option<&Path> {
        self.sink.as_ref().filter(|sink| sink.is_readerless()).map(Sink::path)
    }

    /// Looks whether a reader has come, and if so, goes on.
    pub(crate) fn look_for_reader(&mut self) {
        if let Some(sink) = self.sink.as_mut().filter(|sink| sink.is_readerless()) {
            sink.look_for_reader();
            if !sink.is_readerless() || self.wait == Wait::Nothing {
                self.turn();
            }
        }
    }

    /// Everything that will come has come and was given on or left for later.
    pub(crate) fn is_done(&self) -> bool {
        self.sink.as_ref().is_none_or(|_| self.is_closing())
    }

    /// All was given on, and only the reader has not read it all. The kernel does not tell when it has, so this is to
    /// be given a turn from time to time.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing && self.sink.as_ref().is_some_and(|sink| !sink.has_backlog())
    }

    /// The client has everything it will have of us.
    pub(crate) fn is_delivered(&self) -> bool {
        self.sink.is_none()
    }

    /// The container can write no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.source.is_none()
    }

    /// Neither the container nor the client has anything to do with it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.sink.is_none() && self.source.is_none()
    }

    /// When the client last took something.
    pub(crate) fn moved_at(&self) -> Instant {
        self.moved_at
    }

    /// Moves what can be moved now. Gives what went wrong at the end of the stream.
    pub(crate) fn turn(&mut self) -> Option<Error> {
        for _ in 0..STEPS_PER_TURN {
            self.wait = match self.step() {
                Some(Step::Moved) => {
                    self.moved_at = Instant::now();
                    continue;
                }
                Some(Step::SourceEnded) => {
                    self.source = None;
                    continue;
                }
                Some(Step::SourceEmpty) => Wait::Source,
                Some(Step::SinkFull) => Wait::Target,
                Some(Step::Stuck) => Wait::Nothing,
                None => {
                    let problem = self.close();
                    if problem.is_none() && self.sink.is_none() && self.source.is_some() {
                        // Abandoned: the rest of what comes is thrown away.
                        continue;
                    }
                    self.wait = if self.has_backlog() { Wait::Target } else { Wait::Nothing };
                    return problem;
                }
            };
            return None;
        }
        // More to do: both ends are likely ready, so that poll comes straight back.
        self.wait = if self.source.is_some() && !self.has_backlog() { Wait::Source } else { Wait::Target };
        None
    }

    /// The process is not waited for longer: what it wrote until now is kept for the client, what it writes from here
    /// on is thrown away (a pipe stays open, so that whoever holds it is not killed by writing; a terminal hangs up).
    pub(crate) fn abandon(&mut self) {
        if let (Some(source), Some(sink)) = (&self.source, &mut self.sink) {
            match source {
                Inner::Pipe(pipe) => sink.keep_rest_of_pipe(pipe.as_fd()),
                Inner::Terminal(master) => {
                    sink.keep_rest_of_terminal(master.as_fd());
                    self.source = None;
                }
            }
            self.abandoned = true;
            self.turn();
        }
    }

    /// Leaves what the reader has not taken in the FIFO's place: it has had its time.
    pub(crate) fn give_up(&mut self) -> Option<Error> {
        self.sink.take()?.replace().err()
    }

    fn has_backlog(&self) -> bool {
        self.sink.as_ref().is_some_and(Sink::has_backlog)
    }

    /// One step; `None` when all that was to be given on was given on.
    fn step(&mut self) -> Option<Step> {
        let has_ended = self.source.is_none() || self.abandoned;
        match (&self.source, &mut self.sink) {
            (_, Some(sink)) if has_ended => (sink.has_backlog() && !sink.is_readerless()).then(|| sink.give_backlog()),
            (Some(Inner::Pipe(pipe)), Some(sink)) => Some(sink.take_pipe(pipe.as_fd())),
            (Some(Inner::Terminal(master)), Some(sink)) => Some(sink.take_terminal(master.as_fd())),
            (Some(source), None) => Some(discard(source.fd())),
            (None, _) => None,
        }
    }

    /// Ends the client's stream as far as that can be done now.
    fn close(&mut self) -> Option<Error> {
        match self.sink.take()?.close() {
            Ok(sink) => {
                self.closing = sink.is_some();
                self.sink = sink;
                None
            }
            Err(error) => Some(error),
        }
    }
}

/// The client's input on its way to the container.
#[derive(Debug)]
pub(crate) struct Input {
    source: OwnedFd,
    /// A write end of the FIFO, so that a client that goes away is not taken for the end of the input.
    keep_open: Option<OwnedFd>,
    target: Inner,
    /// Read and not yet taken by the terminal.
    pending: Vec<u8>,
    /// End with the input that is there now.
    closing: bool,
    wait: Wait,
}

impl Input {
    /// Opens the client's FIFO or file. Never waits.
    pub(crate) fn open(path: &Path) -> Result<(OwnedFd, Option<OwnedFd>), Error> {
        let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let stat = rustix::fs::stat(path).at("stat", path)?;
        let source = rustix::fs::open(path, OFlags::RDONLY | flags, Mode::empty()).at("open", path)?;
        let keep_open = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => Some(rustix::fs::open(path, OFlags::WRONLY | flags, Mode::empty()).at("open", path)?),
            _ => None,
        };
        Ok((source, keep_open))
    }

    pub(crate) fn new((source, keep_open): (OwnedFd, Option<OwnedFd>), target: Inner) -> Self {
        Self { source, keep_open, target, pending: Vec::new(), closing: false, wait: Wait::Source }
    }

    /// What to poll for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self.wait {
            Wait::Source => Some((self.source.as_fd(), PollFlags::IN)),
            Wait::Target => Some((self.target.fd(), PollFlags::OUT)),
            Wait::Nothing => None,
        }
    }

    /// From here on the end of what is in the FIFO is the end of the input.
    pub(crate) fn close_when_empty(&mut self) {
        self.keep_open = None;
        self.closing = true;
    }

    /// Moves what can be moved now; false once the input has ended and is to be dropped.
    pub(crate) fn turn(&mut self) -> bool {
        for _ in 0..STEPS_PER_TURN {
            let step = match &self.target {
                Inner::Pipe(pipe) => splice_input(self.source.as_fd(), pipe.as_fd()),
                Inner::Terminal(_) => self.step_terminal(),
            };
            match step {
                Step::Moved => {}
                Step::SourceEmpty if self.closing => return false,
                Step::SourceEmpty => {
                    self.wait = Wait::Source;
                    return true;
                }
                Step::SinkFull | Step::Stuck => {
                    self.wait = Wait::Target;
                    return true;
                }
                Step::SourceEnded => return false,
            }
        }
        true
    }

    fn step_terminal(&mut self) -> Step {
        if self.pending.is_empty() {
            let mut buffer = [0_u8; 1024];
            match rustix::io::read(&self.source, &mut buffer) {
                Ok(0) => return Step::SourceEnded,
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN) => return Step::SourceEmpty,
                Err(Errno::INTR) => return Step::Moved,
                Err(_) => return Step::SourceEnded,
            }
        }
        match rustix::io::write(self.target.fd(), &self.pending) {
            Ok(count) => {
                self.pending.drain(..count);
                Step::Moved
            }
            Err(Errno::AGAIN) => Step::SinkFull,
            Err(Errno::INTR) => Step::Moved,
            Err(_) => Step::SourceEnded,
        }
    }
}

fn splice_input(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Step {
    match rustix::pipe::splice(source, None, target, None, 64 << 10, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
        Ok(0) => Step::SourceEnded,
        Ok(_) | Err(Errno::INTR) => Step::Moved,
        Err(Errno::AGAIN) => match rustix::io::ioctl_fionread(source) {
            Ok(0) | Err(_) => Step::SourceEmpty,
            Ok(_) => Step::SinkFull,
        },
        // The container has closed its input, or the source cannot be read: either way it is over.
        Err(_) => Step::SourceEnded,
    }
}
