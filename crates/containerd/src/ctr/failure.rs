//! Why a command failed, in the words that go behind `[ctr]`, and the status to end with.

use std::fmt;

use tonic::Status;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    /// The exit status.
    pub(crate) status: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 1 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let unreachable =
            std::error::Error::source(&status).is_some_and(|source| source.is::<tonic::transport::Error>());
        let message = if unreachable { "grpc: the connection is unavailable" } else { status.message() };
        Self::new(format!("rpc error: code = {} desc = {message}", i32::from(status.code())))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Refuses an argument that is missing.
pub(crate) fn required(value: Option<String>, what: &str) -> Result<String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| Failure::new(format!("{what} cannot be empty")))
}
