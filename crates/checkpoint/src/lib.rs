//! What a checkpoint is on disk, and nothing of daemons.
//!
//! ```text
//! <dir>/<name>/              complete or absent: made as <dir>/.staging-…/<name>, then renamed
//!     manifest.json          what it is, with the digest of every other file
//!     seal.json              the manifest's digest, and this engine's own mark
//!     *.img, config.json     CRIU's images, and docker-containerd's note of the options
//!     rootfs.tar             the writable layer at that instant, overlay's markers as they are
//!     shm.tar                the content of /dev/shm at that instant
//!     criu.work/             CRIU's logs and statistics
//! ```
//!
//! A checkpoint is hostile input: whoever hands us a directory may have made it. Names are checked, files are opened
//! without following links, sizes are bounded, and nothing in it decides what a container may do: mounts, devices,
//! capabilities and networks come from the container's own record.
#![forbid(unsafe_code)]

mod directory;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod host;
mod manifest;
mod seal;
mod staging;

pub use directory::{Directory, Found, check_name};
pub use error::{Error, Result};
pub use host::HostFacts;
pub use manifest::{Address, FileFacts, Manifest, Measured, PublishedPort, VERSION, parse};
pub use seal::{Depth, Key, Origin};
pub use staging::Staging;

/// Name of the writable layer's capture, without `.tar`.
pub const ROOTFS: &str = "rootfs";
/// Name of `/dev/shm`'s capture, without `.tar`.
pub const SHM: &str = "shm";

const MANIFEST: &str = "manifest.json";
const SEAL: &str = "seal.json";
/// What docker-containerd writes when a dump is complete.
const NOTE: &str = "config.json";
/// Where CRIU's logs are.
const WORK: &str = "criu.work";
/// What the runtime writes of the options it has chosen.
const OPTIONS: &str = "dormouse-options.json";
