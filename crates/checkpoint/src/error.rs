//! What is wrong with a checkpoint, in words a user can act on.

use errors::{Kind, Kinded};

/// This crate's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name for a checkpoint.
    #[error("Invalid checkpoint ID ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName(String),
    /// There is none of that name.
    #[error("checkpoint {name} does not exist in {dir}")]
    NotFound {
        /// The name.
        name: String,
        /// Where it was looked for.
        dir: String,
    },
    /// There is one already.
    #[error("checkpoint with name {0} already exists")]
    Exists(String),
    /// It is there and cannot be used.
    #[error("checkpoint {name} cannot be used: {why}")]
    Unusable {
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::InvalidName(_) => Kind::InvalidParameter,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Exists(_) => Kind::Conflict,
            Self::Unusable { .. } => Kind::Conflict,
            Self::Io { .. } => Kind::System,
        }
    }
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
