//! The `types.API` protocol: messages, client and server, and the one table from error kind to gRPC code.
//!
//! Nothing here knows how a container is run: both ends of the socket depend on this crate and on nothing of each other.
#![forbid(unsafe_code)]

mod client;
mod status;

pub use client::{ConnectError, connect};
pub use status::{code, kind, status};

/// The messages and services of package `types`, generated from `proto/types.proto`.
#[allow(missing_docs, clippy::all)]
pub mod types {
    tonic::include_proto!("types");
}

/// The standard health service, generated from `proto/health.proto`.
#[allow(missing_docs, clippy::all)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// No message is longer, in either direction; the same limit as the original's.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
