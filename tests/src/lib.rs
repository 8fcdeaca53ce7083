//! The harness of the end-to-end tests: an engine of its own for every test, driven through the real `docker` CLI.
//!
//! Every [`Engine`] has its own folder, socket, bridge and address range, so that tests run side by side and next to a
//! Docker that is already on the machine. Whatever a test does, and also when it panics, dropping the engine takes
//! away its processes, mounts, network devices, firewall tables, control groups and files.
//!
//! A failed expectation is a panic that carries the whole output of the command and the end of the engine's log. Nothing
//! here may sleep for a fixed time in the hope that something has happened: see [`eventually`].
#![forbid(unsafe_code)]

mod archives;
mod belongings;
mod client;
mod command;
mod connection;
mod counter;
mod debian;
mod engine;
mod http;
mod image;
mod programs;
mod pty;
mod registry;
mod sandbox;
mod wait;
mod web;

pub use archives::{Blob, Compression, ImageArchive, Layer, digest};
pub use command::Done;
pub use connection::Connection;
pub use counter::{COUNT_SCRIPT, Counter};
pub use debian::DebianProgram;
pub use engine::{Background, Builder, Engine};
pub use http::{Answer, request, request_over_tcp};
pub use image::busybox_tar;
pub use programs::search_path;
pub use pty::Terminal;
pub use registry::{DebianRegistry, ScriptedRegistry, Trick, tags};
pub use wait::{eventually, eventually_seen, eventually_within, free_port};
pub use web::{Page, WebServer};
