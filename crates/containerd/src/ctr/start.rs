//! `containers start`: a container from its bundle, or from a checkpoint.

use std::path::{Path, PathBuf};

use clap::Args;
use containerd_api::types::CreateContainerRequest;

use crate::attach::{self, Attachment};
use crate::client::Client;
use crate::failure::{Failure, Result, required};
use crate::stdio::Fifos;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Checkpoint to start the container from
    #[arg(short, long, default_value = "", hide_default_value = true)]
    checkpoint: String,
    /// Path to checkpoint directory
    #[arg(long, default_value = "", hide_default_value = true)]
    checkpoint_dir: String,
    /// Connect to the stdio of the container
    #[arg(short, long)]
    attach: bool,
    /// Set labels for the container
    #[arg(short, long)]
    label: Vec<String>,
    /// Do not use pivot root
    #[arg(long)]
    no_pivot: bool,
    /// Name or path of the OCI compliant runtime to use when executing containers
    #[arg(short, long, default_value = "runc")]
    runtime: String,
    /// Specify additional runtime args
    #[arg(long, allow_hyphen_values = true)]
    runtime_args: Vec<String>,
    /// The container
    id: Option<String>,
    /// Its bundle
    bundle: Option<String>,
}

pub(crate) async fn run(client: &mut Client, arguments: Arguments) -> Result<u8> {
    let bundle = required(arguments.bundle, "bundle path")?;
    let id = required(arguments.id, "container id")?;
    let bundle = absolute(Path::new(&bundle))?;
    let fifos = Fifos::make()?;
    let request = CreateContainerRequest {
        id: id.clone(),
        bundle_path: bundle.display().to_string(),
        checkpoint: arguments.checkpoint,
        checkpoint_dir: arguments.checkpoint_dir,
        stdin: fifos.path("stdin"),
        stdout: fifos.path("stdout"),
        stderr: fifos.path("stderr"),
        labels: arguments.label,
        no_pivot_root: arguments.no_pivot,
        runtime: arguments.runtime,
        runtime_args: arguments.runtime_args,
        ..CreateContainerRequest::default()
    };
    if !arguments.attach {
        client.api.create_container(request).await?;
        return Ok(0);
    }
    let attachment = Attachment::prepare(fifos, wants_terminal(&bundle)?)?;
    let began = attach::now();
    client.api.create_container(request).await?;
    attachment.serve(client, began, &id, "init").await
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(format!("cannot get the absolute path of the bundle: {error}")))
}

/// Whether the bundle asks for a terminal.
fn wants_terminal(bundle: &Path) -> Result<bool> {
    let path = bundle.join("config.json");
    let text =
        std::fs::read(&path).map_err(|error| Failure::new(format!("open {}: {}", path.display(), plain(&error))))?;
    let config: serde_json::Value = serde_json::from_slice(&text).map_err(|error| Failure::new(error.to_string()))?;
    Ok(config["process"]["terminal"].as_bool().unwrap_or(false))
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
