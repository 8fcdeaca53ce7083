//! A session with `criu swrk`.
//!
//! CRIU is an external program that is spoken to over a socket pair, one protobuf message a packet ([`rpc`]). This crate
//! finds it ([`program`]), starts it with exactly the descriptors it may have, answers its notifications and waits for
//! its end ([`session`]), reads what it measured ([`stats`]) and where in its images a task's memory is ([`pagemap`]), and
//! says in plain words why it failed ([`explain`]). It knows nothing of containers.
//!
//! The messages are written by hand for `prost`, which the workspace uses anyway: the `rust-criu` crate would bring a
//! second protobuf library, and its session cannot be used here (it gives every descriptor away, has no deadline and drops
//! the pid of what it restored).

mod error;
pub mod explain;
pub mod irmap;
pub mod pagemap;
mod preload;
pub mod program;
pub mod rpc;
pub mod session;
pub mod stats;
mod sys;
pub mod timerfd;

pub use error::{Error, Result};
pub use program::Program;
pub use session::{Event, Launch, Notify, Preload, Session, Subject};
