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
    #[error("checkpoints need CRIU 4 or newer, and there is none {looked}: run scripts/install-criu")]
    Missing {
        /// Where it was looked for.
        looked: String,
    },
    /// It is there and too old.
    #[error("checkpoints need CRIU 4 or newer, and {path} is {found}: run scripts/install-criu")]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// It is there and says nothing that could be its version.
    #[error("checkpoints need CRIU 4 or newer, and {path} does not run: {why}; run scripts/install-criu")]
    Broken {
        /// The program.
        path: PathBuf,
        /// What it said instead.
        why: String,
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
    /// What was being dumped was killed meanwhile.
    #[error("the container was killed while its checkpoint was being made")]
    Killed,
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
            Error::Missing { .. } | Error::TooOld { .. } | Error::Broken { .. } => Kind::Unavailable,
            Error::Failed { .. } | Error::Image { .. } | Error::Killed => Kind::Conflict,
            Error::Deadline(_) => Kind::DeadlineExceeded,
            Error::Died { .. } | Error::Protocol(_) | Error::Io { .. } => Kind::System,
        }
    }
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
