//! Is there a CRIU that can be used?

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Where this project's own installer puts it.
const OWN: &str = "/opt/dormouse/criu/bin/criu";

/// The CRIU that the runtime will use.
pub fn find_criu() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("criu"))
        .chain([PathBuf::from(OWN)])
        .find(|p| p.is_file())
        .ok_or_else(|| {
            Error::Unavailable(format!(
                "checkpoints need CRIU 4 or newer, and there is no criu in PATH nor {OWN}: run scripts/install-criu"
            ))
        })
}
