//! Finds the program.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::rpc;
use crate::session::{Launch, Session};

/// Where `scripts/install-criu` puts it.
const PRIVATE: &str = "/opt/dormouse/criu/bin/criu";
/// Older ones do not run on today's kernels.
const LEAST: (i32, i32) = (4, 0);

/// CRIU on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
}

impl Program {
    /// Takes the one that is named, or that of `DORMOUSE_CRIU`, or the first in `PATH`, or the private one.
    ///
    /// A name that leads nowhere is an error; it is not passed over.
    pub fn find(named: Option<&Path>) -> Result<Self> {
        let variable = std::env::var_os("DORMOUSE_CRIU").filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = named.map(Path::to_owned).or(variable) {
            if path.components().count() == 1
                && let Some(found) = in_path(&path)
            {
                return Ok(Program { path: found });
            }
            if is_program(&path) {
                return Ok(Program { path });
            }
            return Err(Error::Missing { looked: path.display().to_string() });
        }
        // The private one is there because the system's does not work: it goes first.
        if is_program(Path::new(PRIVATE)) {
            return Ok(Program { path: PRIVATE.into() });
        }
        match in_path(Path::new("criu")) {
            Some(path) => Ok(Program { path }),
            None => Err(Error::Missing { looked: format!("in PATH and at {PRIVATE}") }),
        }
    }

    /// Asks for its version.
    pub fn version(&self) -> Result<rpc::Version> {
        let request = rpc::Request { kind: rpc::RequestType::Version as i32, ..Default::default() };
        let mut session = Session::start(Launch::new(&self.path))?;
        let response = session.call(&request, &mut (), Duration::from_secs(10))?;
        session.end();
        response.version.ok_or_else(|| Error::Protocol("no version in the answer".into()))
    }

    /// Fails when it is too old.
    pub fn check_version(&self) -> Result<()> {
        let version = self.version()?;
        if (version.major, version.minor) < LEAST {
            return Err(Error::TooOld {
                path: self.path.clone(),
                found: format!("{}.{}", version.major, version.minor),
                needed: "4.0",
            });
        }
        Ok(())
    }
}

fn in_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_program_that_is_not_there_is_an_error() {
        assert!(matches!(Program::find(Some(Path::new("/no/criu"))), Err(Error::Missing { .. })));
    }
}
