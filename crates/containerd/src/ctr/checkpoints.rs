//! `checkpoints`: list, create, delete.

use clap::{Args, Subcommand};
use containerd_api::types::{Checkpoint, CreateCheckpointRequest, DeleteCheckpointRequest, ListCheckpointRequest};

use crate::client::Client;
use crate::failure::{Result, required};
use crate::table;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The container whose checkpoints to list
    id: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List all checkpoints for a container
    List {
        /// Path to checkpoint directory
        #[arg(long, default_value = "", hide_default_value = true)]
        checkpoint_dir: String,
        /// The container
        id: Option<String>,
    },
    /// Create a new checkpoint for the container
    Create {
        /// Persist open tcp connections
        #[arg(long)]
        tcp: bool,
        /// Persist unix sockets
        #[arg(long)]
        unix_sockets: bool,
        /// Exit the container after the checkpoint completes successfully
        #[arg(long)]
        exit: bool,
        /// Checkpoint shell jobs
        #[arg(long)]
        shell: bool,
        /// Directory to store checkpoints
        #[arg(long, default_value = "", hide_default_value = true)]
        checkpoint_dir: String,
        /// Create a namespace, but don't restore its properties
        #[arg(long)]
        empty_ns: Vec<String>,
        /// The container
        id: Option<String>,
        /// The checkpoint
        name: Option<String>,
    },
    /// Delete a container's checkpoint
    Delete {
        /// Path to checkpoint directory
        #[arg(long, default_value = "", hide_default_value = true)]
        checkpoint_dir: String,
        /// The container
        id: Option<String>,
        /// The checkpoint
        name: Option<String>,
    },
}

pub(crate) async fn run(client: &mut Client, arguments: Arguments) -> Result<()> {
    match arguments.command {
        None => list(client, arguments.id, String::new()).await,
        Some(Command::List { checkpoint_dir, id }) => list(client, id, checkpoint_dir).await,
        Some(Command::Create { tcp, unix_sockets, exit, shell, checkpoint_dir, empty_ns, id, name }) => {
            let id = required(id, "container id at")?;
            let name = required(name, "checkpoint name")?;
            let checkpoint = Checkpoint { name, exit, tcp, unix_sockets, shell, empty_ns, ..Checkpoint::default() };
            let request = CreateCheckpointRequest { id, checkpoint: Some(checkpoint), checkpoint_dir };
            client.api.create_checkpoint(request).await?;
            Ok(())
        }
        Some(Command::Delete { checkpoint_dir, id, name }) => {
            let id = required(id, "container id at")?;
            let name = required(name, "checkpoint name")?;
            client.api.delete_checkpoint(DeleteCheckpointRequest { id, name, checkpoint_dir }).await?;
            Ok(())
        }
    }
}

async fn list(client: &mut Client, id: Option<String>, checkpoint_dir: String) -> Result<()> {
    let id = required(id, "container id")?;
    let answer = client.api.list_checkpoint(ListCheckpointRequest { id, checkpoint_dir }).await?.into_inner();
    let mut rows = vec![["NAME", "TCP", "UNIX SOCKETS", "SHELL"].map(String::from).to_vec()];
    for checkpoint in answer.checkpoints {
        let flags = [checkpoint.tcp, checkpoint.unix_sockets, checkpoint.shell].map(|flag| flag.to_string());
        rows.push(std::iter::once(checkpoint.name).chain(flags).collect());
    }
    print!("{}", table::lay_out(&rows, 20, 3));
    Ok(())
}
