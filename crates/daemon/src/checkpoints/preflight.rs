//! `preflight`: can this container sleep, and if not, why. Nothing is touched.
//!
//! What concerns the engine is looked at here, the processes by the runtime (`docker-runc checkpoint --preflight`).

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use api::types::{CheckpointFinding, CheckpointPreflight};
use serde::Deserialize;

use crate::Daemon;
use crate::containerd::Runtime;
use crate::containers::Container;
use crate::error::{Context, Error, Result};

/// The annotation by which a runtime says that it can look.
const ANNOTATION: &str = "org.dormouse.checkpoint.preflight";
/// A look at thousands of descriptors takes less.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the runtime prints.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    obstacles: Vec<Finding>,
    warnings: Vec<Finding>,
    options: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    code: String,
    message: String,
    #[serde(default)]
    advice: String,
    pid: Option<i64>,
}

impl Finding {
    fn show(self) -> CheckpointFinding {
        CheckpointFinding { code: self.code, message: self.message, advice: self.advice, pid: self.pid }
    }
}

impl Daemon {
    /// Looks at everything that could stand in the way.
    pub(crate) async fn checkpoint_preflight(self: &Arc<Self>, container: &Container) -> Result<CheckpointPreflight> {
        let record = container.record();
        let mut preflight = CheckpointPreflight::default();
        let mut execs = false;
        match record.state.running() {
            None => {
                let message = format!("Container {} not running", record.name);
                preflight.obstacles.push(finding("not-running", message, "start it first"));
            }
            Some(running) => {
                if let Err(error) = self.refuse_running_execs(container) {
                    execs = true;
                    preflight.obstacles.push(finding("exec-running", error.to_string(), "end the exec sessions"));
                }
                if running.paused {
                    let message = "the container is paused, and will be when it wakes".to_owned();
                    preflight.warnings.push(finding("paused", message, "unpause it then"));
                }
                let runtime = self.runtime(&record.runtime)?;
                match ask(&runtime, &record.id).await {
                    Ok(Some(report)) => {
                        // The processes of an exec are told of as such already.
                        let told = |found: &Finding| execs && found.code == "foreign-process";
                        let obstacles = report.obstacles.into_iter().filter(|found| !told(found));
                        preflight.obstacles.extend(obstacles.map(Finding::show));
                        preflight.warnings.extend(report.warnings.into_iter().map(Finding::show));
                        let single = |value: serde_json::Value| match value {
                            serde_json::Value::String(text) => Some(text),
                            value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => {
                                Some(value.to_string())
                            }
                            _ => None,
                        };
                        let mut options = report.options.unwrap_or_default();
                        // What only the dump itself can say.
                        options.retain(|name, _| name != "version" && !name.starts_with("external_"));
                        preflight.options =
                            options.into_iter().filter_map(|(name, value)| Some((name, single(value)?))).collect();
                    }
                    Ok(None) => {
                        let message = format!("the runtime {} cannot look at the processes", record.runtime);
                        preflight.warnings.push(finding("not-looked", message, "use docker-runc to know more"));
                    }
                    // Ended in between, most likely; the next look tells.
                    Err(error) => {
                        let message = format!("the processes could not be looked at: {error}");
                        preflight.warnings.push(finding("not-looked", message, "ask again"));
                    }
                }
            }
        }
        if !preflight.obstacles.iter().any(|found| found.code == "criu")
            && let Err(error) = crate::system::check_criu().await
        {
            preflight.obstacles.push(finding("criu", error.to_string(), "run scripts/install-criu"));
        }
        preflight.possible = preflight.obstacles.is_empty();
        Ok(preflight)
    }
}

fn finding(code: &str, message: String, advice: &str) -> CheckpointFinding {
    CheckpointFinding { code: code.into(), message, advice: advice.into(), pid: None }
}

/// Lets the runtime look; `None` when it does not say that it can.
async fn ask(runtime: &Runtime, id: &str) -> Result<Option<Report>> {
    let features: serde_json::Value = call(runtime, &["features"]).await?;
    if features["annotations"][ANNOTATION] != "true" {
        return Ok(None);
    }
    Ok(Some(call(runtime, &["checkpoint", "--preflight", id]).await?))
}

async fn call<T: for<'de> Deserialize<'de>>(runtime: &Runtime, args: &[&str]) -> Result<T> {
    let mut command = tokio::process::Command::new(&runtime.path);
    command.args(&runtime.args).args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(output) => output.context(|| format!("run {}", runtime.path))?,
        Err(_) => return Err(Error::Unavailable(format!("{} does not answer", runtime.path))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::System(said.lines().last().unwrap_or("it failed").to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| Error::System(format!("its answer cannot be read: {e}")))
}
