//! One file per group of commands; this one chooses, and turns an error into runc's output and exit code.

mod checkpoint;
mod events;
mod exec;
mod features;
mod lifecycle;
mod list;
mod spec;
pub(crate) mod update;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

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
    let cli = match Cli::try_parse_from(with_two_dashes(std::env::args_os().collect())) {
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

/// runc takes its long options with one dash as well, and containerd has one that it writes so (`-no-subreaper`). Where the
/// words of somebody else's program may follow nothing is changed.
fn with_two_dashes(mut words: Vec<OsString>) -> Vec<OsString> {
    // Nearly always there is nothing to do, and to build the options twice would be felt.
    let is_candidate = |word: &OsString| {
        let bytes = word.as_encoded_bytes();
        bytes.len() > 2 && bytes[0] == b'-' && bytes[1] != b'-'
    };
    if !words.iter().any(is_candidate) {
        return words;
    }
    let mut known = Cli::command();
    known.build();
    let Some(command) = words.iter().find_map(|word| known.find_subcommand(word)) else { return words };
    if matches!(command.get_name(), "exec" | "ps") {
        return words;
    }
    let long: Vec<&str> =
        command.get_arguments().filter_map(clap::Arg::get_long).filter(|name| name.len() > 1).collect();
    for word in &mut words {
        let name = word.to_str().and_then(|text| text.strip_prefix('-')).filter(|name| long.contains(name));
        if let Some(name) = name {
            *word = format!("--{name}").into();
        }
    }
    words
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_enough_for_a_long_option_of_ours() {
        let of = |text: &str| {
            let words = with_two_dashes(text.split(' ').map(OsString::from).collect());
            words.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(
            of("runc --root /r restore -no-subreaper -d -b /b x"),
            "runc --root /r restore --no-subreaper -d -b /b x"
        );
        for same in ["runc exec x ls -tty", "runc ps x -detach", "runc kill x -9", "runc restore -unknown x", "runc -x"]
        {
            assert_eq!(of(same), same);
        }
    }
}
