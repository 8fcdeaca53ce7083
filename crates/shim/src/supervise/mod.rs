//! The loop: one `poll` over everything, and the order in which a container ends.
//!
//! `mod.rs` is the loop, [`calls`](self) in `calls.rs` is what clients ask for, `jobs.rs` is what comes of the runtime's
//! calls, `ending.rs` is the way from the last process's end to ours. No step of any of them waits: what takes time
//! (a runtime call, a reader, a grandchild that holds the output) is a state that a later round looks at again.

mod calls;
mod ending;
mod jobs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use crate::clients::{Clients, Source};
use crate::error::{Context, Error};
use crate::log::Log;
use crate::process::Process;
use crate::runtime::Runtime;
use crate::stdio::Output;
use crate::sys;
use ending::Ending;
use jobs::{Job, Orphan};

/// The init process's place among the processes.
const INIT: u32 = 0;

/// A shim that nobody asks for anything ends after this.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How often a reader is looked for where the kernel will not tell (no inotify instance to be had).
const READER_RETRY: Duration = Duration::from_millis(200);

/// How often, at the longest, a reader is looked after that has not yet read the end of a stream.
const CLOSING_RETRY: Duration = Duration::from_millis(100);

/// What a shim is told on its command line.
#[derive(Debug)]
pub struct Setup {
    /// The container.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// The runtime's name or path.
    pub runtime: String,
    /// The runtime's global arguments.
    pub runtime_args: Vec<String>,
    /// The container's directory, absolute: our working directory.
    pub dir: PathBuf,
    /// Where warnings go.
    pub log: Log,
}

/// A shim at work.
#[derive(Debug)]
pub struct Shim {
    runtime: Runtime,
    dir: PathBuf,
    log: Log,
    signals: SignalFd,
    clients: Clients,
    processes: BTreeMap<u32, Process>,
    next_process: u32,
    jobs: Vec<Job>,
    next_job: u32,
    /// Reaped while a runtime call may yet name them as the container's.
    orphans: Vec<Orphan>,
    ending: Ending,
    /// Init's end does not take all others with it.
    kill_all_needed: bool,
    /// Left behind with readers who have not read the end.
    is_copy: bool,
    /// Only while some FIFO has no reader.
    reader_watch: Option<ReaderWatch>,
    started_at: Instant,
}

#[derive(Debug)]
struct ReaderWatch {
    inotify: Option<rustix::fd::OwnedFd>,
    paths: Vec<PathBuf>,
}

/// What became ready.
#[derive(Debug, Clone, Copy)]
enum Token {
    Signals,
    Client(Source),
    Input(u32),
    Output(u32, usize),
    Terminal(u32),
    Job(u32),
    Readers,
}

impl Shim {
    /// Takes its place in the process tree and listens; from here on clients may connect.
    ///
    /// # Errors
    /// When the kernel refuses any of it.
    pub fn new(setup: Setup) -> Result<Self, Error> {
        let signals = sys::become_reaper()?;
        let oom_score_adj = sys::lower_oom_score().unwrap_or_else(|error| {
            setup.log.warn(&error.to_string());
            None
        });
        Ok(Self {
            runtime: Runtime {
                program: setup.runtime,
                args: setup.runtime_args,
                id: setup.id,
                bundle: setup.bundle,
                oom_score_adj,
            },
            dir: setup.dir,
            log: setup.log,
            signals,
            clients: Clients::listen()?,
            processes: BTreeMap::new(),
            next_process: INIT,
            jobs: Vec::new(),
            next_job: 0,
            orphans: Vec::new(),
            ending: Ending::NotYet,
            kill_all_needed: true,
            is_copy: false,
            reader_watch: None,
            started_at: Instant::now(),
        })
    }

    /// Serves the container until it is gone and everybody was told.
    ///
    /// # Errors
    /// Only when `poll` itself fails.
    pub fn run(&mut self) -> Result<(), Error> {
        loop {
            for (token, flags) in self.wait()? {
                self.serve(token, flags);
            }
            self.check_deadlines();
            self.advance_ending();
            self.watch_for_readers();
            if self.is_finished() || self.is_relieved()? {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Result<Vec<(Token, PollFlags)>, Error> {
        let mut tokens = vec![Token::Signals];
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        for (source, fd, flags) in self.clients.interests() {
            add(Token::Client(source), fd, flags);
        }
        for (&key, process) in &self.processes {
            if let Some((fd, flags)) = process.streams.input.as_ref().and_then(|input| input.interest()) {
                add(Token::Input(key), fd, flags);
            }
            for (index, output) in process.streams.outputs.iter().enumerate() {
                if let Some((fd, flags)) = output.interest() {
                    add(Token::Output(key, index), fd, flags);
                }
            }
            if let Some((fd, flags)) = process.streams.terminal.as_ref().and_then(|terminal| terminal.interest()) {
                add(Token::Terminal(key), fd, flags);
            }
        }
        for job in &self.jobs {
            if let Some(fd) = job.capture.as_ref().and_then(|capture| capture.fd()) {
                add(Token::Job(job.key), fd, PollFlags::IN);
            }
        }
        if let Some(inotify) = self.reader_watch.as_ref().and_then(|watch| watch.inotify.as_ref()) {
            tokens.push(Token::Readers);
            fds.push(PollFd::new(inotify, PollFlags::IN));
        }
        let timeout = self.next_deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).during("poll"),
        }
        let ready = tokens.into_iter().zip(&fds).map(|(token, fd)| (token, fd.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn serve(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Token::Client(Source::Listener) => self.clients.accept(),
            Token::Client(Source::Connection(id)) => {
                if flags.contains(PollFlags::OUT) {
                    self.clients.flush(id);
                }
                while let Some(packet) = self.clients.receive(id) {
                    self.answer(id, &packet);
                }
            }
            Token::Input(key) => {
                if let Some(process) = self.processes.get_mut(&key) {
                    if process.streams.input.as_mut().is_some_and(|input| !input.turn()) {
                        process.streams.input = None;
                    }
                }
            }
            Token::Output(key, index) => {
                let output = self.processes.get_mut(&key).and_then(|process| process.streams.outputs.get_mut(index));
                if let Some(error) = output.and_then(|output| output.turn()) {
                    self.log.warn(&error.to_string());
                }
            }
            Token::Terminal(key) => self.receive_terminal(key),
            Token::Job(key) => {
                if let Some(capture) =
                    self.jobs.iter_mut().find(|job| job.key == key).and_then(|job| job.capture.as_mut())
                {
                    capture.read();
                }
            }
            Token::Readers => self.look_for_readers(),
        }
    }

    fn receive_terminal(&mut self, key: u32) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(terminal) = process.terminal() else { return };
        match terminal.receive() {
            Ok(None) => {}
            Ok(Some((input, mut output))) => {
                let problem = output.turn();
                process.streams.input = input;
                process.streams.outputs.push(output);
                if let Some(error) = problem {
                    self.log.warn(&error.to_string());
                }
            }
            Err(error) => {
                process.streams.terminal = None;
                self.log.error(&error.to_string());
            }
        }
    }

    /// Sees to it that a reader who comes where there is none is noticed.
    fn watch_for_readers(&mut self) {
        let wanted: Vec<PathBuf> =
            self.outputs().filter_map(|output| output.awaits_reader().map(PathBuf::from)).collect();
        if wanted.is_empty() {
            self.reader_watch = None;
            return;
        }
        if self.reader_watch.as_ref().is_some_and(|watch| watch.paths == wanted) {
            return;
        }
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
        let inotify = inotify.filter(|inotify| {
            // Nobody can come to a FIFO that has been removed, which is a change of its attributes.
            let events = inotify::WatchFlags::OPEN | inotify::WatchFlags::ATTRIB;
            let watched = |path| inotify::add_watch(inotify, path, events);
            wanted.iter().all(|path| matches!(watched(path), Ok(_) | Err(rustix::io::Errno::NOENT)))
        });
        self.reader_watch = Some(ReaderWatch { inotify, paths: wanted });
        // Whoever came before the watch was there.
        self.look_for_readers();
    }

    fn look_for_readers(&mut self) {
        if let Some(inotify) = self.reader_watch.as_ref().and_then(|watch| watch.inotify.as_ref()) {
            let mut buffer = [0_u8; 512];
            while matches!(rustix::io::read(inotify, &mut buffer), Ok(count) if count > 0) {}
        }
        for process in self.processes.values_mut() {
            for output in &mut process.streams.outputs {
                output.look_for_reader();
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let draining = self.processes.values().filter_map(Process::drain_deadline);
        let blind = self.reader_watch.as_ref().is_some_and(|watch| watch.inotify.is_none());
        let retry = blind.then(|| Instant::now() + READER_RETRY);
        let idle = (self.is_unused() && self.clients.is_empty()).then(|| self.started_at + IDLE_LIMIT);
        let closing = self.outputs().filter(|output| output.is_closing()).map(|output| {
            let waited = output.moved_at().elapsed();
            Instant::now() + (waited / 8).clamp(Duration::from_millis(1), CLOSING_RETRY)
        });
        draining.chain(closing).chain(retry).chain(idle).chain(self.ending_deadline()).min()
    }

    fn check_deadlines(&mut self) {
        if self.reader_watch.as_ref().is_some_and(|watch| watch.inotify.is_none()) {
            self.look_for_readers();
        }
        let now = Instant::now();
        let mut problems = Vec::new();
        for process in self.processes.values_mut() {
            for output in process.streams.outputs.iter_mut().filter(|output| output.is_closing()) {
                problems.extend(output.turn());
            }
            if process.drain_deadline().is_none_or(|deadline| now < deadline) {
                continue;
            }
            for output in &mut process.streams.outputs {
                if process.reported {
                    problems.extend(output.give_up());
                } else {
                    output.abandon();
                }
            }
            process.released = true;
        }
        for error in problems {
            self.log.warn(&error.to_string());
        }
    }

    fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.processes.values().flat_map(|process| &process.streams.outputs)
    }

    /// Nobody has asked for a container yet.
    fn is_unused(&self) -> bool {
        self.next_process == INIT
    }
}
