//! One file per group of commands; this one chooses, and turns an error into runc's output and exit code.

mod checkpoint;
mod events;
mod exec;
mod features;
mod lifecycle;
mod list;
mod spec;
pub(crate) mod update;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::{Error, Result};
use crate::logging::{self, Log};

/// The whole program.
pub fn main() -> ExitCode {
    // The call that is made again through another mount should not have done anything yet. A failure is told by who
    // needs it.
    if std::env::args_os().any(|word| word == "create" || word == "run" || word == "exec") {
        let _ = crate::seal::seal();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            // Help and version are no failures.
            let _ = err.print();
            return ExitCode::from(u8::from(err.use_stderr()));
        }
    };
    if let Err(err) = logging::start(cli.log.as_deref(), cli.log_format, cli.debug) {
        eprintln!("{err}");
        return ExitCode::FAILURE;
    }
    match run(&cli) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(err) => {
            let text = in_runcs_words(&cli.command, &err);
            tracing::error!("{text}");
            if cli.log.is_some() {
                // As runc does: whoever reads standard error sees it as well.
                eprintln!("{text}");
            }
            ExitCode::from(if matches!(cli.command, Command::Exec(_)) { 255 } else { 1 })
        }
    }
}

fn in_runcs_words(command: &Command, err: &Error) -> String {
    match (command, err) {
        (Command::Create(_), Error::Init(_)) => format!("runc create failed: {err}"),
        (Command::Run(_), Error::Init(_)) => format!("runc run failed: {err}"),
        (Command::Exec(_), _) => format!("exec failed: {err}"),
        _ => err.to_string(),
    }
}

fn run(cli: &Cli) -> Result<i32> {
    if cli.systemd_cgroup {
        return Err(Error::NotImplemented("--systemd-cgroup".into()));
    }
    let root = std::path::absolute(&cli.root).map_err(|err| Error::Invalid(err.to_string()))?;
    match &cli.command {
        Command::Create(arguments) => lifecycle::create(&root, arguments),
        Command::Start(arguments) => lifecycle::start(&root, &arguments.id),
        Command::Run(arguments) => lifecycle::run(&root, arguments),
        Command::Exec(arguments) => exec::exec(&root, arguments),
        Command::Kill(arguments) => lifecycle::kill(&root, arguments),
        Command::Delete(arguments) => lifecycle::delete(&root, arguments),
        Command::State(arguments) => list::state(&root, &arguments.id),
        Command::List(arguments) => list::list(&root, arguments),
        Command::Ps(arguments) => list::ps(&root, arguments),
        Command::Pause(arguments) => lifecycle::pause(&root, &arguments.id),
        Command::Resume(arguments) => lifecycle::resume(&root, &arguments.id),
        Command::Update(arguments) => update::update(&root, arguments),
        Command::Events(arguments) => events::events(&root, arguments),
        Command::Spec(arguments) => spec::spec(arguments),
        Command::Features => features::features(),
        Command::Checkpoint(arguments) => checkpoint::checkpoint(&root, cli.criu.as_deref(), arguments),
        Command::Restore(arguments) => {
            let log = cli.log.as_deref().map(std::path::absolute).transpose();
            let log = log.map_err(|err| Error::Invalid(err.to_string()))?;
            let log = log.map(|path| Log { path, format: cli.log_format });
            checkpoint::restore(&root, cli.criu.as_deref(), log, arguments)
        }
        Command::FeedPages(arguments) => checkpoint::feed_pages(&root, arguments),
    }
}
