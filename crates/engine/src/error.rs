//! Why a job did not do what it was run for.

use std::sync::Arc;

use errors::{Kind, Kinded};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No new jobs.
    #[error("engine is shutdown")]
    Shutdown,
    /// No handler of that name.
    #[error("{0}: command not found")]
    NotFound(String),
    /// A handler of that name is there.
    #[error("Can't overwrite handler for command {0}")]
    Registered(String),
    /// The job was told to stop, and did.
    #[error("{0}: cancelled")]
    Cancelled(String),
    /// The handler panicked.
    #[error("{0}: panicked: {1}")]
    Panicked(String, String),
    /// The handler said no.
    #[error("{failure}")]
    Failed {
        /// The job's name.
        job: String,
        /// What the handler said.
        failure: Failure,
    },
}

impl Error {
    /// The status a Unix process would have ended with.
    pub fn status(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::Cancelled(_) => 130,
            _ => 1,
        }
    }
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Shutdown => Kind::Unavailable,
            Self::NotFound(_) => Kind::NotFound,
            Self::Registered(_) => Kind::Conflict,
            Self::Cancelled(_) => Kind::Cancelled,
            Self::Panicked(..) => Kind::System,
            Self::Failed { failure, .. } => failure.kind(),
        }
    }
}

/// What a handler says when it fails: any error with a kind, or any text. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Failure(Arc<dyn Kinded + Send + Sync>);

impl Failure {
    /// Of an error.
    pub fn new(error: impl Kinded + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }

    /// Of a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Text(text.into()))
    }

    /// Of what sort.
    pub fn kind(&self) -> Kind {
        self.0.kind()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Kinded + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// A text as an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Text(String);

impl Kinded for Text {
    fn kind(&self) -> Kind {
        Kind::System
    }
}
