//! dockerd: flags, daemon.json, signals, boot jobs. It wires the other crates together and does nothing else.
//!
//! ```text
//!   command line ─┐
//!   daemon.json ──┴▶ options ─▶ settings ─▶ boot ─┬─ serveapi            binds, waits for the gate, serves
//!                                                 ├─ initdaemon          containerd, stores, networks, containers
//!                                                 └─ acceptconnections   opens the gate, tells systemd
//! ```
#![forbid(unsafe_code)]

pub mod boot;
pub mod containerd;
mod daemon_config;
mod dump;
pub mod logging;
pub mod options;
pub mod pidfile;
mod programs;
pub mod settings;
mod shared;
mod signals;
mod system;

/// The version that is told.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
