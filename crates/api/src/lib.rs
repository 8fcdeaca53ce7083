//! The Docker Engine API: routes, models, and the backend traits behind them.
#![forbid(unsafe_code)]

pub mod backend;
pub mod error;
pub mod filters;
pub mod types;

pub use error::{Error, Result};
pub use filters::Filters;
