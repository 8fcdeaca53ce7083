//! The OCI runtime's command line, for everything that does not need the shim.
//!
//! Whatever makes or waits for a process of a container goes through its shim; here is only what acts on one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::{Error, Result};

/// A runtime that takes longer than this for anything but a checkpoint is stuck.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The annotation by which a runtime says that it chooses checkpoint options itself.
const AUTO_ANNOTATION: &str = "org.dormouse.checkpoint.auto";

/// A runtime and the global arguments it is always given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments before the sub-command.
    pub args: Vec<String>,
}

impl Runtime {
    /// Finds the runtime `name`, a path or something in `PATH`. `docker-runc` may be served by `runc`.
    ///
    /// # Errors
    /// In the words of the shim, which used to do this.
    pub fn find(name: &str, args: &[String]) -> Result<Runtime> {
        let found = |path| Ok(Runtime { path, args: args.to_vec() });
        if name.contains('/') {
            return match std::fs::metadata(name) {
                Ok(_) => found(PathBuf::from(name)),
                Err(error) => Err(Error::Shim(format!("fork/exec {name}: {}", crate::error::words(&error)))),
            };
        }
        if let Some(path) = find_program(name) {
            return found(path);
        }
        if let Some(path) = (name == "docker-runc").then(|| find_program("runc")).flatten() {
            return found(path);
        }
        Err(Error::Shim(format!("{name} not installed on system")))
    }

    fn command(&self, subcommand: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).args(subcommand);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn output(&self, subcommand: &[&str]) -> Result<Output> {
        finish(self.command(subcommand).output()).await
    }

    /// Freezes or thaws the container.
    ///
    /// # Errors
    /// With the runtime's status and output.
    pub async fn pause(&self, id: &str, freeze: bool) -> Result<()> {
        let output = self.output(&[if freeze { "pause" } else { "resume" }, id]).await?;
        if output.status.success() { Ok(()) } else { Err(Error::RuntimeOutput(status_and_output(&output))) }
    }

    /// Changes the container's limits; `resources` is the OCI object as JSON.
    ///
    /// # Errors
    /// With the runtime's raw output.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let mut child = self.command(&["update", "-r", "-", id]).stdin(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let output = finish(async {
            if let Some(mut stdin) = stdin {
                // A runtime that ends without reading says why in its output.
                let _ = stdin.write_all(resources).await;
            }
            child.wait_with_output().await
        })
        .await?;
        if output.status.success() { Ok(()) } else { Err(Error::RuntimeOutput(text(&output))) }
    }

    /// Kills what is left of the container and removes it. That it does not exist is fine.
    ///
    /// # Errors
    /// With the runtime's status and output.
    pub async fn delete_force(&self, id: &str) -> Result<()> {
        let output = self.output(&["delete", "--force", id]).await?;
        if output.status.success() || text(&output).contains("does not exist") {
            return Ok(());
        }
        Err(Error::RuntimeOutput(status_and_output(&output)))
    }

    /// Whether this runtime understands `checkpoint --auto`. Asked once per binary.
    pub async fn chooses_checkpoint_options(&self) -> bool {
        static KNOWN: Mutex<Option<HashMap<PathBuf, (SystemTime, bool)>>> = Mutex::new(None);
        let modified = std::fs::metadata(&self.path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        {
            let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, answer)) = known.as_ref().and_then(|k| k.get(&self.path)) {
                if *at == modified {
                    return *answer;
                }
            }
        }
        let answer = match self.output(&["features"]).await {
            Ok(output) if output.status.success() => says_auto(&output.stdout),
            _ => false,
        };
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_default().insert(self.path.clone(), (modified, answer));
        answer
    }
}

async fn finish(output: impl Future<Output = std::io::Result<Output>>) -> Result<Output> {
    match tokio::time::timeout(TIMEOUT, output).await {
        Ok(output) => Ok(output?),
        Err(_) => Err(Error::RuntimeOutput(format!("the runtime did not finish within {} s", TIMEOUT.as_secs()))),
    }
}

pub(crate) fn says_auto(features: &[u8]) -> bool {
    let features: serde_json::Value = serde_json::from_slice(features).unwrap_or_default();
    match &features["annotations"][AUTO_ANNOTATION] {
        serde_json::Value::String(value) => value == "true",
        value => value == &serde_json::Value::Bool(true),
    }
}

/// Looks for a program in `PATH` and then beside this one.
pub fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable =
        |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        let path = PathBuf::from(name);
        return executable(&path).then_some(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(beside)
        .map(|dir| dir.join(name))
        .find(|path| executable(path))
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// `exit status 1: "<output>"`.
fn status_and_output(output: &Output) -> String {
    use std::os::unix::process::ExitStatusExt;
    let status = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => "unknown status".to_owned(),
    };
    format!("{status}: {}", go_quote(&text(output)))
}

/// A string as Go's `%q` writes it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(go_quote("a \"b\"\n\\ä\x01"), r#""a \"b\"\n\\ä\x01""#);
    }

    #[test]
    fn missing_runtimes_are_named() {
        let text = |name: &str| Runtime::find(name, &[]).unwrap_err().to_string();
        assert_eq!(text("/nope/runc"), "shim error: fork/exec /nope/runc: no such file or directory");
        assert_eq!(text("no-such-runc"), "shim error: no-such-runc not installed on system");
    }

    #[test]
    fn the_annotation_decides() {
        assert!(says_auto(br#"{"annotations":{"org.dormouse.checkpoint.auto":"true"}}"#));
        assert!(says_auto(br#"{"annotations":{"org.dormouse.checkpoint.auto":true}}"#));
        assert!(!says_auto(br#"{"annotations":{}}"#));
        assert!(!says_auto(b"not json"));
    }
}
