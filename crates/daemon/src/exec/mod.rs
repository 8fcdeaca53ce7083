//! `exec`: further processes in a running container.

mod backend;
mod registry;
mod start;

pub use registry::{Exec, ExecState, Execs};
