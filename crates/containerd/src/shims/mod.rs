//! The other end of docker-containerd-shim: starting one, finding one again, talking to it.

mod client;
mod launch;

pub use client::{Key, Notice, NoticeQueue, ShimClient};
pub use launch::{Launch, first_error_in, reconnect};
