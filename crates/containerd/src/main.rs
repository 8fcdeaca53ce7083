//! docker-containerd: parses the flags, sets up logging and a small runtime, runs the daemon.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use containerd::cli::{Cli, complaint, version_line};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static HEAP: profiles::Heap = profiles::Heap::new();

/// The owner of the table and whoever talks to it; nothing that computes.
const WORKERS: usize = 2;
const STACK_BYTES: usize = 512 * 1024;
/// Threads for files; they come and go.
const MAX_FILE_THREADS: usize = 16;
const FILE_THREAD_IDLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            // A printed page is the best that can be done here.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            println!("Incorrect Usage.\n\n{}", Cli::command().render_help());
            eprintln!("{}", containerd::log_line("fatal", &complaint(&error), &[]));
            return ExitCode::FAILURE;
        }
    };
    if cli.version {
        println!("{}", version_line());
        return ExitCode::SUCCESS;
    }
    let (level, complaint) = cli.level();
    // Every frame of the HTTP/2 library is of no interest, even to somebody who debugs.
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("containerd", level)
        .with_target("docker_containerd", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(containerd::LogLine);
    tracing_subscriber::registry().with(lines).with(targets).init();
    if let Some(complaint) = complaint {
        eprintln!("{complaint}");
    }
    // Takes variables out of the environment, so it has to come before any thread.
    let activated = listeners::Activated::from_env();
    containerd::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_FILE_THREADS)
        .thread_keep_alive(FILE_THREAD_IDLE)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(containerd::run(cli, activated));
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", containerd::log_line("fatal", &whole(&error), &[]));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each said once.
fn whole(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
