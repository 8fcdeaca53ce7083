//! `containers`: what there is and what can be done to it. Starting and exec have files of their own.

use clap::{Args, Subcommand};
use containerd_api::types::{
    EventsRequest, SignalRequest, StateRequest, StatsRequest, UpdateContainerRequest, UpdateResource,
};

use crate::client::Client;
use crate::failure::{Failure, Result, required};
use crate::{exec, json, start, table, views};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this container
    id: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Exec another process in an existing container
    Exec(exec::Arguments),
    /// Send a signal to a container or its processes
    Kill {
        /// Pid of the process to signal within the container
        #[arg(short, long, default_value = "init")]
        pid: String,
        /// Signal to send to the container
        #[arg(short, long, default_value_t = 15)]
        signal: u32,
        /// The container
        id: Option<String>,
    },
    /// List all running containers
    List {
        /// Only this container
        id: Option<String>,
    },
    /// Pause a container
    Pause {
        /// The container
        id: Option<String>,
    },
    /// Resume a paused container
    Resume {
        /// The container
        id: Option<String>,
    },
    /// Start a container
    Start(start::Arguments),
    /// Get a raw dump of the containerd state
    State {
        /// Only this container
        id: Option<String>,
    },
    /// Get stats for running container
    Stats {
        /// The container
        id: Option<String>,
    },
    /// Print container events
    Watch {
        /// Only this container
        id: Option<String>,
    },
    /// Update a containers resources
    Update(Limits),
}

/// Numbers are written as in Go: decimal, `0x…` or `0…`.
#[derive(Debug, Args)]
struct Limits {
    #[arg(long, default_value = "", hide_default_value = true)]
    memory_limit: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    memory_reservation: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    memory_swap: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    cpu_quota: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    cpu_period: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    cpu_shares: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    kernel_limit: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    kernel_tcp_limit: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    blkio_weight: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    cpuset_cpus: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    cpuset_mems: String,
    #[arg(long, default_value = "", hide_default_value = true)]
    pids_limit: String,
    /// The container
    id: Option<String>,
}

pub(crate) async fn run(client: &mut Client, arguments: Arguments) -> Result<u8> {
    match arguments.command {
        None => list(client, arguments.id).await?,
        Some(Command::List { id }) => list(client, id).await?,
        Some(Command::Exec(arguments)) => return exec::run(client, arguments).await,
        Some(Command::Start(arguments)) => return start::run(client, arguments).await,
        Some(Command::Kill { pid, signal, id }) => {
            let id = required(id, "container id")?;
            client.api.signal(SignalRequest { id, pid, signal }).await?;
        }
        Some(Command::Pause { id }) => set_status(client, id, "paused").await?,
        Some(Command::Resume { id }) => set_status(client, id, "running").await?,
        Some(Command::State { id }) => state(client, id).await?,
        Some(Command::Stats { id }) => {
            let request = StatsRequest { id: id.unwrap_or_default() };
            print!("{}", views::stats(&client.api.stats(request).await?.into_inner()));
        }
        Some(Command::Watch { id }) => watch(client, id.unwrap_or_default()).await?,
        Some(Command::Update(limits)) => update(client, limits).await?,
    }
    Ok(0)
}

/// Everything there is, as JSON.
pub(crate) async fn state(client: &mut Client, id: Option<String>) -> Result<()> {
    let request = StateRequest { id: id.unwrap_or_default() };
    print!("{}", views::state(&client.api.state(request).await?.into_inner()));
    Ok(())
}

async fn list(client: &mut Client, id: Option<String>) -> Result<()> {
    let mut state = client.api.state(StateRequest { id: id.unwrap_or_default() }).await?.into_inner();
    state.containers.sort_by(|one, other| one.id.cmp(&other.id));
    let mut rows = vec![["ID", "PATH", "STATUS", "PROCESSES"].map(String::from).to_vec()];
    for container in state.containers {
        let processes: Vec<&str> = container.processes.iter().map(|process| process.pid.as_str()).collect();
        let processes = processes.join(",");
        rows.push(vec![container.id, container.bundle_path, container.status, processes]);
    }
    print!("{}", table::lay_out(&rows, 20, 3));
    Ok(())
}

async fn set_status(client: &mut Client, id: Option<String>, status: &str) -> Result<()> {
    let id = required(id, "container id")?;
    let request = UpdateContainerRequest { id, pid: "init".into(), status: status.into(), resources: None };
    client.api.update_container(request).await?;
    Ok(())
}

async fn watch(client: &mut Client, id: String) -> Result<()> {
    if !id.is_empty() {
        client.api.state(StateRequest { id: id.clone() }).await?;
    }
    let mut events = client.api.events(EventsRequest::default()).await?.into_inner();
    while let Some(event) = events.message().await? {
        if id.is_empty() || event.id == id {
            let time = event.timestamp.unwrap_or_default();
            println!(
                "&types.Event{{Type:{}, Id:{}, Status:{:#x}, Pid:{}, Timestamp:&timestamp.Timestamp{{Seconds:{}, Nanos:{}}}}}",
                json::quote(&event.r#type),
                json::quote(&event.id),
                event.status,
                json::quote(&event.pid),
                time.seconds,
                time.nanos
            );
        }
    }
    Err(Failure::new("EOF"))
}

async fn update(client: &mut Client, limits: Limits) -> Result<()> {
    let resources = UpdateResource {
        memory_limit: number(&limits.memory_limit)?,
        memory_reservation: number(&limits.memory_reservation)?,
        memory_swap: number(&limits.memory_swap)?,
        blkio_weight: number(&limits.blkio_weight)?,
        cpu_period: number(&limits.cpu_period)?,
        cpu_quota: number(&limits.cpu_quota)?,
        cpu_shares: number(&limits.cpu_shares)?,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        kernel_memory_limit: number(&limits.kernel_limit)?,
        kernel_tcp_memory_limit: number(&limits.kernel_tcp_limit)?,
        pids_limit: number(&limits.pids_limit)?,
        ..UpdateResource::default()
    };
    let request = UpdateContainerRequest {
        id: limits.id.unwrap_or_default(),
        resources: Some(resources),
        ..UpdateContainerRequest::default()
    };
    client.api.update_container(request).await?;
    Ok(())
}

/// A number in Go's base-0 syntax; empty is 0.
fn number(text: &str) -> Result<u64> {
    if text.is_empty() {
        return Ok(0);
    }
    let parsed = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        u64::from_str_radix(&text[1..], 8)
    } else {
        text.parse()
    };
    parsed.map_err(|error| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Failure::new(format!("strconv.ParseUint: parsing {}: {why}", json::quote(text)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_go() {
        assert_eq!(number("").unwrap(), 0);
        assert_eq!(number("10").unwrap(), 10);
        assert_eq!(number("0x10").unwrap(), 16);
        assert_eq!(number("010").unwrap(), 8);
        assert_eq!(number("0").unwrap(), 0);
        assert_eq!(number("1m").unwrap_err().to_string(), "strconv.ParseUint: parsing \"1m\": invalid syntax");
    }
}
