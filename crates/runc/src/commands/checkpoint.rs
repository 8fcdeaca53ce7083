//! `checkpoint` and `restore`.

use std::path::Path;

use crate::cli;
use crate::error::{Error, Result};

/// `checkpoint`
pub fn checkpoint(_root: &Path, _criu: Option<&Path>, _arguments: &cli::Checkpoint) -> Result<i32> {
    Err(Error::NotImplemented("checkpoint".into()))
}

/// `restore`
pub fn restore(_root: &Path, _criu: Option<&Path>, _arguments: &cli::Restore) -> Result<i32> {
    Err(Error::NotImplemented("restore".into()))
}
