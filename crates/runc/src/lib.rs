//! docker-runc: the OCI runtime.
//!
//! One call does one thing and ends; what must be remembered is in [`state`]. Single-threaded throughout, because
//! processes are made with `clone`.

pub mod cgroup;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod hooks;
pub mod launch;
pub mod lazy;
pub mod logging;
pub mod rootfs;
pub mod seal;
pub mod spec;
pub mod state;
mod sys;
pub mod validate;

pub use error::{Error, Result};
