//! dockerd: flags, daemon.json, signals, boot jobs.
fn main() {}
