//! What can go wrong with images. Words are Docker's wherever Docker has words for it: clients look at them.

use errors::{Kind, Kinded};

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a name nor an id of an image.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The prefix of more than one id. Not found, as in Docker, so that `docker run` goes on to pull a name like it.
    #[error("No such image: {0} (it is the beginning of more than one image ID)")]
    Ambiguous(String),
    /// There is no writable layer of that container.
    #[error("No such container layer: {0}")]
    NoSuchLayer(String),
    /// Something else that does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Not a valid image name.
    #[error("{0}")]
    InvalidReference(String),
    /// The request or the archive is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The image is in use.
    #[error("{0}")]
    Conflict(String),
    /// Not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// The registry wants (other) credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// The registry is not there, or failed.
    #[error("{0}")]
    Registry(String),
    /// What came does not match its digest or size.
    #[error("{0}")]
    Corrupt(String),
    /// Bigger than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// Not built.
    #[error("{0} is not implemented")]
    NotImplemented(&'static str),
    /// An archive.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The database file.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A statement.
    #[error("image database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The kernel said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Another caller's pull or push, which this one had joined, failed.
    #[error("{message}")]
    Joined {
        /// Its words.
        message: String,
        /// Its kind.
        kind: Kind,
    },
}

impl Error {
    /// Says what was being done when the kernel said no; for `map_err`.
    pub(crate) fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { what: what.into(), source: error.into() }
    }
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NoSuchImage(_) | Error::Ambiguous(_) | Error::NoSuchLayer(_) | Error::NotFound(_) => Kind::NotFound,
            Error::InvalidReference(_) | Error::Invalid(_) => Kind::InvalidParameter,
            Error::Conflict(_) => Kind::Conflict,
            Error::Forbidden(_) => Kind::Forbidden,
            Error::Unauthorized(_) => Kind::Unauthorized,
            Error::TooLarge(_) => Kind::TooLarge,
            Error::NotImplemented(_) => Kind::NotImplemented,
            Error::Archive(error) => error.kind(),
            Error::Joined { kind, .. } => *kind,
            Error::Registry(_) | Error::Corrupt(_) | Error::Store(_) | Error::Sqlite(_) | Error::Io { .. } => {
                Kind::System
            }
        }
    }
}
