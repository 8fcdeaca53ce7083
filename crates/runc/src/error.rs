//! Everything that can go wrong in docker-runc, in runc's own words where a caller may look for them.

use std::io;
use std::path::PathBuf;

use errors::{Kind, Kinded};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has this id.
    #[error("container does not exist")]
    NoContainer,
    /// A container has this id already.
    #[error("container with given ID already exists")]
    ContainerExists,
    /// The id holds characters that are not allowed.
    #[error("invalid container ID format: {0:?}")]
    InvalidId(String),
    /// The container has no running process.
    #[error("container not running")]
    NotRunning,
    /// The container is paused.
    #[error("container paused")]
    Paused,
    /// The container is not paused.
    #[error("container not paused")]
    NotPaused,
    /// The operation does not go with the container's state.
    #[error("{0}")]
    Conflict(String),
    /// The command line or a file given on it cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The bundle's configuration cannot be used.
    #[error("invalid configuration {path}: {reason}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The container's process could not be made.
    #[error("unable to start container process: {0}")]
    Init(String),
    /// Asked for and not built.
    #[error("not implemented: {0}")]
    NotImplemented(String),
    /// The container cannot be checkpointed as it is.
    #[error("cannot checkpoint: {0}")]
    CannotCheckpoint(String),
    /// The checkpoint cannot be restored as it is.
    #[error("cannot restore: {0}")]
    CannotRestore(String),
    /// CRIU failed or is missing.
    #[error(transparent)]
    Criu(#[from] criu::Error),
    /// The kernel or the file system said no.
    #[error("{what}: {}", plain(source))]
    Io {
        /// What was being done.
        what: String,
        /// The answer.
        source: io::Error,
    },
    /// A file of ours holds something else than it should.
    #[error("{what}: {source}")]
    Json {
        /// What was being read or written.
        what: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A cgroup refused a limit or cannot be read.
    #[error("cgroup: {0}")]
    Cgroup(String),
    /// A hook failed.
    #[error("error running {name} hook #{index}: {reason}")]
    Hook {
        /// Which list it is in.
        name: &'static str,
        /// Its place in the list, from 0.
        index: usize,
        /// What it said.
        reason: String,
    },
}

/// The kernel's answer as Go's programs print it, which callers of a runtime look for: `no such file or directory`.
pub fn plain(err: &io::Error) -> String {
    let text = err.to_string();
    if err.raw_os_error().is_none() {
        return text;
    }
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        // `RFC specific error`, say, stays.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NoContainer => Kind::NotFound,
            Error::ContainerExists
            | Error::NotRunning
            | Error::Paused
            | Error::NotPaused
            | Error::Conflict(_)
            | Error::CannotCheckpoint(_)
            | Error::CannotRestore(_) => Kind::Conflict,
            Error::InvalidId(_) | Error::Invalid(_) | Error::Spec { .. } => Kind::InvalidParameter,
            Error::NotImplemented(_) => Kind::NotImplemented,
            Error::Criu(err) => err.kind(),
            Error::Init(_) | Error::Io { .. } | Error::Json { .. } | Error::Cgroup(_) | Error::Hook { .. } => {
                Kind::System
            }
        }
    }
}

/// Says what was being done when an error came.
pub trait Doing<T> {
    /// Wraps the error with the words.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

impl<T> Doing<T> for std::result::Result<T, rustix::io::Errno> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Io { what: what(), source: errno.into() })
    }
}

impl<T> Doing<T> for std::result::Result<T, nix::errno::Errno> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Io { what: what(), source: errno.into() })
    }
}

impl<T> Doing<T> for std::result::Result<T, serde_json::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Json { what: what(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answers_read_as_gos() {
        assert_eq!(plain(&io::Error::from_raw_os_error(libc::ENOENT)), "no such file or directory");
        assert_eq!(plain(&io::Error::from_raw_os_error(libc::EPERM)), "operation not permitted");
        assert_eq!(plain(&io::Error::other("As it is")), "As it is");
    }
}
