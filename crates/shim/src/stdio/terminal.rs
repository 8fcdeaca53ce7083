//! A terminal: the runtime makes it inside the container and sends us its master over a console socket.
//!
//! The socket is listened on before the runtime is started, is served by the same loop as everything else, and goes
//! away with its file as soon as the master has come. While the process lives we hold a slave too, so that a program
//! that closes and opens its terminal again is not taken for one that has ended; once the process has ended the slave
//! is dropped and the master read until the kernel reports the hangup.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::pump::{Inner, Input, Output};
use super::sink::Sink;
use crate::error::{Context, Error};

type Source = Option<(OwnedFd, Option<OwnedFd>)>;

/// A process's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    stage: Stage,
    /// The size that was asked for before there was anything to size.
    size: Option<Winsize>,
}

#[derive(Debug)]
enum Stage {
    Waiting {
        listener: OwnedFd,
        file: PathBuf,
        connection: Option<OwnedFd>,
        ends: Box<(Source, Sink)>,
    },
    Open {
        master: OwnedFd,
        slave: Option<OwnedFd>,
    },
    /// Lost on the way.
    Failed,
}

impl Terminal {
    /// Listens for the master at `file`, a path short enough for a socket address.
    pub(super) fn listen(file: &Path, source: Source, sink: Sink) -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).during("socket")?;
        let _ = fs::remove_file(file);
        let address = SocketAddrUnix::new(file).at("bind", file)?;
        rustix::net::bind(&listener, &address).at("bind", file)?;
        let ends = Box::new((source, sink));
        let terminal =
            Self { stage: Stage::Waiting { listener, file: file.to_path_buf(), connection: None, ends }, size: None };
        let Stage::Waiting { listener, .. } = &terminal.stage else { return Ok(terminal) };
        rustix::net::listen(listener, 1).at("listen", file)?;
        Ok(terminal)
    }

    /// What to poll for while the master has not come.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.stage {
            Stage::Waiting { connection: Some(connection), .. } => Some((connection.as_fd(), PollFlags::IN)),
            Stage::Waiting { listener, .. } => Some((listener.as_fd(), PollFlags::IN)),
            Stage::Open { .. } | Stage::Failed => None,
        }
    }

    /// Takes the master if it is there; gives the streams that it makes possible.
    pub(crate) fn receive(&mut self) -> Result<Option<(Option<Input>, Output)>, Error> {
        let Stage::Waiting { listener, connection, .. } = &mut self.stage else { return Ok(None) };
        if connection.is_none() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(listener.as_fd(), flags) {
                Ok(accepted) => *connection = Some(accepted),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(errno) => return Err(errno).during("accept console"),
            }
        }
        let Some(accepted) = connection else { return Ok(None) };
        let Some(master) = receive_descriptor(accepted.as_fd())? else { return Ok(None) };
        self.open(master).map(Some)
    }

    /// Sets the size now, or as soon as there is a terminal.
    pub(crate) fn resize(&mut self, width: u16, height: u16) -> Result<(), Error> {
        let size = Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
        match &self.stage {
            Stage::Open { master, .. } => rustix::termios::tcsetwinsize(master, size).during("set window size"),
            Stage::Waiting { .. } | Stage::Failed => {
                self.size = Some(size);
                Ok(())
            }
        }
    }

    /// The process has ended: from here on the kernel's hangup is the end of its output.
    pub(crate) fn process_ended(&mut self) {
        if let Stage::Open { slave, .. } = &mut self.stage {
            *slave = None;
        }
    }

    fn open(&mut self, master: OwnedFd) -> Result<(Option<Input>, Output), Error> {
        let Stage::Waiting { file, ends, .. } = std::mem::replace(&mut self.stage, Stage::Failed) else {
            return Err(Errno::INVAL).during("receive console");
        };
        let _ = fs::remove_file(&file);
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK | OFlags::RDWR).during("fcntl")?;
        // Without it (an old kernel) only the program that closes its terminal for a while is worse off.
        let slave_flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, slave_flags).ok();
        let (source, sink) = *ends;
        let input = match source {
            Some(source) => Some(Input::new(source, Inner::Terminal(master.try_clone().during("dup")?))),
            None => None,
        };
        let output = Output::new(Inner::Terminal(master.try_clone().during("dup")?), sink);
        self.stage = Stage::Open { master, slave };
        if let Some(Winsize { ws_col, ws_row, .. }) = self.size.take() {
            self.resize(ws_col, ws_row)?;
        }
        Ok((input, output))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Stage::Waiting { file, .. } = &self.stage {
            let _ = fs::remove_file(file);
        }
    }
}

/// The one descriptor that was sent, or `None` while nothing has been.
fn receive_descriptor(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let mut name = [0_u8; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut name)];
    match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(_) => {}
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(errno) => return Err(errno).during("receive console"),
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            if let Some(descriptor) = descriptors.next() {
                return Ok(Some(descriptor));
            }
        }
    }
    Err(Errno::INVAL).during("receive console")
}
