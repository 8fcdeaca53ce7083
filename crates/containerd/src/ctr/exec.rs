//! `containers exec`: one more process in a running container.

use clap::Args;
use containerd_api::types::{AddProcessRequest, User};

use crate::attach::{self, Attachment};
use crate::client::Client;
use crate::failure::Result;
use crate::stdio::Fifos;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Container id to add the process to
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// Process id for the new process
    #[arg(long, default_value = "", hide_default_value = true)]
    pid: String,
    /// Connect to the stdio of the container
    #[arg(short, long)]
    attach: bool,
    /// Current working directory for the process
    #[arg(long, default_value = "", hide_default_value = true)]
    cwd: String,
    /// Create a terminal for the process
    #[arg(short, long)]
    tty: bool,
    /// Environment variables for the process
    #[arg(short, long)]
    env: Vec<String>,
    /// User id of the user for the process
    #[arg(short, long, default_value_t = 0)]
    uid: u32,
    /// Group id of the user for the process
    #[arg(short, long, default_value_t = 0)]
    gid: u32,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) async fn run(client: &mut Client, arguments: Arguments) -> Result<u8> {
    let fifos = Fifos::make()?;
    let Arguments { id, pid, attach, cwd, tty, env, uid, gid, args } = arguments;
    let request = AddProcessRequest {
        id: id.clone(),
        pid: pid.clone(),
        args,
        cwd,
        terminal: tty,
        env,
        user: Some(User { uid, gid, additional_gids: Vec::new() }),
        stdin: fifos.path("stdin"),
        stdout: fifos.path("stdout"),
        stderr: fifos.path("stderr"),
        ..AddProcessRequest::default()
    };
    if !attach {
        client.api.add_process(request).await?;
        return Ok(0);
    }
    let attachment = Attachment::prepare(fifos, tty)?;
    let began = attach::now();
    client.api.add_process(request).await?;
    attachment.serve(client, began, &id, &pid).await
}
