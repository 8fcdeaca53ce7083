//! What can go wrong with a profile.

use errors::{Kind, Kinded};

/// The result of a function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one is being taken, or the kernel refuses the timer.
    #[error("Could not enable CPU profiling: {0}")]
    Cpu(pprof::Error),
    /// Nobody has asked for recording when the program was started.
    #[error("heap profiles are not recorded in this process")]
    NotRecorded,
    /// The program ends.
    #[error("the profile was not finished: {0}")]
    Unfinished(#[from] tokio::task::JoinError),
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Cpu(pprof::Error::Running) => Kind::Conflict,
            Error::NotRecorded => Kind::Unavailable,
            Error::Cpu(_) | Error::Unfinished(_) => Kind::System,
        }
    }
}
