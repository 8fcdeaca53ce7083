//! Terminals: made inside the container, and handed out over the console socket.
//!
//! The protocol of the console socket is runc's: one message with the descriptor of the master and the name of the slave.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::Process;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::{Doing, Error, Result};
use crate::sys;

/// Connects to the socket that takes the master.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("connect to console socket {}", path.display());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).doing(doing)?;
    // A path longer than an address goes through a descriptor.
    let holder;
    let address = match SocketAddrUnix::new(path) {
        Ok(address) => address,
        Err(_) => {
            holder = std::fs::File::open(path.parent().unwrap_or(Path::new("/"))).doing(doing)?;
            let name = path.file_name().unwrap_or_default();
            let short = Path::new("/proc/self/fd").join(holder.as_raw_fd().to_string()).join(name);
            SocketAddrUnix::new(&short).doing(doing)?
        }
    };
    rustix::net::connect(&socket, &address).doing(doing)?;
    Ok(socket)
}

/// Sends the master.
pub fn send_master(socket: BorrowedFd<'_>, master: BorrowedFd<'_>, name: &str) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Error::Init("no room for a descriptor".into()));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(name.as_bytes())], &mut control, SendFlags::NOSIGNAL)
        .map(|_| ())
        .doing(|| "send the terminal to the console socket".into())
}

/// In the container, as the leader of a session without a terminal: makes a terminal from the container's own devpts,
/// covers `/dev/console` with it (for the first process), sends the master away, and takes the slave as stdio.
pub fn set_up(socket: OwnedFd, process: &Process, cover_console: bool) -> Result<()> {
    let syscall = libcontainer::syscall::syscall::create_syscall();
    // libcontainer closes the descriptor itself.
    libcontainer::tty::setup_console(syscall.as_ref(), std::os::fd::IntoRawFd::into_raw_fd(socket), cover_console)
        .map_err(|err| Error::Init(format!("set up the terminal: {err}")))?;
    let terminal = std::io::stdin();
    if let Some(size) = process.console_size()
        && size.height() > 0
        && size.width() > 0
    {
        let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        sys::set_window_size(terminal.as_fd(), cells(size.height()), cells(size.width()))
            .doing(|| "set the size of the terminal".into())?;
    }
    rustix::fs::fchown(terminal.as_fd(), Some(rustix::fs::Uid::from_raw(process.user().uid())), None)
        .doing(|| "give the terminal to the user".into())
}
