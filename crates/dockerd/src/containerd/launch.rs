//! How docker-containerd is started: the command line, what it inherits, and the files beside its socket.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::programs;

/// The program.
pub const PROGRAM: &str = "docker-containerd";

/// Everything that decides how it is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// `<exec-root>/libcontainerd`: the socket, the pid file, the state directory, the bundles.
    pub root: PathBuf,
    /// Pass `--debug`.
    pub debug: bool,
    /// `--oom-score-adjust`: how readily the kernel kills it.
    pub oom_score_adjust: i32,
    /// `PATH` to look in and to hand on.
    pub search_path: OsString,
}

impl Launch {
    /// The socket it listens on.
    pub fn socket(&self) -> PathBuf {
        self.root.join("docker-containerd.sock")
    }

    /// The file with its pid.
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("docker-containerd.pid")
    }

    /// Makes the directories, private to root.
    pub fn prepare(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.root.join("containerd"))
    }

    /// The arguments; the order is that of dockerd 17.03.
    pub fn arguments(&self) -> Vec<OsString> {
        let unix = |path: &Path| {
            let mut address = OsString::from("unix://");
            address.push(path);
            address
        };
        let mut arguments: Vec<OsString> = vec![
            "-l".into(),
            unix(&self.socket()),
            "--metrics-interval=0".into(),
            "--start-timeout".into(),
            "2m".into(),
            "--state-dir".into(),
            self.root.join("containerd").into(),
            "--shim".into(),
            "docker-containerd-shim".into(),
            "--runtime".into(),
            self.runtime().into(),
        ];
        if self.debug {
            arguments.push("--debug".into());
        }
        arguments
    }

    /// Our own runtime where it is, else the distribution's.
    fn runtime(&self) -> &'static str {
        match programs::find("docker-runc", &self.search_path) {
            Some(_) => "docker-runc",
            None => "runc",
        }
    }

    /// Starts it: in a process group of its own, so that a Ctrl-C at dockerd's terminal is dockerd's alone.
    pub fn spawn(&self) -> anyhow::Result<Child> {
        let program = programs::find(PROGRAM, &self.search_path)
            .with_context(|| format!("{PROGRAM} is neither beside dockerd nor in PATH"))?;
        let child = Command::new(&program)
            .args(self.arguments())
            .env("PATH", &self.search_path)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        super::adjust_oom_score(child.id(), self.oom_score_adjust);
        tracing::info!(pid = child.id(), program = %program.display(), "started containerd");
        Ok(child)
    }
}

/// Writes a process's `oom_score_adj`, unless it has that value.
pub fn adjust_oom_score(pid: u32, score: i32) -> io::Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    if std::fs::read_to_string(&path)?.trim().parse() == Ok(score) {
        return Ok(());
    }
    std::fs::write(path, score.to_string())
}

/// Whether a process is a docker-containerd that was told to listen on this socket.
pub fn is_ours(pid: u32, socket: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let mut address = b"unix://".to_vec();
    address.extend_from_slice(std::os::unix::ffi::OsStrExt::as_bytes(socket.as_os_str()));
    let program = words.first().map(|word| Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(word)));
    program.and_then(Path::file_name) == Some(OsStr::new(PROGRAM)) && words.contains(&&address[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_dockerd_17_03() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/true", dir.path().join("docker-runc")).unwrap();
        let launch = Launch {
            root: "/var/run/docker/libcontainerd".into(),
            debug: true,
            oom_score_adjust: -500,
            search_path: dir.path().into(),
        };
        let words: Vec<String> = launch.arguments().into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            "-l unix:///var/run/docker/libcontainerd/docker-containerd.sock --metrics-interval=0 --start-timeout 2m \
             --state-dir /var/run/docker/libcontainerd/containerd --shim docker-containerd-shim --runtime docker-runc --debug"
        );
        let elsewhere = Launch { search_path: "/nonexistent".into(), ..launch };
        assert!(elsewhere.arguments().contains(&"runc".into()));
        assert!(elsewhere.spawn().unwrap_err().to_string().contains("neither beside dockerd nor in PATH"));
        assert!(!is_ours(std::process::id(), &elsewhere.socket()));
    }
}
