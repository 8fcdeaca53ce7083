//! Is there a CRIU that can be used? Asked at boot, in a pre-flight, and when a checkpoint or a wake has failed.

use crate::error::{Error, Result, blocking};

/// The version of the CRIU that `docker-runc` will take, found as it finds it: an error says what to install.
pub async fn check_criu() -> Result<String> {
    blocking(|| match criu::program::check(None) {
        Ok((_, version)) => Ok(version),
        Err(err) => Err(Error::Unavailable(err.to_string())),
    })
    .await
}
