//! Descriptors that the runtime's reactor watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a non-blocking descriptor with the reactor.
///
/// # Errors
/// When the kernel refuses to watch it.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Deprecated for types that may close or change the descriptor behind the reactor's back; an `OwnedFd` cannot.
    #[allow(deprecated)]
    AsyncFd::new(fd)
}
