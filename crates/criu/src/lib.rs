//! A session with criu swrk.

use errors::{Kind, Kinded};

/// What can go wrong with CRIU.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("criu is not installed")]
    Missing,
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}
