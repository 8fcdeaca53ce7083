//! The command line: every flag is declared here, once.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use tracing_subscriber::filter::LevelFilter;

use crate::time::parse_go_duration;

/// The version every release of the original from v0.2.6 on has called itself.
pub const VERSION: &str = "0.2.3";
/// The commit this was built from, if the build was told.
pub const REVISION: &str = match option_env!("DORMOUSE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// High performance container daemon.
#[derive(Debug, Parser)]
#[command(
    name = "containerd",
    version,
    about,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_override_self = true
)]
pub struct Cli {
    /// Enable debug output in the logs, and metrics
    #[arg(long)]
    pub debug: bool,
    /// Set the logging level [debug, info, warn, error, fatal, panic]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub log_level: String,
    /// Runtime state directory
    #[arg(long, default_value = "/run/containerd")]
    pub state_dir: PathBuf,
    /// Interval for flushing metrics to the store; 0 for none
    #[arg(long, default_value = "5m", value_parser = parse_go_duration)]
    pub metrics_interval: Duration,
    /// proto://address on which the GRPC API will listen
    #[arg(long, short = 'l', default_value = "unix:///run/containerd/containerd.sock")]
    pub listen: String,
    /// Name or path of the OCI compliant runtime to use when executing containers
    #[arg(long, short = 'r', default_value = "runc")]
    pub runtime: String,
    /// Specify additional runtime args
    #[arg(long, allow_hyphen_values = true)]
    pub runtime_args: Vec<String>,
    /// Name or path of shim
    #[arg(long, default_value = "containerd-shim")]
    pub shim: String,
    /// Http address to listen for pprof events
    #[arg(long, default_value = "", hide_default_value = true)]
    pub pprof_address: String,
    /// Timeout duration for waiting on a container to start before it is killed
    #[arg(long, default_value = "30s", value_parser = parse_go_duration)]
    pub start_timeout: Duration,
    /// How many past events to keep in the event log
    #[arg(long, default_value_t = 500, allow_negative_numbers = true)]
    pub retain_count: i64,
    /// Address of graphite server
    #[arg(long, default_value = "", hide_default_value = true)]
    pub graphite_address: String,
    /// Print the version
    #[arg(long, short = 'v')]
    pub version: bool,
}

impl Cli {
    /// What is logged, and what to say about a level that is none.
    pub fn level(&self) -> (LevelFilter, Option<String>) {
        if self.debug {
            return (LevelFilter::DEBUG, None);
        }
        match self.log_level.to_ascii_lowercase().as_str() {
            "" | "info" => (LevelFilter::INFO, None),
            "debug" => (LevelFilter::DEBUG, None),
            "warn" | "warning" => (LevelFilter::WARN, None),
            "error" | "fatal" | "panic" => (LevelFilter::ERROR, None),
            other => (LevelFilter::INFO, Some(format!("not a valid logrus Level: {other:?}"))),
        }
    }

    /// The number of events to keep; 0 for all.
    pub fn retained_events(&self) -> usize {
        usize::try_from(self.retain_count).unwrap_or(0)
    }
}

/// Why a command line is refused, as Go's flag package says it.
pub fn complaint(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    // `--start-timeout <START_TIMEOUT>` → `start-timeout`.
    let argument = text(ContextKind::InvalidArg).split([' ', '=']).next().unwrap_or_default();
    let name = argument.trim_start_matches('-');
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with('-') => format!("flag provided but not defined: -{name}"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => match text(ContextKind::InvalidValue) {
            "" => format!("flag needs an argument: -{name}"),
            value => format!("invalid value {value:?} for flag -{name}: parse error"),
        },
        _ => format!("{}: {argument:?}", error.kind()),
    }
}

/// What `--version` prints.
pub fn version_line() -> String {
    format!("containerd version {VERSION} commit: {REVISION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"docker-containerd").chain(args))
    }

    #[test]
    fn the_command_line_of_dockerd() {
        let cli = parse(&[
            "-l",
            "unix:///var/run/docker/libcontainerd/docker-containerd.sock",
            "--metrics-interval=0",
            "--start-timeout",
            "2m",
            "--state-dir",
            "/var/run/docker/libcontainerd/containerd",
            "--shim",
            "docker-containerd-shim",
            "--runtime",
            "docker-runc",
            "--debug",
            "--runtime-args",
            "--systemd-cgroup=true",
        ])
        .unwrap();
        assert_eq!(cli.metrics_interval, Duration::ZERO);
        assert_eq!(cli.start_timeout, Duration::from_secs(120));
        assert_eq!(cli.runtime_args, ["--systemd-cgroup=true"]);
        assert_eq!((cli.shim.as_str(), cli.runtime.as_str()), ("docker-containerd-shim", "docker-runc"));
        assert_eq!(cli.level().0, LevelFilter::DEBUG);
    }

    #[test]
    fn complaints_are_gos() {
        let complaint = |args: &[&str]| complaint(&parse(args).unwrap_err());
        assert_eq!(complaint(&["--no-such"]), "flag provided but not defined: -no-such");
        assert_eq!(complaint(&["--no-such=5"]), "flag provided but not defined: -no-such");
        assert_eq!(complaint(&["-x"]), "flag provided but not defined: -x");
        for args in [&["--start-timeout", "soon"][..], &["--start-timeout=soon"]] {
            assert_eq!(complaint(args), "invalid value \"soon\" for flag -start-timeout: parse error");
        }
        assert_eq!(complaint(&["--retain-count", "x"]), "invalid value \"x\" for flag -retain-count: parse error");
        assert_eq!(complaint(&["--state-dir"]), "flag needs an argument: -state-dir");
        assert!(complaint(&["word"]).contains("\"word\""));
    }

    #[test]
    fn defaults_and_odd_values() {
        let cli = parse(&["--retain-count", "-1", "--runtime-args", "a", "--runtime-args", "b"]).unwrap();
        assert_eq!(cli.retained_events(), 0);
        assert_eq!(cli.runtime_args, ["a", "b"]);
        assert_eq!(cli.start_timeout, Duration::from_secs(30));
        assert!(parse(&["--start-timeout", "5"]).is_err());
        assert!(parse(&["--nope"]).is_err());
        assert!(parse(&["--log-level", "loud"]).unwrap().level().1.is_some());
    }
}
