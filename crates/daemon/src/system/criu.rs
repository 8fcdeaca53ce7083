//! Is there a CRIU that can be used? Asked at boot, in a pre-flight, and when a checkpoint or a wake has failed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// Where this project's own installer puts it.
const OWN: &str = "/opt/dormouse/criu/bin/criu";
/// Older ones do not run on today's kernels.
const LEAST_MAJOR: u32 = 4;
/// It answers in hundredths of a second, unless the machine is in trouble.
const PATIENCE: Duration = Duration::from_secs(20);

/// Finds the CRIU that `docker-runc` will take, and asks for its version: an error says what to install.
pub async fn check_criu() -> Result<String> {
    let path = find()?;
    let mut command = tokio::process::Command::new(&path);
    command.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let broken = |why: String| {
        Error::Unavailable(format!(
            "checkpoints need CRIU {LEAST_MAJOR} or newer, and {} does not run: {why}; run scripts/install-criu",
            path.display()
        ))
    };
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(broken(e.to_string())),
        Err(_) => return Err(broken("it does not answer".into())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some((major, version)) if major >= LEAST_MAJOR => Ok(version),
        Some((_, version)) => Err(Error::Unavailable(format!(
            "checkpoints need CRIU {LEAST_MAJOR} or newer, and {} is {version}: run scripts/install-criu",
            path.display()
        ))),
        None => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(broken(said.lines().next().unwrap_or("it does not tell its version").to_owned()))
        }
    }
}

/// In the order in which the runtime looks.
fn find() -> Result<PathBuf> {
    let named = std::env::var_os("DORMOUSE_CRIU").filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = |name: &Path| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file());
    let found = match &named {
        Some(name) if name.components().count() == 1 => in_path(name),
        Some(name) => Some(name.clone()).filter(|p| p.is_file()),
        None => Some(PathBuf::from(OWN)).filter(|p| p.is_file()).or_else(|| in_path(Path::new("criu"))),
    };
    found.ok_or_else(|| {
        let looked = named.map_or_else(|| format!("in PATH and at {OWN}"), |name| format!("at {}", name.display()));
        Error::Unavailable(format!(
            "checkpoints need CRIU {LEAST_MAJOR} or newer, and there is none {looked}: run scripts/install-criu"
        ))
    })
}

/// Out of `Version: 4.1.1`.
fn version(text: &str) -> Option<(u32, String)> {
    let version = text.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
    let major = version.split('.').next()?.parse().ok()?;
    Some((major, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(version("Version: 4.1.1\nGitID: v4.1.1\n"), Some((4, "4.1.1".into())));
        assert_eq!(version("Version: 3.17.1\n").map(|(major, _)| major), Some(3));
        assert_eq!(version("usage: something else"), None);
    }
}
