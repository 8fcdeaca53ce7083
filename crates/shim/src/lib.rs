//! What docker-containerd and docker-containerd-shim say to each other.
pub mod protocol;
