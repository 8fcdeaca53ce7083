//! `Engine` and `Job`: named, traceable units of work.
//!
//! A job is modelled on a Unix process: it has a name, arguments, an environment, output (progress, and what it says on
//! stderr), a status, a beginning and an end, and it can be told to stop. An [`Engine`] is the register of handlers by name, and the table
//! of what runs:
//!
//! ```no_run
//! # async fn example() -> Result<(), engine::Error> {
//! let engine = engine::Engine::new();
//! engine.register("pull", async |job: engine::Context| {
//!     let image = job.args().first().ok_or_else(|| engine::Failure::text("which image?"))?.clone();
//!     job.progress(format!("pulling {image}"));
//!     Ok(())
//! })?;
//! engine.job("pull").arg("busybox").run().await?; // logs: +job pull(busybox) … -job pull(busybox) = OK (0)
//! # Ok(()) }
//! ```
//!
//! Work that is written where it is needed and has no handler (a pull with its own answer type, say) is run with [`JobBuilder::run_with`]:
//! the same log lines, the same table, the same cancelling.
//!
//! What must never happen here: a job that runs and is not listed, a job that ends without its end line, or a shutdown that
//! waits for ever.
#![forbid(unsafe_code)]

mod context;
mod engine;
mod env;
mod error;
mod job;
mod shutdown;
mod table;

pub use context::{Context, Progress};
pub use engine::Engine;
pub use env::Env;
pub use error::{Error, Failure, Result};
pub use job::{JobBuilder, Running};
pub use shutdown::{CALLBACK_LIMIT, JOB_LIMIT};
pub use table::{JobInfo, Status};
