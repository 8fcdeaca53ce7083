//! Finds the program.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::rpc;
use crate::session::{Launch, Session};

/// Where `scripts/install-criu` puts it.
const PRIVATE: &str = "/opt/dormouse/criu/bin/criu";
/// Older ones do not run on today's kernels.
const LEAST: (i32, i32) = (4, 0);
/// The loader in a prefix of its own.
const LOADER: &str = if cfg!(target_arch = "aarch64") {
    "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
} else {
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
};

/// The CRIU to use, and its version: fails, saying what to install, when there is none or when it is too old. Starts it
/// once, which takes some hundredths of a second.
pub fn check(named: Option<&Path>) -> Result<(Program, rpc::Version)> {
    let program = Program::find(named)?;
    let version = program.check_version()?;
    Ok((program, version))
}

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

    /// Its version; fails when it is too old.
    pub fn check_version(&self) -> Result<rpc::Version> {
        let version = self.version()?;
        if (version.major, version.minor) < LEAST {
            return Err(Error::TooOld {
                path: self.path.clone(),
                found: format!("{}.{}", version.major, version.minor),
                needed: "4.0",
            });
        }
        Ok(version)
    }
}

/// How to start the program at `path`, and with which library in front of all others.
///
/// A CRIU in a prefix of its own is started by a shell script, for people. Here its loader is called directly: no shell,
/// and `preload` is for CRIU alone, not for what CRIU starts.
pub(crate) fn command(path: &Path, preload: Option<&str>) -> Command {
    if let Some(own) = Private::at(path) {
        let mut command = Command::new(&own.loader);
        command.args(["--argv0", "criu", "--library-path"]).arg(&own.libraries);
        if let Some(library) = preload {
            command.args(["--preload", library]);
        }
        command.arg(own.program);
        if let Some(plugins) = own.plugins
            && std::env::var_os("CRIU_LIBS_DIR").is_none()
        {
            command.env("CRIU_LIBS_DIR", plugins);
        }
        return command;
    }
    let mut command = Command::new(path);
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    command
}

/// What `scripts/install-criu` lays out: `bin/criu` is a script, everything else lies below `usr`.
#[derive(Debug, PartialEq, Eq)]
struct Private {
    loader: PathBuf,
    libraries: std::ffi::OsString,
    program: PathBuf,
    plugins: Option<PathBuf>,
}

impl Private {
    fn at(path: &Path) -> Option<Self> {
        let path = std::fs::canonicalize(path).ok()?;
        let prefix = path.parent().filter(|bin| bin.ends_with("bin"))?.parent()?;
        let (loader, program) = (prefix.join(LOADER), prefix.join("usr/sbin/criu"));
        if !is_program(&loader) || !is_program(&program) || !is_script(&path) {
            return None;
        }
        let mut libraries = loader.parent()?.as_os_str().to_owned();
        libraries.push(":");
        libraries.push(prefix.join("usr/lib64"));
        let plugins = ["usr/libexec/criu", "usr/lib/criu"].map(|dir| prefix.join(dir)).into_iter().find(|d| d.is_dir());
        Some(Private { loader, libraries, program, plugins })
    }
}

fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
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
    fn a_prefix_of_its_own_is_started_by_its_loader() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let script = make("bin/criu", "#!/bin/sh\n");
        assert_eq!(command(&script, None).get_program(), script);
        let loader = make(LOADER, "");
        let program = make("usr/sbin/criu", "");
        let command = command(&script, Some("/library"));
        assert_eq!(command.get_program(), loader);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments[..2], ["--argv0", "criu"]);
        assert_eq!(arguments[4..], ["--preload".as_ref(), "/library".as_ref(), program.as_os_str()]);
        // A program of that name in a place of that kind is started as it is.
        let program = make("bin/criu", "ELF");
        assert_eq!(super::command(&program, None).get_program(), program);
    }

    #[test]
    fn a_named_program_that_is_not_there_is_an_error() {
        assert!(matches!(Program::find(Some(Path::new("/no/criu"))), Err(Error::Missing { .. })));
    }
}
