//! docker-containerd-ctr: the small client, for looking at a docker-containerd and for trying things by hand.
//!
//! Commands, flags and output are those of the `ctr` that came with containerd 0.2, so that scripts written for it go
//! on working. Errors are `[ctr] <message>` on stderr with status 1. It must never do anything to a container but
//! through the API.
#![forbid(unsafe_code)]

mod attach;
mod checkpoints;
mod client;
mod containers;
mod events;
mod exec;
mod failure;
mod json;
mod start;
mod stdio;
mod table;
mod views;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use containerd::cli::{REVISION, VERSION};
use containerd::parse_go_duration;
use containerd_api::types::GetServerVersionRequest;

use client::Client;
use failure::{Failure, Result};

#[derive(Debug, Parser)]
#[command(name = "ctr", version = version(), about = "High performance container daemon cli", disable_version_flag = true)]
struct Arguments {
    /// Enable debug output in the logs
    #[arg(long)]
    debug: bool,
    /// proto://address of GRPC API
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    address: String,
    /// GRPC connection timeout
    #[arg(long, default_value = "1s", value_parser = parse_go_duration)]
    conn_timeout: Duration,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List, create and delete checkpoints
    Checkpoints(checkpoints::Arguments),
    /// Interact with running containers
    Containers(Box<containers::Arguments>),
    /// Receive events from the containerd daemon
    Events(events::Arguments),
    /// Get a raw dump of the containerd state
    State {
        /// Only this container
        id: Option<String>,
    },
    /// Return the daemon version
    Version,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(error.to_string()))
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(arguments));
            // A thread may still be waiting for input that nobody wants any more.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("[ctr] {failure}");
            ExitCode::from(failure.status)
        }
    }
}

/// Does what was asked; gives the status to end with.
async fn run(arguments: Arguments) -> Result<u8> {
    let mut client = Client::connect(&arguments.address, arguments.conn_timeout)?;
    match arguments.command {
        Command::Checkpoints(command) => checkpoints::run(&mut client, command).await?,
        Command::Containers(command) => return containers::run(&mut client, *command).await,
        Command::Events(command) => events::run(&mut client, command).await?,
        Command::State { id } => containers::state(&mut client, id).await?,
        Command::Version => {
            let version = client.api.get_server_version(GetServerVersionRequest {}).await?.into_inner();
            println!(
                "daemon version {}.{}.{} commit: {}",
                version.major, version.minor, version.patch, version.revision
            );
        }
    }
    Ok(0)
}

/// What the original of these formats calls itself, and what this was built from.
fn version() -> String {
    format!("version {VERSION} commit: {REVISION}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_bare_id_lists() {
        let parse =
            |words: &[&str]| Arguments::try_parse_from(words).map(|arguments| format!("{:?}", arguments.command));
        for words in [&["ctr", "containers"][..], &["ctr", "containers", "x"], &["ctr", "checkpoints", "x"]] {
            assert!(parse(words).is_ok(), "{words:?}: {:?}", parse(words));
        }
        let exec = parse(&["ctr", "containers", "exec", "--id", "a", "--pid", "b", "ls", "-l", "--", "x"]).unwrap();
        assert!(exec.contains(r#"["ls", "-l", "--", "x"]"#), "{exec}");
    }
}
