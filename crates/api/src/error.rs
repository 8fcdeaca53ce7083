//! What goes wrong behind or in a route: a kind, which becomes the status, and a message, which the client sees.
//!
//! It does not implement `Kinded` itself, so that any error that does can be turned into one with `?`.

use errors::{Kind, Kinded};

/// An error as the client will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Decides the HTTP status.
    pub kind: Kind,
    /// Shown to the client.
    pub message: String,
}

/// The result of a backend's method.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// 500.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }
}

impl<E: Kinded> From<E> for Error {
    fn from(error: E) -> Self {
        Self { kind: error.kind(), message: chain(&error) }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The error with its causes, leaving out a cause that the text before it already ends with.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}
