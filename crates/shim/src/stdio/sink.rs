//! Where a process's output goes: the client's FIFO (or file), and, while nobody reads it, a spill file.
//!
//! A FIFO keeps its content only while somebody has it open, a write to one without a reader fails, and one that is
//! full makes the container wait. So:
//!
//! * The shim holds a *write* end for as long as the process may write. What is in the FIFO outlives its reader, and
//!   the next reader gets it.
//! * **Nobody reads**: output goes to an unnamed spill file, at most [`SPILL_LIMIT_BYTES`], so that the container goes
//!   on. Beyond that it waits, as with a slow reader; nothing is thrown away, unless the FIFO has been removed, so
//!   that nobody can ever come.
//! * **A reader comes late**: it is given what the FIFO still held, then the spill, then what follows.
//! * **A reader is slow**: the container waits for it.
//! * **The process ended and the reader has not read all**: the FIFO is held until it has, so that nothing is lost if
//!   the reader goes before.
//! * **The process ended and nobody reads**: what is left is put into an ordinary file that takes the FIFO's name
//!   ([`Sink::close`]). Whoever opens that name later reads the rest and its end, and never waits for a writer.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::error::{Context, Error};

/// What is kept of one stream's output while nobody reads it.
pub(crate) const SPILL_LIMIT_BYTES: u64 = 64 << 20;

/// How much is moved in one step.
const STEP_BYTES: usize = 16 << 10;

/// Steps that take whatever is in a pipe of the usual size, and end although somebody goes on writing.
const REST_STEPS: usize = 64;

/// One destination of output.
#[derive(Debug)]
pub(crate) struct Sink {
    fd: OwnedFd,
    path: PathBuf,
    is_fifo: bool,
    /// The last write found no reader, and none was seen since.
    readerless: bool,
    spill_dir: PathBuf,
    spill: Option<Spill>,
    /// An ordinary file with all that was not read has taken the FIFO's name.
    replaced: bool,
    /// Writing fails for a reason that will not pass (a full disk under an ordinary file): output is thrown away.
    broken: bool,
}

#[derive(Debug)]
struct Spill {
    file: File,
    /// Given on up to here.
    read_bytes: u64,
    /// Kept up to here.
    written_bytes: u64,
}

/// How far a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was moved; try again.
    Moved,
    /// The source has nothing now.
    SourceEmpty,
    /// The source will never have anything again.
    SourceEnded,
    /// The sink is full; wait until it can be written.
    SinkFull,
    /// Nobody reads and the spill is full: wait for a reader.
    Stuck,
}

impl Sink {
    /// Opens `path`, which must exist, for output. Never waits.
    pub(crate) fn open(path: &Path, spill_dir: &Path) -> Result<Self, Error> {
        let stat = rustix::fs::stat(path).at("stat", path)?;
        let is_fifo = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // A FIFO without a reader can only be opened for writing by one who reads it as well. The reading half goes
        // away at once, so that the readers that remain are the client's.
        let reading = match is_fifo {
            true => Some(rustix::fs::open(path, OFlags::RDWR | flags, Mode::empty()).at("open", path)?),
            false => None,
        };
        let fd = rustix::fs::open(path, OFlags::WRONLY | flags, Mode::empty()).at("open", path)?;
        drop(reading);
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            // Not O_APPEND, which splice refuses.
            rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0)).at("seek", path)?;
        }
        let (path, spill_dir) = (path.to_path_buf(), spill_dir.to_path_buf());
        Ok(Self { fd, path, is_fifo, readerless: false, spill_dir, spill: None, replaced: false, broken: false })
    }

    /// What to poll for room.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The client's name for it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nobody was reading when it was last written.
    pub(crate) fn is_readerless(&self) -> bool {
        self.readerless
    }

    /// Whether something waits in the spill.
    pub(crate) fn has_backlog(&self) -> bool {
        self.spill.is_some()
    }

    /// Looks whether somebody reads now.
    pub(crate) fn look_for_reader(&mut self) {
        self.readerless = self.is_fifo && !has_reader(self.fd.as_fd());
    }

    /// Moves what a pipe holds one step on its way, without copying it through us.
    pub(crate) fn take_pipe(&mut self, source: BorrowedFd<'_>) -> Step {
        if let Some(step) = self.before_taking() {
            return step;
        }
        if self.broken {
            return discard(source);
        }
        if self.readerless {
            return self.spill_pipe(source);
        }
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(source, None, &self.fd, None, STEP_BYTES * 4, flags) {
            Ok(0) => Step::SourceEnded,
            Ok(_) => Step::Moved,
            Err(Errno::AGAIN) => match rustix::io::ioctl_fionread(source) {
                Ok(0) | Err(_) => Step::SourceEmpty,
                Ok(_) => Step::SinkFull,
            },
            Err(Errno::INTR) => Step::Moved,
            Err(errno) => self.failed(errno),
        }
    }

    /// Moves what a terminal's master holds one step on its way.
    pub(crate) fn take_terminal(&mut self, master: BorrowedFd<'_>) -> Step {
        if let Some(step) = self.before_taking() {
            return step;
        }
        if self.readerless && self.spill_is_full() {
            return self.stuck(master);
        }
        // Nothing may be read that could not be put somewhere.
        if !self.readerless && !self.broken && !has_room(self.fd.as_fd()) {
            return Step::SinkFull;
        }
        let mut buffer = [0_u8; 4096];
        let read = match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(Errno::IO) => return Step::SourceEnded,
            Ok(count) => &buffer[..count],
            Err(Errno::AGAIN) => return Step::SourceEmpty,
            Err(Errno::INTR) => return Step::Moved,
            Err(_) => return Step::SourceEnded,
        };
        let mut written = 0;
        while written < read.len() && !self.readerless && !self.broken {
            match rustix::io::write(&self.fd, &read[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => {
                    self.failed(errno);
                }
            }
        }
        if !self.broken && written < read.len() && self.keep(&read[written..]).is_err() {
            self.broken = true;
        }
        Step::Moved
    }

    /// Moves one step of the spill to whoever reads.
    pub(crate) fn give_backlog(&mut self) -> Step {
        let Some(spill) = &mut self.spill else { return Step::SourceEmpty };
        let mut buffer = [0_u8; STEP_BYTES];
        let count = match spill.file.read_at(&mut buffer, spill.read_bytes) {
            Ok(count) if count > 0 => count,
            // Fewer bytes than we wrote: somebody else's doing, and nothing more to be had.
            _ => {
                self.spill = None;
                return Step::Moved;
            }
        };
        match rustix::io::write(&self.fd, &buffer[..count]) {
            Ok(count) => {
                spill.read_bytes += count as u64;
                if spill.read_bytes >= spill.written_bytes {
                    self.spill = None;
                }
                Step::Moved
            }
            Err(Errno::INTR) => Step::Moved,
            Err(Errno::AGAIN) => Step::SinkFull,
            Err(errno) => self.failed(errno),
        }
    }

    /// Takes what a pipe holds now into the spill, whoever reads; for a process that is not waited for longer.
    pub(crate) fn keep_rest_of_pipe(&mut self, source: BorrowedFd<'_>) {
        for _ in 0..REST_STEPS {
            if self.broken || self.spill_pipe(source) != Step::Moved {
                return;
            }
        }
    }

    /// The same for a terminal.
    pub(crate) fn keep_rest_of_terminal(&mut self, master: BorrowedFd<'_>) {
        let mut buffer = [0_u8; 4096];
        for _ in 0..REST_STEPS {
            match rustix::io::read(master, &mut buffer) {
                Ok(count) if count > 0 && self.keep(&buffer[..count]).is_ok() => {}
                _ => return,
            }
        }
    }

    /// Ends the stream. With a reader, it is told by the end of file; without one, everything that was not read takes
    /// the FIFO's place as an ordinary file. Gives the sink back while the reader has not taken everything: should it
    /// go before it has, what it left is still there; and should one come just now, it is owed the spill.
    pub(crate) fn close(mut self) -> Result<Option<Self>, Error> {
        if !self.is_fifo || self.broken {
            return Ok(None);
        }
        if !self.replaced && !has_reader(self.fd.as_fd()) {
            self.leave_rest()?;
            self.replaced = true;
        }
        self.look_for_reader();
        let is_owed = !self.readerless && (self.spill.is_some() || self.has_content());
        Ok(is_owed.then_some(self))
    }

    /// Whether something that was given on has not been read yet.
    fn has_content(&self) -> bool {
        matches!(rustix::io::ioctl_fionread(&self.fd), Ok(count) if count > 0)
    }

    /// Leaves what is left as an ordinary file even though somebody holds the FIFO open and does not read it.
    pub(crate) fn replace(mut self) -> Result<(), Error> {
        if !self.is_fifo || self.replaced {
            return Ok(());
        }
        self.leave_rest()
    }

    fn leave_rest(&mut self) -> Result<(), Error> {
        let Some(dir) = self.path.parent() else { return Ok(()) };
        let Ok(stat) = rustix::fs::stat(&self.path) else {
            // Removed by the client, who therefore does not want it.
            return Ok(());
        };
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".rest");
        let temporary = dir.join(name);
        let mut rest = File::create(&temporary).at("create", &temporary)?;
        rustix::fs::fchmod(&rest, Mode::from_raw_mode(stat.st_mode)).at("chmod", &temporary)?;
        let (owner, group) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&rest, Some(owner), Some(group)).at("chown", &temporary)?;

        // The FIFO's content is copied, not taken: a reader that opens it before the name changes finds it complete.
        copy_pipe(&self.path, &rest).at("read", &self.path)?;
        if let Some(spill) = &self.spill {
            let (mut at, mut buffer) = (spill.read_bytes, [0_u8; STEP_BYTES]);
            while at < spill.written_bytes {
                let count = spill.file.read_at(&mut buffer, at).during("read spill")?;
                if count == 0 {
                    break;
                }
                rest.write_all(&buffer[..count]).at("write", &temporary)?;
                at += count as u64;
            }
        }
        std::fs::rename(&temporary, &self.path).at("rename", &temporary)
    }

    fn before_taking(&mut self) -> Option<Step> {
        if self.readerless || self.spill.is_none() {
            return None;
        }
        Some(self.give_backlog())
    }

    fn failed(&mut self, errno: Errno) -> Step {
        if errno == Errno::PIPE && self.is_fifo {
            self.readerless = true;
        } else {
            self.broken = true;
        }
        Step::Moved
    }

    fn spill(&mut self) -> std::io::Result<&mut Spill> {
        if self.spill.is_none() {
            let path = self.spill_dir.join(format!(".spill-{}", std::process::id()));
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            self.spill = Some(Spill { file, read_bytes: 0, written_bytes: 0 });
        }
        self.spill.as_mut().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn spill_is_full(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.written_bytes - spill.read_bytes >= SPILL_LIMIT_BYTES)
    }

    /// Waits for a reader, unless the FIFO has been removed and nobody can come any more.
    fn stuck(&mut self, source: BorrowedFd<'_>) -> Step {
        let same_file = |path: &rustix::fs::Stat, fd: &rustix::fs::Stat| path.st_ino == fd.st_ino;
        match (rustix::fs::stat(&self.path), rustix::fs::fstat(&self.fd)) {
            (Ok(path), Ok(fd)) if same_file(&path, &fd) => Step::Stuck,
            _ => {
                self.broken = true;
                self.spill = None;
                discard(source)
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let spill = self.spill()?;
        spill.file.write_all_at(bytes, spill.written_bytes)?;
        spill.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn spill_pipe(&mut self, source: BorrowedFd<'_>) -> Step {
        // Not made before there is something to keep.
        if self.spill.is_none() && matches!(rustix::io::ioctl_fionread(source), Ok(0)) {
            return if has_ended(source) { Step::SourceEnded } else { Step::SourceEmpty };
        }
        if self.spill_is_full() {
            return self.stuck(source);
        }
        let Ok(spill) = self.spill() else { return Step::Stuck };
        let end = Some(&mut spill.written_bytes);
        match rustix::pipe::splice(source, None, &spill.file, end, STEP_BYTES * 4, SpliceFlags::NONBLOCK) {
            Ok(0) => Step::SourceEnded,
            Ok(_) => Step::Moved,
            Err(Errno::AGAIN) => Step::SourceEmpty,
            Err(Errno::INTR) => Step::Moved,
            // A full disk: wait for a reader, as with a full spill.
            Err(_) => Step::Stuck,
        }
    }
}

/// Throws away one step of what a pipe holds.
pub(crate) fn discard(source: BorrowedFd<'_>) -> Step {
    let mut buffer = [0_u8; 4096];
    match rustix::io::read(source, &mut buffer) {
        Ok(0) | Err(Errno::IO) => Step::SourceEnded,
        Ok(_) | Err(Errno::INTR) => Step::Moved,
        Err(Errno::AGAIN) => Step::SourceEmpty,
        Err(_) => Step::SourceEnded,
    }
}

fn look(fd: BorrowedFd<'_>, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

fn has_reader(fd: BorrowedFd<'_>) -> bool {
    !look(fd, PollFlags::OUT).contains(PollFlags::ERR)
}

fn has_room(fd: BorrowedFd<'_>) -> bool {
    look(fd, PollFlags::OUT).intersects(PollFlags::OUT | PollFlags::ERR)
}

fn has_ended(fd: BorrowedFd<'_>) -> bool {
    look(fd, PollFlags::IN).contains(PollFlags::HUP)
}

/// Copies what the FIFO holds to `file`, leaving it there if the kernel lets us look at it whole.
fn copy_pipe(path: &Path, file: &File) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fifo = rustix::fs::open(path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fifo)?.st_mode) != FileType::Fifo {
        return Ok(());
    }
    let size_bytes = rustix::io::ioctl_fionread(&fifo)? as usize;
    if size_bytes == 0 {
        return Ok(());
    }
    let (copy_out, copy_in) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Without room enough the copy comes out short, which is looked at below.
    let _ = rustix::pipe::fcntl_setpipe_size(&copy_in, rustix::pipe::fcntl_getpipe_size(&fifo)?);
    let copied = rustix::pipe::tee(&fifo, &copy_in, size_bytes, SpliceFlags::NONBLOCK)?;
    let source = if copied == size_bytes { &copy_out } else { &fifo };
    let mut left = size_bytes;
    while left > 0 {
        match rustix::pipe::splice(source, None, file, None, left, SpliceFlags::NONBLOCK) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(count) => left -= count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
