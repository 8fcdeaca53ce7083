//! What can go wrong with an archive.

use errors::{Kind, Kinded};

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// The stream that is read or written failed.
    #[error("{0}")]
    Stream(std::io::Error),
    /// It is not a (whole, well-formed) archive.
    #[error("invalid archive: {0}")]
    Invalid(String),
    /// It ends before its end.
    #[error("invalid archive: unexpected EOF")]
    Truncated,
    /// An entry names or links to something outside of the directory.
    #[error("invalid archive: {path:?} would leave the directory it is unpacked in: {why}")]
    Escape {
        /// The entry's path.
        path: String,
        /// Which of its parts is wrong.
        why: &'static str,
    },
    /// An entry of a kind that is not allowed here.
    #[error("invalid archive: {path:?} is {what}, which is not allowed here")]
    Forbidden {
        /// The entry's path.
        path: String,
        /// The kind of entry.
        what: &'static str,
    },
    /// A directory would replace something else, or be replaced by it, and that was not wanted.
    #[error("cannot overwrite {old} {path:?} with {new}")]
    Overwrite {
        /// The entry's path.
        path: String,
        /// What is there.
        old: &'static str,
        /// What is in the archive.
        new: &'static str,
    },
    /// More than the limits allow.
    #[error("archive too large: {0}")]
    TooLarge(String),
    /// A feature of the format that is not built.
    #[error("{0} is not supported in an archive")]
    Unsupported(&'static str),
    /// There is nothing at that path.
    #[error("no such file or directory: {0}")]
    NotFound(String),
}

impl Error {
    /// Says what was being done when the kernel said no.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { what: what.into(), source: errno.into() }
    }
}

/// A failing stream may carry an error of ours from a reader further up: that one is the cause.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            let inner = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok());
            return inner.map_or(Error::Truncated, |inner| *inner);
        }
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Truncated,
            _ => Error::Stream(error),
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Io { .. } | Error::Stream(_) => Kind::System,
            Error::Invalid(_) | Error::Truncated | Error::Escape { .. } | Error::Forbidden { .. } => {
                Kind::InvalidParameter
            }
            Error::Overwrite { .. } => Kind::InvalidParameter,
            Error::TooLarge(_) => Kind::TooLarge,
            Error::Unsupported(_) => Kind::NotImplemented,
            Error::NotFound(_) => Kind::NotFound,
        }
    }
}
