//! The OCI runtime's command lines, as every runc-compatible program understands them.
//!
//! Each call is a child that is started here and reaped by the loop; nothing waits for it. The calls of the start path
//! (`create`, `restore`, `exec`) are given the container's stdio and say what went wrong in their log; the others say
//! it on their output, which is kept, within bounds.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use serde::Deserialize;

use crate::error::{Context, Error};
use crate::protocol::{RUNTIME_ARGS_ENV, Restore};
use crate::stdio::Child;
use crate::sys;

/// What is kept of a call's output.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// What is read of a runtime's log.
const MAX_LOG_BYTES: u64 = 256 << 10;

/// One container's runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// Name or path.
    pub(crate) program: String,
    /// Global arguments, before the subcommand.
    pub(crate) args: Vec<String>,
    /// The container.
    pub(crate) id: String,
    /// Where its config.json is.
    pub(crate) bundle: PathBuf,
    /// What our children's out-of-memory score must be, when ours was changed.
    pub(crate) oom_score_adj: Option<String>,
}

/// A call's output as it comes.
#[derive(Debug)]
pub(crate) struct Capture {
    pipe: OwnedFd,
    text: Vec<u8>,
    ended: bool,
}

impl Runtime {
    /// Starts `create` or `restore` of the container; `dir` is the init process's directory.
    pub(crate) fn create(
        &self,
        dir: &Path,
        child: Child,
        console: Option<&str>,
        no_pivot: bool,
        restore: Option<&Restore>,
    ) -> Result<i32, Error> {
        let mut command = self.logged(dir);
        if let Some(restore) = restore {
            command.args(["restore", "-d", "--bundle"]).arg(&self.bundle);
            command.arg("--image-path").arg(&restore.image_path).arg("--work-path").arg(&restore.work_path);
            command.args(&restore.args);
        } else {
            command.args(["create", "--bundle"]).arg(&self.bundle);
        }
        if let Some(console) = console {
            command.args(["--console-socket", console]);
        }
        if no_pivot {
            command.arg("--no-pivot");
        }
        command.arg("--pid-file").arg(dir.join("pid")).arg(&self.id);
        self.spawn_with(command, child)
    }

    /// Starts `exec` of the process described in `dir`.
    pub(crate) fn exec(&self, dir: &Path, child: Child, console: Option<&str>) -> Result<i32, Error> {
        let mut command = self.logged(dir);
        command.args(["exec", "-d", "--process"]).arg(dir.join("process.json"));
        if let Some(console) = console {
            command.args(["--console-socket", console]);
        }
        command.arg("--pid-file").arg(dir.join("pid")).arg(&self.id);
        self.spawn_with(command, child)
    }

    /// Starts any other subcommand; `args` begin with its name and the container's id is not added.
    pub(crate) fn call<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<(i32, Capture), Error> {
        let mut command = self.command();
        command.args(args);
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during("pipe")?;
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK).during("fcntl")?;
        command.stdin(Stdio::null()).stdout(write.try_clone().during("dup")?).stderr(write);
        let pid = self.spawn(command)?;
        Ok((pid, Capture { pipe: read, text: Vec::new(), ended: false }))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.bundle).env_remove(RUNTIME_ARGS_ENV);
        sys::tie_to_us(&mut command, self.oom_score_adj.as_deref());
        command
    }

    fn logged(&self, dir: &Path) -> Command {
        let mut command = self.command();
        let log = dir.join("log.json");
        // What an earlier attempt left must not be taken for ours.
        let _ = std::fs::remove_file(&log);
        command.arg("--log").arg(log).args(["--log-format", "json"]).args(&self.args);
        command
    }

    fn spawn_with(&self, mut command: Command, child: Child) -> Result<i32, Error> {
        command.stdin(child.stdin).stdout(child.stdout).stderr(child.stderr);
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Result<i32, Error> {
        match command.spawn() {
            // Reaped by the loop, which knows it by its pid.
            Ok(child) => i32::try_from(child.id()).map_err(|_| Error::Usage("a pid beyond all bounds".into())),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                if errno == Errno::NOENT && !self.bundle.is_dir() {
                    return Err(errno).at("chdir", &self.bundle);
                }
                if errno == Errno::NOENT && !self.program.contains('/') {
                    return Err(Error::RuntimeMissing(self.program.clone()));
                }
                Err(errno).at("fork/exec", Path::new(&self.program))
            }
        }
    }
}

impl Capture {
    /// What to poll for, until its end.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then_some(self.pipe.as_fd())
    }

    /// Reads what is there, so that the call never waits for us.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0_u8; 4096];
        while !self.ended {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    let room = MAX_OUTPUT_BYTES - self.text.len();
                    self.text.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Everything until now.
    pub(crate) fn into_text(mut self) -> String {
        self.read();
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

#[derive(Deserialize)]
struct LogEntry {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The first `error` entry of the runtime's log in `dir`.
pub(crate) fn logged_error(dir: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(dir.join("log.json")).ok()?.take(MAX_LOG_BYTES).read_to_end(&mut text).ok()?;
    first_error(&text)
}

pub(crate) fn first_error(log: &[u8]) -> Option<String> {
    serde_json::Deserializer::from_slice(log)
        .into_iter::<LogEntry>()
        .map_while(Result::ok)
        .find(|entry| matches!(entry.level.as_str(), "error" | "fatal" | "panic") && !entry.msg.is_empty())
        .map(|entry| entry.msg)
}

/// `exit status 1: "…"`, the output quoted as Go's `%q` does.
pub(crate) fn exit_status_text(status: i32, output: &str) -> String {
    let mut text =
        if status > 128 { format!("signal {}: \"", status - 128) } else { format!("exit status {status}: \"") };
    for letter in output.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            control if control.is_control() => {
                let code = u32::from(control);
                text.push_str(&if code < 0x80 { format!("\\x{code:02x}") } else { format!("\\u{code:04x}") });
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_a_log_is_found() {
        let log = br#"{"level":"warning","msg":"hm"}
            {"level":"error","msg":"exec: \"nope\": executable file not found in $PATH","time":"now"}
            {"level":"error","msg":"second"} garbage"#;
        assert_eq!(first_error(log).unwrap(), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(first_error(b""), None);
        assert_eq!(first_error(b"plain words"), None);
        assert_eq!(first_error(br#"{"level":"error"}"#), None);
    }

    #[test]
    fn output_is_quoted_as_go_does() {
        assert_eq!(
            exit_status_text(1, "criu failed: \"x\"\n\tlog\u{1}"),
            "exit status 1: \"criu failed: \\\"x\\\"\\n\\tlog\\x01\""
        );
        assert_eq!(exit_status_text(137, ""), "signal 9: \"\"");
    }
}
