//! docker-containerd-shim: holds one container's stdio, reaps its processes, reports their exits.
//!
//! One shim serves one container, execs included, on one thread: a `poll` loop ([`supervise`]) that never waits for
//! anything else. It survives docker-containerd, and what it learns it writes to files before it tells anybody, so
//! that a docker-containerd that was not there finds it. It must never use an async runtime, hold more than a few
//! small buffers, or follow an instruction from anyone but the owner of its socket.
//!
//! [`protocol`] is what docker-containerd needs of this crate; the rest is the program.

mod clients;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod log;
mod process;
pub mod protocol;
mod runtime;
mod stdio;
pub mod supervise;
mod sys;

pub use error::Error;
pub use log::Log;
pub use supervise::{Setup, Shim};
pub use sys::adopt_pipe;
