//! The Docker Engine API: routes, models, and the backend traits behind them.
//!
//! [`server`] turns connections into requests, [`routes`] turns requests into calls of the [`backend`] traits (one file
//! per resource), [`types`] says what the JSON looks like. What a kind of error means in HTTP is in `response`, and
//! nowhere else.
#![forbid(unsafe_code)]

pub mod backend;
pub mod error;
pub mod filters;
pub mod fuzz;
mod hijack;
mod mux;
mod query;
mod registry_auth;
mod request;
mod response;
mod routes;
pub mod server;
pub mod types;
mod version;
mod websocket;

pub use error::{Error, Result};
pub use filters::Filters;
pub use server::{Options, Server, serve};
pub use version::{API_VERSION, MIN_API_VERSION};

#[cfg(test)]
mod tests;
