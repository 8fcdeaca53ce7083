//! What the daemon can answer instead of a result; the texts are the ones Docker's clients know.

use errors::{Kind, Kinded};

/// The daemon's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// Asked for in a way that cannot be.
    #[error("{0}")]
    InvalidParameter(String),
    /// Not in this state.
    #[error("{0}")]
    Conflict(String),
    /// Already so.
    #[error("{0}")]
    NotModified(String),
    /// Not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// Not built.
    #[error("{0}")]
    NotImplemented(String),
    /// Something below is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// Everything else.
    #[error("{0}")]
    System(String),
    /// The image store.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The networks.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// The logs.
    #[error(transparent)]
    Logs(#[from] logs::Error),
    /// The archives.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A checkpoint on disk.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A job that failed, was told to stop, or came too late.
    #[error(transparent)]
    Job(#[from] engine::Error),
    /// The database file.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A query.
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
    /// docker-containerd's answer.
    #[error("{}", .0.message())]
    Containerd(#[from] tonic::Status),
    /// The system, with what was being done.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A result of the daemon.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::InvalidParameter(_) => Kind::InvalidParameter,
            Self::Conflict(_) => Kind::Conflict,
            Self::NotModified(_) => Kind::NotModified,
            Self::Forbidden(_) => Kind::Forbidden,
            Self::NotImplemented(_) => Kind::NotImplemented,
            Self::Unavailable(_) => Kind::Unavailable,
            Self::Images(e) => e.kind(),
            Self::Network(e) => e.kind(),
            Self::Logs(e) => e.kind(),
            Self::Archive(e) => e.kind(),
            Self::Checkpoint(e) => e.kind(),
            Self::Job(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::System(_) | Self::Database(_) | Self::Containerd(_) | Self::Io { .. } => Kind::System,
        }
    }
}

/// Says what was being done when the system refused.
pub trait Context<T> {
    /// Adds `what` to the error.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source: source.into() })
    }
}

/// Runs blocking work beside the asynchronous one.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::System(format!("a worker thread failed: {e}"))),
    }
}
