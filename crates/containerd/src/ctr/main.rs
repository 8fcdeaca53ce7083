//! docker-containerd-ctr.
fn main() {}
