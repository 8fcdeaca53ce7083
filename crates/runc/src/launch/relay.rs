//! Stays with a process in the foreground: passes signals on, and carries bytes between the caller's terminal and the
//! process's when it has one of its own.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

use super::wait;
use crate::error::{Doing, Error, Result};
use crate::sys;

/// A terminal on its way from the container to this program.
pub struct Terminal {
    receiving: OwnedFd,
}

impl Terminal {
    /// Gives the end for the child, too.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .doing(|| "make a socket pair".into())?;
        Ok((Terminal { receiving: ours }, theirs))
    }

    /// Takes the master.
    pub fn receive(self) -> Result<OwnedFd> {
        let mut name = [0u8; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(&self.receiving, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .doing(|| "receive the terminal".into())?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(master) = descriptors.next()
            {
                // As with runc: output that goes to a file or a pipe has plain line ends.
                let mut modes = tcgetattr(&master).doing(|| "read the terminal's modes".into())?;
                modes.output_modes -= OutputModes::ONLCR;
                tcsetattr(&master, OptionalActions::Now, &modes).doing(|| "set the terminal's modes".into())?;
                return Ok(master);
            }
        }
        Err(Error::Init("no terminal came".into()))
    }
}

/// Puts the caller's terminal back as it was.
struct Raw(Option<Termios>);

impl Raw {
    fn new() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else { return Raw(None) };
        let mut raw = before.clone();
        raw.make_raw();
        // The container's terminal leaves the ends of lines to this one.
        raw.output_modes |= OutputModes::OPOST;
        let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        Raw(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Waits for the end of `pid` and gives its exit code. `signals` must have been blocked before it was made.
pub fn stay(pid: i32, signals: &SigSet, master: Option<OwnedFd>) -> Result<i32> {
    let signal_fd = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .doing(|| "make a signal descriptor".into())?;
    let _raw = master.as_ref().map(|_| Raw::new());
    if let Some(master) = &master {
        copy_size(master);
    }
    let mut read_stdin = master.is_some();
    let mut read_master = master.is_some();
    // A child may have ended before the descriptor was there; the blocked SIGCHLD is pending then, so nothing is lost.
    loop {
        let mut watched = vec![PollFd::new(&signal_fd, PollFlags::IN)];
        let stdin = rustix::stdio::stdin();
        if let Some(master) = &master {
            let of = |on| if on { PollFlags::IN } else { PollFlags::empty() };
            watched.push(PollFd::new(master, of(read_master)));
            watched.push(PollFd::from_borrowed_fd(stdin, of(read_stdin)));
        }
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(Error::Io { what: "poll".into(), source: errno.into() }),
        }
        let events: Vec<PollFlags> = watched.iter().map(PollFd::revents).collect();
        drop(watched);
        if let Some(master) = &master {
            if read_master && !events[1].is_empty() {
                read_master = carry(master.as_fd(), rustix::stdio::stdout());
            }
            if read_stdin && !events[2].is_empty() {
                read_stdin = carry(stdin, master.as_fd());
            }
        }
        while let Ok(Some(info)) = signal_fd.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            match signal {
                Signal::SIGCHLD => {
                    if let Some(code) = wait::reap(pid) {
                        if let Some(master) = &master {
                            drain(master);
                        }
                        return Ok(code);
                    }
                }
                Signal::SIGWINCH => {
                    if let Some(master) = &master {
                        copy_size(master);
                    }
                }
                Signal::SIGURG => (),
                other => {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), other);
                }
            }
        }
    }
}

fn copy_size(master: &OwnedFd) {
    if let Ok((rows, columns)) = sys::window_size(rustix::stdio::stdin()) {
        let _ = sys::set_window_size(master.as_fd(), rows, columns);
    }
}

/// Carries one buffer; says whether there may be more.
fn carry(from: std::os::fd::BorrowedFd<'_>, to: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 16 << 10];
    let length = match rustix::io::read(from, &mut buffer[..]) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => (),
            Err(_) => return false,
        }
    }
    true
}

/// What the process wrote last.
fn drain(master: &OwnedFd) {
    loop {
        let mut watched = [PollFd::new(master, PollFlags::IN)];
        let nothing = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut watched, Some(&nothing)) {
            Ok(n) if n > 0 && watched[0].revents().contains(PollFlags::IN) => (),
            _ => return,
        }
        if !carry(master.as_fd(), rustix::stdio::stdout()) {
            return;
        }
    }
}
