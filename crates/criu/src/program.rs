//! Finds the program.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Error, Result};

/// Where `scripts/install-criu` puts it.
const PRIVATE: &str = "/opt/dormouse/criu/bin/criu";
/// Older ones do not run on today's kernels.
const LEAST_MAJOR: u32 = 4;
/// It answers in hundredths of a second, unless the machine is in trouble.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// What a program has to say about its version is shorter.
const MAX_WORDS_BYTES: u64 = 64 << 10;
/// The loader in a prefix of its own.
const LOADER: &str = if cfg!(target_arch = "aarch64") {
    "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
} else {
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
};

/// The CRIU to use, and its version: fails, saying what to install, when there is none or when it is too old. Starts it
/// once, which takes some hundredths of a second.
pub fn check(named: Option<&Path>) -> Result<(Program, String)> {
    let program = Program::find(named)?;
    let version = program.version()?;
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < LEAST_MAJOR) {
        return Err(Error::TooOld { path: program.path, found: version });
    }
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
            return Err(Error::Missing { looked: format!("at {}", path.display()) });
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

    /// Asks for its version, such as `4.1.1`.
    pub fn version(&self) -> Result<String> {
        let broken = |why: String| Error::Broken { path: self.path.clone(), why };
        let mut command = command(&self.path, None);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|err| broken(err.to_string()))?;
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).is_ok_and(|pidfd| {
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&PATIENCE)).is_ok_and(|ready| ready > 0)
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            return Err(broken("it does not answer".into()));
        }
        // What it has written is in the pipes; more than they hold is no version.
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let _ = child.wait();
        let out = out.map(read_words).unwrap_or_default();
        parse_version(&out).ok_or_else(|| {
            let err = err.map(read_words).unwrap_or_default();
            broken(err.lines().next().unwrap_or("it does not tell its version").to_owned())
        })
    }
}

fn read_words(pipe: impl Read) -> String {
    let mut text = Vec::new();
    // What cannot be read is no version, which is said then.
    let _ = pipe.take(MAX_WORDS_BYTES).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Out of `Version: 4.1.1`.
fn parse_version(text: &str) -> Option<String> {
    let version = text.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
    (!version.is_empty() && version.len() < 64).then(|| version.to_owned())
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

    /// Both for `docker info` at boot and for whoever asks for a checkpoint: what is wrong, and what to do.
    #[test]
    fn whoever_cannot_be_used_is_refused_with_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let answer = |text: &str| {
            let path = dir.path().join("criu");
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            check(Some(&path)).map(|(_, version)| version).map_err(|err| err.to_string())
        };
        assert_eq!(answer("echo Version: 4.1.1; echo GitID: v4.1.1").unwrap(), "4.1.1");
        for (text, word) in [
            ("echo Version: 3.17.1", "is 3.17.1"),
            ("echo usage", "does not run: it does not tell its version"),
            ("echo no library >&2; exit 127", "does not run: no library"),
        ] {
            let err = answer(text).unwrap_err();
            assert!(err.contains("checkpoints need CRIU 4 or newer") && err.contains(word), "{err}");
            assert!(err.ends_with("run scripts/install-criu"), "{err}");
        }
        let err = check(Some(&dir.path().join("none"))).unwrap_err().to_string();
        assert!(err.contains("there is none at") && err.ends_with("run scripts/install-criu"), "{err}");
    }

    #[test]
    fn a_named_program_that_is_not_there_is_an_error() {
        assert!(matches!(Program::find(Some(Path::new("/no/criu"))), Err(Error::Missing { .. })));
    }
}
