//! Everything that can go wrong in docker-containerd, in the words its clients have always been shown.
//!
//! The texts are part of the protocol: clients of containerd 0.2 look for substrings of them. So are the codes: most
//! errors there had code 2 (Unknown), whatever they meant, and stay so on the wire; [`Kinded::kind`] tells our own code
//! what they mean.

use std::io;
use std::path::{Path, PathBuf};

use containerd_api::code;
use errors::{Kind, Kinded};
use tonic::{Code, Status};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such container.
    #[error("containerd: container not found")]
    ContainerNotFound,
    /// No such container, as ListCheckpoint says it.
    #[error("no such containers")]
    NoSuchContainers,
    /// The container has no such process.
    #[error("containerd: process not found for container")]
    ProcessNotFound,
    /// A path could not be made, opened or read.
    #[error("{op} {}: {}", path.display(), words(source))]
    Path {
        /// The system call.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call on no path worth naming failed.
    #[error("{}", words(.0))]
    Io(#[from] io::Error),
    /// CreateContainer without a bundle.
    #[error("empty bundle path")]
    EmptyBundlePath,
    /// An id that no runtime accepts.
    #[error("oci runtime error: invalid id format: {0}\n")]
    InvalidId(String),
    /// The bundle's configuration cannot be understood.
    #[error("{}: {why}", path.display())]
    BadBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The shim could not do it.
    #[error("shim error: {0}")]
    Shim(String),
    /// The runtime could not do it: the first error of its log.
    #[error("oci runtime error: {0}")]
    Runtime(String),
    /// The runtime could not do it: its exit status or output.
    #[error("{0}")]
    RuntimeOutput(String),
    /// A program is missing.
    #[error("{0} not installed on system")]
    NotInstalled(String),
    /// The start failed and nobody said why.
    #[error("containerd: container not started")]
    NotStarted,
    /// `--start-timeout` has passed.
    #[error("containerd: container did not start before the specified timeout")]
    StartTimeout,
    /// The shim ended early.
    #[error("containerd: shim exited before container process was started")]
    ShimExited,
    /// The shim ended, or its connection broke, before it answered.
    #[error("shim error: connection to the shim lost")]
    ShimLost,
    /// Whoever asked is gone.
    #[error("context canceled")]
    Cancelled,
    /// AddProcess without a container id.
    #[error("container id cannot be empty")]
    EmptyContainerId,
    /// AddProcess without a process id.
    #[error("process id cannot be empty")]
    EmptyProcessId,
    /// UpdateContainer with a status that is not one.
    #[error("containerd: unknown container status ")]
    UnknownStatus,
    /// DeleteCheckpoint without a name.
    #[error("checkpoint name cannot be empty")]
    EmptyCheckpointName,
    /// A name that could leave its directory, or that no file system takes.
    #[error("invalid {what}: {name:?}")]
    InvalidName {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A message or field that has to be there is not, or is out of range.
    #[error("invalid parameter: {0}")]
    InvalidParameter(String),
    /// Events wants stored events of no time.
    #[error("invalid parameter: StoredOnly cannot be specified without setting a valid Timestamp")]
    StoredOnlyWithoutTimestamp,
    /// Events from a time that is none.
    #[error("{0}")]
    TimestampOutOfRange(String),
    /// The kernel refused a signal.
    #[error("{}", words(.0))]
    Signal(io::Error),
    /// The container's pids could not be read.
    #[error("get all pids for container: {0}")]
    Pids(String),
    /// docker-containerd is stopping.
    #[error("grpc: the server is closing")]
    Closing,
    /// A container's lock or table entry is taken by something that excludes this call.
    #[error("{0}")]
    Conflict(String),
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err`: names the system call and the path.
    pub fn path(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Path { op, path, source }
    }

    /// "file exists" for a directory that nobody tried to make, because it is known to be there.
    pub fn exists(path: &Path) -> Error {
        Error::Path { op: "mkdir", path: path.to_path_buf(), source: io::Error::from(io::ErrorKind::AlreadyExists) }
    }

    /// In the words that clients know of a start: a shim that is gone has ended before its process.
    pub fn of_a_start(self) -> Error {
        match self {
            Error::ShimLost => Error::ShimExited,
            other => other,
        }
    }

    fn code(&self) -> Code {
        match self {
            // Kinds that the original knew and answered under "unknown" all the same.
            Error::ContainerNotFound
            | Error::ProcessNotFound
            | Error::EmptyBundlePath
            | Error::InvalidId(_)
            | Error::BadBundle { .. }
            | Error::NotInstalled(_)
            | Error::EmptyContainerId
            | Error::EmptyProcessId
            | Error::UnknownStatus
            | Error::EmptyCheckpointName
            | Error::StoredOnlyWithoutTimestamp
            | Error::TimestampOutOfRange(_)
            | Error::StartTimeout
            | Error::Signal(_) => Code::Unknown,
            Error::Pids(_) => Code::Internal,
            other => code(other.kind()),
        }
    }
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::ContainerNotFound | Error::NoSuchContainers | Error::ProcessNotFound => Kind::NotFound,
            Error::Path { source, .. } | Error::Io(source) => io_kind(source),
            Error::Signal(source) if source.raw_os_error() == Some(nix::libc::ESRCH) => Kind::NotFound,
            Error::EmptyBundlePath
            | Error::InvalidId(_)
            | Error::BadBundle { .. }
            | Error::EmptyContainerId
            | Error::EmptyProcessId
            | Error::UnknownStatus
            | Error::EmptyCheckpointName
            | Error::InvalidName { .. }
            | Error::InvalidParameter(_)
            | Error::StoredOnlyWithoutTimestamp
            | Error::TimestampOutOfRange(_)
            | Error::Signal(_) => Kind::InvalidParameter,
            Error::StartTimeout => Kind::DeadlineExceeded,
            Error::Cancelled => Kind::Cancelled,
            Error::Closing => Kind::Unavailable,
            Error::Conflict(_) => Kind::Conflict,
            Error::Shim(_)
            | Error::Runtime(_)
            | Error::RuntimeOutput(_)
            | Error::NotInstalled(_)
            | Error::NotStarted
            | Error::ShimExited
            | Error::ShimLost
            | Error::Pids(_) => Kind::System,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        Status::new(error.code(), error.to_string())
    }
}

fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::AlreadyExists => Kind::Conflict,
        io::ErrorKind::PermissionDenied => Kind::Forbidden,
        io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
        _ => Kind::System,
    }
}

/// An error in the words of the system, lower case and without a number: `no such file or directory`.
pub fn words(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None if error.kind() == io::ErrorKind::AlreadyExists => "file exists".to_owned(),
        None => error.to_string(),
    };
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_are_the_originals() {
        let enoent = || io::Error::from_raw_os_error(nix::libc::ENOENT);
        let cases: Vec<(Error, Code, &str)> = vec![
            (Error::ContainerNotFound, Code::Unknown, "containerd: container not found"),
            (Error::NoSuchContainers, Code::NotFound, "no such containers"),
            (Error::exists(Path::new("/s/a")), Code::AlreadyExists, "mkdir /s/a: file exists"),
            (
                Error::path("open", Path::new("/b/config.json"))(enoent()),
                Code::NotFound,
                "open /b/config.json: no such file or directory",
            ),
            (Error::InvalidId("../x".into()), Code::Unknown, "oci runtime error: invalid id format: ../x\n"),
            (Error::Signal(io::Error::from_raw_os_error(nix::libc::EINVAL)), Code::Unknown, "invalid argument"),
            (Error::Cancelled, Code::Cancelled, "context canceled"),
        ];
        for (error, code, text) in cases {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
