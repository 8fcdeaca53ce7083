//! The error kinds, and nothing else.
//!
//! Every crate has one error enum; each variant has a [`Kind`]. What a kind means to a client is decided in two tables
//! only: `api` turns it into an HTTP status, `containerd-api` into a gRPC code.

/// What sort of failure this is, as seen by whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named thing does not exist.
    NotFound,
    /// The request cannot be understood or is not allowed to be asked that way.
    InvalidParameter,
    /// The request contradicts the present state (name taken, not running, in use).
    Conflict,
    /// The thing is already as asked.
    NotModified,
    /// Understood and refused.
    Forbidden,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Something this depends on is not there now; a later try may succeed.
    Unavailable,
    /// Not built.
    NotImplemented,
    /// Larger than the limit.
    TooLarge,
    /// Whoever asked has gone or changed their mind.
    Cancelled,
    /// Took longer than allowed.
    DeadlineExceeded,
    /// Everything else: I/O, bugs, the kernel.
    System,
}

/// An error that knows its [`Kind`].
pub trait Kinded: std::error::Error {
    /// The kind of this error.
    fn kind(&self) -> Kind;
}

impl Kinded for std::io::Error {
    fn kind(&self) -> Kind {
        match std::io::Error::kind(self) {
            std::io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
            _ => Kind::System,
        }
    }
}
