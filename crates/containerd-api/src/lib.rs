//! The `types.API` protocol: messages, client and server, and the one table from error kind to gRPC code.

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
