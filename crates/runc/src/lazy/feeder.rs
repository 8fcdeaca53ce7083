//! Gives a woken container its memory: at once what it asks for, and the rest as fast as it goes.
//!
//! Each of its address spaces is a [`Uffd`] that CRIU sends us over a socket, with the pid whose images it is to be
//! filled from. The kernel tells of every fault, and of every fork, move and unmapping, *before* that takes effect, and
//! refuses our copies (`EAGAIN`) until we have read of it; so the order is always: read all events, then copy.
//!
//! The kernel copies straight from the pages file, which is mapped here. Only the kernel touches that mapping, so that a
//! file that turns out to be cut short is an error and nothing worse.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use criu::pagemap::{PAGE_BYTES, Pagemap, Range};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::ranges::Ranges;
use super::uffd::{Event, Mapping, Part, Uffd};
use crate::error::{Doing, Error, Result};

/// What is loaded at once while nobody waits; a fault waits no longer than that takes.
const CHUNK_BYTES: u64 = 256 << 10;
/// What is loaded around a page that is waited for.
const FAULT_BYTES: u64 = 64 << 10;
/// CRIU's word for: every task is made and about to run (`criu/uffd.c`).
const RESTORED: u32 = 0x5253_5446;
/// How long memory is asked for again when the container's limit leaves none.
const MEMORY_PATIENCE: Duration = Duration::from_secs(20);
/// What a message of CRIU's may take, once it has begun.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(10);

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every page is where it belongs.
    Loaded,
    /// CRIU gave up before anything ran.
    NotRestored,
}

struct Task {
    uffd: Uffd,
    ranges: Ranges,
    pages: Rc<Mapping>,
    /// Faults that could not be answered yet. Nobody tells us of them again.
    waiting: Vec<u64>,
    /// Its memory is just being changed, so that nothing can be copied for a moment.
    changing: bool,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// As far as it is wanted.
    All,
    /// Up to this address; the task changes its memory, which has to be read of first.
    UpTo(u64),
    /// The task has ended.
    Gone,
}

/// The work of one wake.
pub struct Feeder {
    images: OwnedFd,
    tasks: Vec<Task>,
    memory_deadline: Option<Instant>,
}

impl Feeder {
    /// Will fill from these images.
    pub fn new(images: OwnedFd) -> Self {
        Feeder { images, tasks: Vec::new(), memory_deadline: None }
    }

    /// Serves until all is loaded. `criu` is CRIU's connection; `keeper` becomes readable when the one who watches us
    /// has ended.
    pub fn run(&mut self, criu: OwnedFd, keeper: &OwnedFd) -> Result<Outcome> {
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&criu, timeout, Some(MESSAGE_PATIENCE))
            .doing(|| "set up the connection to criu".into())?;
        let mut connection = Some(criu);
        loop {
            let restored = connection.is_none();
            if restored {
                self.tasks.retain(|task| !task.ranges.is_empty() || !task.waiting.is_empty());
                if self.tasks.is_empty() {
                    return Ok(Outcome::Loaded);
                }
            }
            let ready = self.wait(connection.as_ref(), keeper, restored)?;
            if ready.keeper {
                return Err(Error::Conflict(
                    "the process that watches over the loading of its memory was killed".into(),
                ));
            }
            self.read_events(&ready.tasks)?;
            self.answer_waiting()?;
            if restored {
                self.load_some()?;
            } else if ready.connection
                && let Some(criu) = &connection
            {
                match self.greet(criu)? {
                    Greeting::Task => (),
                    Greeting::Restored => connection = None,
                    Greeting::End => return Ok(Outcome::NotRestored),
                }
            }
        }
    }

    /// Waits for something to do; while there is something to load it only looks.
    fn wait(&self, connection: Option<&OwnedFd>, keeper: &OwnedFd, restored: bool) -> Result<Ready> {
        let mut watched: Vec<PollFd<'_>> =
            self.tasks.iter().map(|task| PollFd::from_borrowed_fd(task.uffd.as_fd(), PollFlags::IN)).collect();
        watched.push(PollFd::new(keeper, PollFlags::IN));
        watched.extend(connection.map(|connection| PollFd::new(connection, PollFlags::IN)));
        let free = self.tasks.iter().any(|task| !task.changing && !task.ranges.is_empty());
        let held_up = self.tasks.iter().any(|task| task.changing || !task.waiting.is_empty());
        let limit = if restored && free && self.memory_deadline.is_none() {
            Some(Timespec { tv_sec: 0, tv_nsec: 0 })
        } else if held_up || self.memory_deadline.is_some() {
            Some(Timespec { tv_sec: 0, tv_nsec: 1_000_000 })
        } else {
            None
        };
        match poll(&mut watched, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(errno) => return Err(errno).doing(|| "wait for page faults".into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let (tasks, others) = watched.split_at(self.tasks.len());
        Ok(Ready {
            tasks: tasks.iter().map(is_ready).collect(),
            keeper: others.first().is_some_and(is_ready),
            connection: others.get(1).is_some_and(is_ready),
        })
    }

    /// Takes CRIU's next message: a task's pid and descriptor, a pid below zero for one that has ended, or its last word.
    fn greet(&mut self, criu: &OwnedFd) -> Result<Greeting> {
        let doing = || "receive from criu".to_owned();
        let mut word = [0; 4];
        let (length, _) = rustix::net::recv(criu, &mut word, RecvFlags::WAITALL).doing(doing)?;
        if length == 0 {
            return Ok(Greeting::End);
        }
        let word = u32::from_ne_bytes(word);
        if length != 4 {
            return Err(criu::Error::Protocol("a message about lazy pages was cut".into()).into());
        }
        if word == RESTORED {
            return Ok(Greeting::Restored);
        }
        let pid = word as i32;
        if pid <= 0 {
            return Ok(Greeting::Task);
        }
        let uffd = receive_descriptor(criu)?;
        let map = Pagemap::read(&self.images, pid)?;
        let pages = map.open_pages(&self.images)?;
        let pages = Rc::new(Mapping::of(&pages, map.file_bytes).doing(|| "map the checkpoint's memory".into())?);
        tracing::debug!("process {pid} lacks {} bytes", map.lazy_bytes());
        let ranges = Ranges::new(&map.lazy);
        self.tasks.push(Task { uffd: uffd.into(), ranges, pages, waiting: Vec::new(), changing: false });
        Ok(Greeting::Task)
    }

    fn read_events(&mut self, ready: &[bool]) -> Result<()> {
        let mut children = Vec::new();
        for (task, ready) in self.tasks.iter_mut().zip(ready) {
            if !*ready && !task.changing {
                continue;
            }
            let events = task.uffd.events().doing(|| "read page faults".into())?;
            if !events.is_empty() {
                task.changing = false;
            }
            for event in events {
                match event {
                    Event::Fault(address) => task.waiting.push(address - address % PAGE_BYTES),
                    Event::Fork(uffd) => children.push(Task {
                        uffd,
                        ranges: task.ranges.clone(),
                        pages: Rc::clone(&task.pages),
                        waiting: Vec::new(),
                        changing: false,
                    }),
                    Event::Remap { from, to, bytes } => task.ranges.remap(from, to, bytes),
                    Event::Gone(start, end) => task.ranges.drop(start, end),
                }
            }
        }
        self.tasks.append(&mut children);
        Ok(())
    }

    /// Gives what is waited for.
    fn answer_waiting(&mut self) -> Result<()> {
        let mut index = 0;
        while index < self.tasks.len() {
            let waiting = std::mem::take(&mut self.tasks[index].waiting);
            let mut gone = false;
            for address in waiting {
                let Feeder { tasks, memory_deadline, .. } = self;
                let task = &mut tasks[index];
                let copied = match task.ranges.around(address, FAULT_BYTES) {
                    Some(range) => task.give(range, memory_deadline)?,
                    None => task.give_nothing(address)?,
                };
                match copied {
                    Copied::UpTo(end) if address >= end => task.waiting.push(address),
                    Copied::Gone => gone = true,
                    Copied::All | Copied::UpTo(_) => (),
                }
            }
            if gone {
                self.tasks.swap_remove(index);
            } else {
                index += 1;
            }
        }
        Ok(())
    }

    /// Loads one piece for one task that is ready for it.
    fn load_some(&mut self) -> Result<()> {
        let Feeder { tasks, memory_deadline, .. } = self;
        let free = tasks.iter().position(|task| !task.changing && !task.ranges.is_empty());
        let Some(index) = free.or_else(|| tasks.iter().position(|task| !task.ranges.is_empty())) else {
            return Ok(());
        };
        let Some(range) = tasks[index].ranges.next(CHUNK_BYTES) else { return Ok(()) };
        if tasks[index].give(range, memory_deadline)? == Copied::Gone {
            tasks.swap_remove(index);
        }
        Ok(())
    }
}

impl Task {
    /// Copies a range from the file, and notes what is done.
    fn give(&mut self, range: Range, memory_deadline: &mut Option<Instant>) -> Result<Copied> {
        let cut_short = || Error::CannotRestore("a pages file of the checkpoint was cut short".into());
        let part = self.pages.part(range.offset, range.end - range.start).ok_or_else(cut_short)?;
        part.read().map_err(|err| match err.raw_os_error() {
            Some(libc::EFAULT) => cut_short(),
            _ => Error::Io { what: "read the memory in the checkpoint".into(), source: err },
        })?;
        let copied = copy(&self.uffd, range.start, part, memory_deadline)?;
        part.forget();
        match copied {
            Copied::All => {
                self.ranges.drop(range.start, range.end);
                self.changing = false;
            }
            Copied::UpTo(end) => {
                self.ranges.drop(range.start, end);
                self.changing = true;
            }
            Copied::Gone => (),
        }
        Ok(copied)
    }

    /// A page that the images do not have: it was empty.
    fn give_nothing(&mut self, address: u64) -> Result<Copied> {
        match self.uffd.zero(address, PAGE_BYTES) {
            Ok(()) => Ok(Copied::All),
            // It is there by now, or nobody wants it any more: whoever waits finds out by looking again.
            Err(Errno::EXIST | Errno::NOENT) => {
                let _ = self.uffd.wake(address, PAGE_BYTES);
                Ok(Copied::All)
            }
            Err(Errno::AGAIN | Errno::NOMEM) => Ok(Copied::UpTo(address)),
            Err(Errno::SRCH) => Ok(Copied::Gone),
            Err(errno) => Err(errno).doing(|| "give the container an empty page".into()),
        }
    }
}

/// Copies a part of the file into a task, as far as that is possible.
fn copy(uffd: &Uffd, start: u64, part: Part<'_>, memory_deadline: &mut Option<Instant>) -> Result<Copied> {
    let mut done = 0;
    // A piece that crosses a border between two areas is refused as a whole.
    let mut piece = part.bytes();
    while done < part.bytes() {
        let address = start + done;
        let wanted = part.from(done, piece);
        let (copied, answer) = uffd.copy(address, wanted);
        done += copied;
        if copied > 0 {
            *memory_deadline = None;
        }
        match answer {
            Ok(()) => piece = part.bytes(),
            Err(Errno::AGAIN) if copied > 0 => (),
            Err(Errno::AGAIN) => return Ok(Copied::UpTo(address)),
            Err(Errno::EXIST) => {
                // Somebody was faster: a fault of another thread.
                let _ = uffd.wake(address, PAGE_BYTES);
                done += PAGE_BYTES;
            }
            Err(Errno::NOENT) if wanted.bytes() > PAGE_BYTES => {
                piece = (wanted.bytes() / 2).next_multiple_of(PAGE_BYTES);
            }
            // Unmapped, or no longer ours to fill: nobody can miss it.
            Err(Errno::NOENT) => done += PAGE_BYTES,
            Err(Errno::SRCH) => return Ok(Copied::Gone),
            Err(Errno::NOMEM) => {
                let deadline = *memory_deadline.get_or_insert_with(|| Instant::now() + MEMORY_PATIENCE);
                if Instant::now() > deadline {
                    return Err(Error::Conflict("its memory limit leaves no room for its memory".into()));
                }
                return Ok(Copied::UpTo(address));
            }
            Err(errno) => return Err(errno).doing(|| "give the container its memory".into()),
        }
    }
    Ok(Copied::All)
}

struct Ready {
    tasks: Vec<bool>,
    keeper: bool,
    connection: bool,
}

enum Greeting {
    Task,
    Restored,
    End,
}

fn receive_descriptor(criu: &OwnedFd) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(criu, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .doing(|| "receive from criu".into())?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| criu::Error::Protocol("a task's memory came without its descriptor".into()).into())
}
