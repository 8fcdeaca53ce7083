//! docker-runc: the OCI runtime.
fn main() {}
