//! The wire models of the Docker Engine API (1.51), one file per noun.
//!
//! They say what JSON looks like and nothing about what it means: enum-like values are strings that the daemon checks.
//! Reading is as lenient as Docker's (a missing or `null` field is its default, unknown fields are ignored); writing is
//! as exact (what Docker always sends is always sent, and `null` stays apart from the empty list or map). They are also
//! what the daemon stores, so reading back what was written gives the same value.
#![allow(missing_docs)]

pub mod checkpoint;
pub mod config;
pub mod container;
pub mod event;
pub mod exec;
pub mod host_config;
pub mod image;
pub mod mount;
pub mod network;
pub mod stats;
pub mod system;
pub mod time;
pub mod volume;
pub mod wire;

pub use checkpoint::*;
pub use config::*;
pub use container::*;
pub use event::*;
pub use exec::*;
pub use host_config::*;
pub use image::*;
pub use mount::*;
pub use network::*;
pub use stats::*;
pub use system::*;
pub use time::Timestamp;
pub use volume::*;
pub use wire::{Empty, List, Map, StrSlice};

#[cfg(test)]
mod tests;
