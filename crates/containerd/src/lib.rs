//! docker-containerd: the supervisor and its gRPC service, interchangeable with containerd 0.2.
//!
//! ```text
//! listener ─▶ authority filter ─▶ gRPC service ─▶ supervisor ─▶ start worker, exec, checkpoint, … ─▶ shim client ─▶ shim
//!                                      ▲              │ ▲                                             │
//!                                      │   events     │ └───────────── exits, end of shim ◀───────────┘
//!                                      └──── hub ◀────┘
//! ```
//!
//! What must never happen here: a container that ends because this program does; an exit announced twice or not at all; a
//! call about one container that waits for another; a path outside of the directories it was given.
#![forbid(unsafe_code)]

mod activity;
mod appear;
mod authority;
mod bundle;
mod cgroup;
pub mod cli;
mod daemon;
mod deadline;
mod debug;
mod error;
mod events;
mod fd;
#[doc(hidden)]
pub mod fuzz;
mod limits;
mod logline;
mod lookout;
mod machine;
mod metrics;
mod names;
mod process;
mod runtime;
mod server;
mod service;
mod shims;
mod statedir;
mod supervisor;
pub mod time;

pub use daemon::run;
pub use error::{Error, Result};
pub use limits::raise_open_files;
pub use logline::{LogLine, line as log_line};
pub use time::parse_go_duration;
