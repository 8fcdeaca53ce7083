//! docker-containerd-shim: holds a container's stdio, reaps, reports exits.
fn main() {}
