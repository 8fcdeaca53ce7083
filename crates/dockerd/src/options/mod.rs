//! dockerd's options: each is declared once, here, with its help; it is a flag and a key of daemon.json.
//!
//! Nothing has a default here: an option that was not given is `None` (or empty), so that a flag and the file can be told apart.
//! The defaults are in `settings`.

pub mod file;
pub mod unsupported;
pub mod values;

use std::any::TypeId;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use serde::{Deserialize, Serialize};

use values::{Pair, Pool, Runtime, Size, Ulimit};

/// What may be given on the command line only, and everything else.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "dockerd",
    about = "A self-sufficient runtime for containers.",
    disable_version_flag = true,
    override_usage = "dockerd [OPTIONS]"
)]
pub struct Cli {
    /// Daemon configuration file
    #[arg(long, value_name = "file", default_value = "/etc/docker/daemon.json")]
    pub config_file: PathBuf,
    /// Validate daemon configuration and exit
    #[arg(long, action = clap::ArgAction::SetTrue)]
    pub validate: bool,
    /// Print version information and quit
    #[arg(short = 'v', long, action = clap::ArgAction::SetTrue)]
    pub version: bool,
    /// Whether `--config-file` was given: then the file has to be there.
    #[arg(skip)]
    pub config_file_given: bool,
    /// Everything that can also be in the file.
    #[command(flatten)]
    pub options: Options,
}

/// Flags and the keys of daemon.json.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Options {
    // --- the API
    /// Daemon socket(s) to connect to
    #[arg(short = 'H', long = "host", value_name = "list")]
    pub hosts: Vec<String>,
    /// Group for the unix socket
    #[arg(short = 'G', long)]
    pub group: Option<String>,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    pub tls: Option<bool>,
    /// Use TLS and verify the remote
    #[arg(long)]
    pub tlsverify: Option<bool>,
    /// Trust certs signed only by this CA
    #[arg(long, value_name = "file")]
    pub tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file
    #[arg(long, value_name = "file")]
    pub tlscert: Option<PathBuf>,
    /// Path to TLS key file
    #[arg(long, value_name = "file")]
    pub tlskey: Option<PathBuf>,
    /// Enable experimental features (checkpoints need no such thing here)
    #[arg(long)]
    pub experimental: Option<bool>,

    // --- the daemon itself
    /// Root directory of persistent Docker state
    #[arg(short = 'g', long, alias = "graph", value_name = "dir")]
    pub data_root: Option<PathBuf>,
    /// Root directory for execution state files
    #[arg(long, value_name = "dir")]
    pub exec_root: Option<PathBuf>,
    /// Path to use for daemon PID file
    #[arg(short = 'p', long, value_name = "file")]
    pub pidfile: Option<PathBuf>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    pub debug: Option<bool>,
    /// Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")
    #[arg(short = 'l', long, value_name = "level")]
    pub log_level: Option<String>,
    /// Set the logging format ("text"|"json")
    #[arg(long, value_name = "format")]
    pub log_format: Option<String>,
    /// Full timestamps without ANSI coloring (there never is any)
    #[arg(long)]
    pub raw_logs: Option<bool>,
    /// Set key=value labels to the daemon
    #[arg(long = "label", value_name = "list")]
    pub labels: Vec<String>,
    /// Socket of a containerd that runs already, instead of starting one
    #[arg(long, value_name = "socket")]
    pub containerd: Option<String>,
    /// Set the oom_score_adj for the daemon and its containerd
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub oom_score_adjust: Option<i32>,
    /// Enable live restore of docker when containers are still running
    #[arg(long)]
    pub live_restore: Option<bool>,
    /// Set the default shutdown timeout in seconds
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub shutdown_timeout: Option<i64>,

    // --- containers
    /// Register an additional OCI compatible runtime (name=path)
    #[arg(long = "add-runtime", value_name = "runtime")]
    #[serde(with = "values::runtimes")]
    pub runtimes: Vec<Runtime>,
    /// Default OCI runtime for containers
    #[arg(long, alias = "runtime", value_name = "name")]
    pub default_runtime: Option<String>,
    /// Set parent cgroup for all containers
    #[arg(long, value_name = "cgroup")]
    pub cgroup_parent: Option<String>,
    /// Runtime execution options
    #[arg(long = "exec-opt", value_name = "list")]
    pub exec_opts: Vec<String>,
    /// Run an init in the container to forward signals and reap processes
    #[arg(long)]
    pub init: Option<bool>,
    /// Path to the docker-init binary
    #[arg(long, value_name = "file")]
    pub init_path: Option<PathBuf>,
    /// Default ulimits for containers
    #[arg(long = "default-ulimit", value_name = "ulimit")]
    #[serde(with = "values::ulimits")]
    pub default_ulimits: Vec<Ulimit>,
    /// Default shm size for containers
    #[arg(long, value_name = "bytes")]
    pub default_shm_size: Option<Size>,
    /// Default driver for container logs
    #[arg(long, value_name = "driver")]
    pub log_driver: Option<String>,
    /// Default log driver options for containers
    #[arg(long = "log-opt", value_name = "map")]
    #[serde(with = "values::pairs")]
    pub log_opts: Vec<Pair>,

    // --- images
    /// Storage driver to use (overlay2)
    #[arg(short = 's', long, value_name = "driver")]
    pub storage_driver: Option<String>,
    /// Enable insecure registry communication
    #[arg(long = "insecure-registry", value_name = "list")]
    pub insecure_registries: Vec<String>,
    /// Preferred Docker registry mirror
    #[arg(long = "registry-mirror", value_name = "list")]
    pub registry_mirrors: Vec<String>,
    /// Set the max concurrent downloads
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub max_concurrent_downloads: Option<i64>,
    /// Set the max concurrent uploads
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub max_concurrent_uploads: Option<i64>,

    // --- networks
    /// Attach containers to a network bridge
    #[arg(short = 'b', long, value_name = "name")]
    pub bridge: Option<String>,
    /// IPv4 address for the default bridge
    #[arg(long, value_name = "cidr")]
    pub bip: Option<String>,
    /// IPv4 subnet for the default bridge network
    #[arg(long, value_name = "cidr")]
    pub fixed_cidr: Option<String>,
    /// Default address pools for node specific local networks
    #[arg(long = "default-address-pool", value_name = "pool")]
    pub default_address_pools: Vec<Pool>,
    /// Set the MTU for the default "bridge" network
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub mtu: Option<i64>,
    /// Host IP for port publishing from the default bridge network
    #[arg(long, value_name = "ip")]
    pub ip: Option<IpAddr>,
    /// Enable IP forwarding in system configuration
    #[arg(long)]
    pub ip_forward: Option<bool>,
    /// Enable IP masquerading for the default bridge network
    #[arg(long)]
    pub ip_masq: Option<bool>,
    /// Enable addition of firewall rules
    #[arg(long)]
    pub iptables: Option<bool>,
    /// Enable inter-container communication for the default bridge network
    #[arg(long)]
    pub icc: Option<bool>,
    /// Serve published ports also in the daemon, for traffic that no firewall rule catches
    #[arg(long)]
    pub userland_proxy: Option<bool>,
    /// DNS server to use
    #[arg(long, value_name = "list")]
    pub dns: Vec<IpAddr>,
    /// DNS options to use
    #[arg(long = "dns-opt", value_name = "list")]
    pub dns_opts: Vec<String>,
    /// DNS search domains to use
    #[arg(long, value_name = "list")]
    pub dns_search: Vec<String>,
    /// IP address that the special 'host-gateway' string in --add-host resolves to
    #[arg(long = "host-gateway-ip", value_name = "list")]
    pub host_gateway_ips: Vec<IpAddr>,
}

/// What parsing the command line came to.
pub enum Parsed {
    /// Go on with this.
    Run(Box<Cli>),
    /// Print this and end well (`--help`).
    Print(String),
    /// Print this and fail.
    Refuse(String),
}

/// Parses a command line, the program's name first.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Parsed::Print(error.render().to_string()),
        Err(error) => return Parsed::Refuse(refusal(&error)),
    };
    match Cli::from_arg_matches(&matches) {
        Ok(mut cli) => {
            cli.config_file_given = matches.value_source("config_file") == Some(clap::parser::ValueSource::CommandLine);
            Parsed::Run(Box::new(cli))
        }
        Err(error) => Parsed::Refuse(refusal(&error)),
    }
}

/// The command, with its switches as Docker has them: `--icc`, `--icc=false`.
fn command() -> clap::Command {
    Cli::command().mut_args(|argument| {
        let is_switch = argument.get_value_parser().type_id() == TypeId::of::<bool>()
            && matches!(argument.get_action(), clap::ArgAction::Set);
        if !is_switch {
            return argument;
        }
        argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .value_name("bool")
            .value_parser(values::switch)
    })
}

fn refusal(error: &clap::Error) -> String {
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => Some(flag.as_str()),
        _ => None,
    };
    match unknown {
        Some(flag) if flag.starts_with('-') => {
            let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
            match unsupported::reason(name) {
                Some(reason) => format!("{flag}: {reason}"),
                None => format!("unknown flag: {flag}\nSee 'dockerd --help'."),
            }
        }
        Some(word) => format!("dockerd: unexpected argument \"{word}\"\nSee 'dockerd --help'."),
        None => error.render().to_string().trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Box<Cli> {
        match parse(std::iter::once("dockerd").chain(arguments.iter().copied()).map(OsString::from)) {
            Parsed::Run(cli) => cli,
            Parsed::Print(text) | Parsed::Refuse(text) => panic!("{text}"),
        }
    }

    fn refuse(argument: &str) -> String {
        match parse(["dockerd", argument].map(OsString::from)) {
            Parsed::Refuse(text) => text,
            _ => panic!("{argument} is accepted"),
        }
    }

    #[test]
    fn the_declaration_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn flags_as_docker_takes_them() {
        let cli = run(&[
            "-D",
            "--icc=false",
            "--iptables",
            "-H",
            "unix:///x",
            "-H=tcp://:1",
            "-g",
            "/data",
            "--log-opt",
            "max-size=1m",
            "--default-ulimit=nofile=10:20",
            "--default-address-pool",
            "base=10.0.0.0/8,size=24",
            "--add-runtime",
            "crun=/usr/bin/crun",
            "--default-shm-size=32m",
            "--oom-score-adjust",
            "-500",
        ]);
        let options = &cli.options;
        assert_eq!(
            (options.debug, options.icc, options.iptables, options.ip_masq),
            (Some(true), Some(false), Some(true), None)
        );
        assert_eq!(options.hosts, ["unix:///x", "tcp://:1"]);
        assert_eq!(options.data_root.as_deref(), Some(std::path::Path::new("/data")));
        assert_eq!(options.default_shm_size, Some(Size(32 << 20)));
        assert_eq!(options.default_ulimits[0], Ulimit { name: "nofile".into(), soft: 10, hard: 20 });
        assert_eq!(options.oom_score_adjust, Some(-500));
        assert!(!cli.config_file_given);
        assert_eq!(run(&["--graph", "/x", "--config-file", "/y"]).config_file, std::path::Path::new("/y"));
        assert_eq!(run(&["--tls=F"]).options.tls, Some(false));
    }

    #[test]
    fn what_is_refused_says_why() {
        assert_eq!(refuse("--nonsense"), "unknown flag: --nonsense\nSee 'dockerd --help'.");
        assert_eq!(refuse("--selinux-enabled"), "--selinux-enabled: not implemented");
        assert!(refuse("word").contains("unexpected argument \"word\""));
        assert!(refuse("--mtu=many").contains("many"));
        assert!(refuse("--default-ulimit=x").contains("invalid ulimit argument: x"));
        assert!(refuse("--dns=x").contains('x'));
    }
}
