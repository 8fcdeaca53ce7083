//! What can go wrong in the shim, in the words its clients are shown.

use std::io;
use std::path::{Path, PathBuf};

use errors::{Kind, Kinded};
use rustix::io::Errno;

/// Why the shim could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a named thing failed: `open /x: no such file or directory`.
    #[error("{action} {}: {}", path.display(), words(*errno))]
    Path {
        /// The verb.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// A system call on something without a name failed.
    #[error("{action}: {}", words(*errno))]
    System {
        /// The verb.
        action: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The runtime, given by name, is in no directory of `PATH`.
    #[error("{0} not installed on system")]
    RuntimeMissing(String),
    /// The shim's own command line or environment.
    #[error("{0}")]
    Usage(String),
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Path { errno: Errno::NOENT, .. } | Self::RuntimeMissing(_) => Kind::NotFound,
            Self::Path { .. } | Self::System { .. } => Kind::System,
            Self::Usage(_) => Kind::InvalidParameter,
        }
    }
}

/// Gives an [`Errno`] its place.
pub(crate) trait Context<T> {
    /// Names what was done.
    fn during(self, action: &'static str) -> Result<T, Error>;
    /// Names what was done to what.
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn during(self, action: &'static str) -> Result<T, Error> {
        self.map_err(|errno| Error::System { action, errno })
    }

    fn at(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|errno| Error::Path { action, path: path.to_path_buf(), errno })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, action: &'static str) -> Result<T, Error> {
        self.map_err(errno_of).during(action)
    }

    fn at(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(errno_of).at(action, path)
    }
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// The kernel's words as Go programs print them, which is what clients look for: lower case, no number.
pub(crate) fn words(errno: Errno) -> String {
    if errno == Errno::SRCH {
        return "no such process".into();
    }
    let text = io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(std::iter::once(second)).chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_clients_expect() {
        let error = Err::<(), _>(Errno::NOENT).at("stat", Path::new("/nope/in")).unwrap_err();
        assert_eq!(error.to_string(), "stat /nope/in: no such file or directory");
        assert_eq!(words(Errno::SRCH), "no such process");
        assert_eq!(words(Errno::INVAL), "invalid argument");
        assert_eq!(words(Errno::IO), "Input/output error".to_lowercase());
    }
}
