//! What can go wrong with a log, in Docker's words where Docker has some.

use std::path::PathBuf;

use errors::{Kind, Kinded};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No driver of this name is known to anybody.
    #[error("error looking up logging plugin {0}: plugin \"{0}\" not found")]
    UnknownDriver(String),
    /// Docker has this driver, we do not.
    #[error("log driver '{0}' is not implemented")]
    DriverNotImplemented(String),
    /// The driver has no such option.
    #[error("unknown log opt '{option}' for {driver} log driver")]
    UnknownOption {
        /// The option.
        option: String,
        /// The driver.
        driver: &'static str,
    },
    /// An option's value is not usable.
    #[error("{0}")]
    InvalidOption(String),
    /// The driver keeps nothing that could be read.
    #[error("configured logging driver does not support reading")]
    ReadingNotSupported,
    /// [`crate::Log::write`] outside of begin and end.
    #[error("the log is not open for writing")]
    NotOpen,
    /// The file system refused.
    #[error("log file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A reader's worker ended without an answer.
    #[error("reading the log was interrupted")]
    Interrupted,
}

impl Error {
    /// Names the file an I/O error is about.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::UnknownDriver(_) | Self::UnknownOption { .. } | Self::InvalidOption(_) => Kind::InvalidParameter,
            Self::DriverNotImplemented(_) | Self::ReadingNotSupported => Kind::NotImplemented,
            Self::NotOpen | Self::Interrupted => Kind::System,
            Self::File { source, .. } => source.kind_of(),
        }
    }
}

/// [`Kinded::kind`] under a name that does not collide with `io::Error`'s own.
trait KindOf {
    fn kind_of(&self) -> Kind;
}

impl KindOf for std::io::Error {
    fn kind_of(&self) -> Kind {
        Kinded::kind(self)
    }
}
