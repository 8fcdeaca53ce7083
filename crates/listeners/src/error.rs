//! What can go wrong with an address, in Docker's words where Docker has some.

use std::io;
use std::path::PathBuf;

use errors::{Kind, Kinded};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be understood.
    #[error("invalid bind address ({address}): {reason}")]
    InvalidAddress {
        /// As it was given.
        address: String,
        /// Why not.
        reason: String,
    },
    /// There is no `://`, where one is needed.
    #[error("bad listen address format {0}, expected proto://address")]
    NoProtocol(String),
    /// Not a protocol to listen on.
    #[error("invalid protocol format: \"{0}\"")]
    InvalidProtocol(String),
    /// `fd://` without sockets from systemd.
    #[error("no sockets found via socket activation: make sure the service was started by systemd")]
    NoActivatedSockets,
    /// `fd://N` with an N beyond what was passed.
    #[error("too few socket activated files passed in by systemd")]
    TooFewActivatedSockets,
    /// `fd://name` with a name that no socket has.
    #[error("no socket with the name \"{0}\" was passed in by systemd")]
    NoSuchActivatedSocket(String),
    /// What was passed is not a listening stream socket, or was taken before.
    #[error("failed to listen on systemd activated file: fd {fd}: {reason}")]
    BadActivatedSocket {
        /// The descriptor's number.
        fd: usize,
        /// Why not.
        reason: String,
    },
    /// The unix socket could not be made.
    #[error("can't create unix socket {path}: {source}")]
    Unix {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process answers on the unix socket.
    #[error("can't create unix socket {0}: address already in use, and somebody answers there")]
    UnixInUse(PathBuf),
    /// The TCP socket could not be made.
    #[error("listen tcp {address}: {source}")]
    Tcp {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The group that shall own the unix socket does not exist.
    #[error("group {0} not found")]
    NoSuchGroup(String),
    /// A certificate, key or CA file is unusable.
    #[error("{what} {path}: {reason}")]
    Tls {
        /// What was done with it.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The certificate and the key do not make a server.
    #[error("could not load X509 key pair: {0}")]
    KeyPair(String),
    /// A listening socket broke.
    #[error("accept: {0}")]
    Accept(#[source] io::Error),
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::InvalidAddress { .. } | Self::NoProtocol(_) | Self::InvalidProtocol(_) => Kind::InvalidParameter,
            Self::NoSuchActivatedSocket(_) | Self::NoSuchGroup(_) => Kind::NotFound,
            Self::UnixInUse(_) => Kind::Conflict,
            _ => Kind::System,
        }
    }
}
