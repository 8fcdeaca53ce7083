//! The one table between error kinds and gRPC codes, in both directions.
//!
//! A client of the original looks at the *text* as well: it knew "not found" by the words, under code 2. [`kind`]
//! therefore reads both, so that the engine above tells the same story with either server below.

use errors::Kind;
use tonic::{Code, Status};

/// The gRPC code of a kind.
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::InvalidParameter => Code::InvalidArgument,
        Kind::Conflict => Code::AlreadyExists,
        Kind::NotModified => Code::FailedPrecondition,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::Unavailable => Code::Unavailable,
        Kind::NotImplemented => Code::Unimplemented,
        Kind::TooLarge => Code::ResourceExhausted,
        Kind::Cancelled => Code::Cancelled,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        // What the original makes of every error that has no kind of its own.
        Kind::System => Code::Unknown,
    }
}

/// A status of this kind.
pub fn status(kind: Kind, message: impl Into<String>) -> Status {
    Status::new(code(kind), message)
}

/// The kind that a server's answer stands for.
pub fn kind(status: &Status) -> Kind {
    match status.code() {
        Code::NotFound => Kind::NotFound,
        Code::InvalidArgument | Code::OutOfRange => Kind::InvalidParameter,
        Code::AlreadyExists | Code::Aborted => Kind::Conflict,
        Code::FailedPrecondition => Kind::NotModified,
        Code::PermissionDenied => Kind::Forbidden,
        Code::Unauthenticated => Kind::Unauthorized,
        Code::Unavailable => Kind::Unavailable,
        Code::Unimplemented => Kind::NotImplemented,
        Code::ResourceExhausted => Kind::TooLarge,
        Code::Cancelled => Kind::Cancelled,
        Code::DeadlineExceeded => Kind::DeadlineExceeded,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => kind_by_words(status.message()),
    }
}

fn kind_by_words(message: &str) -> Kind {
    let gone = ["container not found", "process not found", "no such process"];
    if gone.iter().any(|words| message.contains(words)) { Kind::NotFound } else { Kind::System }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_way_over_the_wire() {
        let kinds = [
            Kind::NotFound,
            Kind::InvalidParameter,
            Kind::Conflict,
            Kind::NotModified,
            Kind::Forbidden,
            Kind::Unauthorized,
            Kind::Unavailable,
            Kind::NotImplemented,
            Kind::TooLarge,
            Kind::Cancelled,
            Kind::DeadlineExceeded,
            Kind::System,
        ];
        for k in kinds {
            assert_eq!(kind(&status(k, "x")), k);
        }
    }

    #[test]
    fn the_originals_words_are_understood() {
        for words in
            ["containerd: container not found", "containerd: process not found for container", "no such process"]
        {
            assert_eq!(kind(&Status::unknown(words)), Kind::NotFound, "{words}");
        }
    }
}
