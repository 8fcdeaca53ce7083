//! The limit on open files: every container costs a few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// A soft limit of up to this is raised.
const ENOUGH: u64 = 1024;

/// Raises the soft limit to the hard one when it is low.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current <= ENOUGH) else { return };
    warn!(current, maximum = limit.maximum, "low RLIMIT_NOFILE changing to max");
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        warn!(%error, "cannot raise RLIMIT_NOFILE");
    }
}
