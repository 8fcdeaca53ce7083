//! Everything that can go wrong with CRIU.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use errors::{Kind, Kinded};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is nowhere.
    #[error("criu was not found ({looked}): install CRIU 4 or newer")]
    Missing {
        /// Where it was looked for.
        looked: String,
    },
    /// It is there and too old.
    #[error("{path} is CRIU {found}, at least {needed} is needed")]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The least version.
        needed: &'static str,
    },
    /// It said no.
    #[error("{sentence}")]
    Failed {
        /// Why, for a person.
        sentence: String,
        /// The first error of its log.
        detail: Option<String>,
        /// The error number it gave.
        errno: i32,
    },
    /// It ended without an answer.
    #[error("criu ended without an answer{}", detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Died {
        /// The last error of its log.
        detail: Option<String>,
    },
    /// It took too long.
    #[error("criu did not finish within {} s", .0.as_secs())]
    Deadline(Duration),
    /// It sent something that cannot be understood.
    #[error("criu: {0}")]
    Protocol(String),
    /// An image file holds something else than it should.
    #[error("{name}: {reason}")]
    Image {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The answer.
        source: io::Error,
    },
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Missing { .. } | Error::TooOld { .. } => Kind::Unavailable,
            Error::Failed { .. } | Error::Image { .. } => Kind::Conflict,
            Error::Deadline(_) => Kind::DeadlineExceeded,
            Error::Died { .. } | Error::Protocol(_) | Error::Io { .. } => Kind::System,
        }
    }
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
