//! The command line, which is runc's.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::logging::Format;

/// An OCI runtime whose containers can sleep and wake.
#[derive(Debug, Parser)]
// Podman says some flags twice.
#[command(name = "docker-runc", version, disable_help_subcommand = true, args_override_self = true)]
pub struct Cli {
    /// Directory for the state of containers.
    #[arg(long, global = true, default_value = "/run/docker-runc")]
    pub root: PathBuf,
    /// File for the log; standard error without it.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Format of the log.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: Format,
    /// Log more.
    #[arg(long)]
    pub debug: bool,
    /// Use systemd for cgroups (not built: refused).
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// The criu program.
    #[arg(long)]
    pub criu: Option<PathBuf>,
    /// Taken for compatibility, ignored.
    #[arg(long, hide = true)]
    pub rootless: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// runc's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container; its program waits for `start`.
    Create(Create),
    /// Let the program of a created container run.
    Start(Id),
    /// Create and start a container.
    Run(Run),
    /// Run a further process in a container.
    Exec(Box<Exec>),
    /// Send a signal.
    Kill(Kill),
    /// Remove a container.
    Delete(Delete),
    /// Print the state of a container.
    State(Id),
    /// List containers.
    List(List),
    /// List the processes of a container.
    Ps(Ps),
    /// Stop all processes of a container where they are.
    Pause(Id),
    /// Let them go on.
    Resume(Id),
    /// Change limits.
    Update(Box<Update>),
    /// Print counters and out-of-memory events.
    Events(Events),
    /// Write a default config.json.
    Spec(SpecArgs),
    /// Print what this runtime can do.
    Features,
    /// Put a container to sleep.
    Checkpoint(Box<Checkpoint>),
    /// Wake a container.
    Restore(Box<Restore>),
    /// Give a woken container the memory that it was woken without (started by `restore`).
    #[command(hide = true)]
    FeedPages(FeedPages),
}

/// A container's id.
#[derive(Debug, Args)]
pub struct Id {
    /// The container.
    pub id: String,
}

/// What `create`, `run` and `restore` have in common.
#[derive(Debug, Args)]
pub struct Bundle {
    /// Directory of the bundle.
    #[arg(short, long)]
    pub bundle: Option<PathBuf>,
    /// Socket that takes the terminal's master.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File for the pid.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivoting.
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many descriptors after standard error to pass on.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
}

/// `create`
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    /// The bundle and its surroundings.
    pub bundle: Bundle,
    /// The container.
    pub id: String,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    /// The bundle and its surroundings.
    pub bundle: Bundle,
    /// Return when it runs.
    #[arg(short, long)]
    pub detach: bool,
    /// Do not become the reaper of its orphans.
    #[arg(long)]
    pub no_subreaper: bool,
    /// Do not remove the container when it ends.
    #[arg(long)]
    pub keep: bool,
    /// The container.
    pub id: String,
}

/// `exec`
#[derive(Debug, Args)]
pub struct Exec {
    /// Socket that takes the terminal's master.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Working directory.
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// Environment variable, `NAME=value`.
    #[arg(short, long)]
    pub env: Vec<String>,
    /// Give the process a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// User, `uid[:gid]`.
    #[arg(short, long)]
    pub user: Option<String>,
    /// Further groups.
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// File with the process.
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Return when it runs.
    #[arg(short, long)]
    pub detach: bool,
    /// File for the pid.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// SELinux label (not built: refused).
    #[arg(long)]
    pub process_label: Option<String>,
    /// AppArmor profile.
    #[arg(long)]
    pub apparmor: Option<String>,
    /// Allow no new privileges.
    #[arg(long)]
    pub no_new_privs: bool,
    /// Further capability.
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// Group below the container's, `[controller[,controller]:]path`.
    #[arg(long)]
    pub cgroup: Vec<String>,
    /// How many descriptors after standard error to pass on.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Start it in a paused container.
    #[arg(long)]
    pub ignore_paused: bool,
    /// Do not become the reaper of its orphans.
    #[arg(long)]
    pub no_subreaper: bool,
    /// The container.
    pub id: String,
    /// Program and arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// `kill`
#[derive(Debug, Args)]
pub struct Kill {
    /// All processes, not only the first.
    #[arg(short, long)]
    pub all: bool,
    /// The container.
    pub id: String,
    /// Name or number.
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete`
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill it first if it runs; no error if it is not there.
    #[arg(short, long)]
    pub force: bool,
    /// The container.
    pub id: String,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// `table` or `json`.
    #[arg(short, long, default_value = "table")]
    pub format: String,
    /// Only ids.
    #[arg(short, long)]
    pub quiet: bool,
}

/// `ps`
#[derive(Debug, Args)]
pub struct Ps {
    /// `table` or `json`.
    #[arg(short, long, default_value = "table")]
    pub format: String,
    /// The container.
    pub id: String,
    /// Options for ps(1).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// `update`
#[derive(Debug, Args)]
pub struct Update {
    /// JSON file with the limits; `-` is standard input.
    #[arg(short, long)]
    pub resources: Option<String>,
    /// Block weight, 10 to 1000.
    #[arg(long)]
    pub blkio_weight: Option<u64>,
    /// CFS period, µs.
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CFS quota, µs.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU shares.
    #[arg(long, alias = "cpu-share")]
    pub cpu_shares: Option<u64>,
    /// Real-time period, µs.
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Real-time quota, µs.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs.
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory limit, bytes.
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory reservation, bytes.
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap, bytes.
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Number of tasks.
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container.
    pub id: String,
}

/// `events`
#[derive(Debug, Args)]
pub struct Events {
    /// Print the counters once and end.
    #[arg(long)]
    pub stats: bool,
    /// How often to print.
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// The container.
    pub id: String,
}

/// `spec`
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Directory of the bundle.
    #[arg(short, long)]
    pub bundle: Option<PathBuf>,
}

/// Options of CRIU that `checkpoint` and `restore` share.
#[derive(Debug, Args)]
pub struct CriuFlags {
    /// Directory for the images.
    #[arg(long)]
    pub image_path: Option<PathBuf>,
    /// Directory for log and statistics.
    #[arg(long)]
    pub work_path: Option<PathBuf>,
    /// Keep established TCP connections.
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow unix sockets whose peer is outside.
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a session leader that is outside.
    #[arg(long)]
    pub shell_job: bool,
    /// Keep file locks.
    #[arg(long)]
    pub file_locks: bool,
    /// Link files that were deleted while open.
    #[arg(long)]
    pub link_remap: bool,
    /// soft, full, strict or ignore.
    #[arg(long)]
    pub manage_cgroups_mode: Option<String>,
    /// Leave a namespace of this kind empty.
    #[arg(long)]
    pub empty_ns: Vec<String>,
    /// Drop pages that are in a parent image.
    #[arg(long)]
    pub auto_dedup: bool,
    /// Restore: let it run before its memory is there, and let that follow.
    #[arg(long)]
    pub lazy_pages: bool,
}

/// `checkpoint`
#[derive(Debug, Args)]
pub struct Checkpoint {
    #[command(flatten)]
    /// CRIU's options.
    pub criu: CriuFlags,
    /// Images of an earlier pre-dump, relative to the image path.
    #[arg(long)]
    pub parent_path: Option<PathBuf>,
    /// Let it run on.
    #[arg(long)]
    pub leave_running: bool,
    /// Only memory, for a later checkpoint.
    #[arg(long)]
    pub pre_dump: bool,
    /// Descriptor that is told when the page server is ready.
    #[arg(long)]
    pub status_fd: Option<i32>,
    /// `address:port` of a page server.
    #[arg(long)]
    pub page_server: Option<String>,
    /// Leave out connections that are being made.
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Look at the container and choose the options.
    #[arg(long)]
    pub auto: bool,
    /// Pack the tree at a path while the container is frozen: `name=path`.
    #[arg(long)]
    pub capture: Vec<String>,
    /// Only look at the container, and print what would stand in the way, as JSON.
    #[arg(long)]
    pub preflight: bool,
    /// The container.
    pub id: String,
}

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    /// CRIU's options.
    pub criu: CriuFlags,
    #[command(flatten)]
    /// The bundle and its surroundings.
    pub bundle: Bundle,
    /// Return when it runs.
    #[arg(short, long)]
    pub detach: bool,
    /// Do not become the reaper of its orphans.
    #[arg(long)]
    pub no_subreaper: bool,
    /// Profile of the security module.
    #[arg(long)]
    pub lsm_profile: Option<String>,
    /// Mount context of the security module.
    #[arg(long)]
    pub lsm_mount_context: Option<String>,
    /// Use the options stored with the images (this is done anyway where there are some).
    #[arg(long)]
    pub auto: bool,
    /// Close established TCP connections instead of keeping them.
    #[arg(long)]
    pub tcp_close: bool,
    /// The container.
    pub id: String,
}

/// `feed-pages`
#[derive(Debug, Args)]
pub struct FeedPages {
    /// Directory of the images.
    #[arg(long)]
    pub image_path: PathBuf,
    /// The container.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_may_be_said_twice() {
        let words = "docker-runc checkpoint --leave-running --work-path /a --leave-running --work-path /b x";
        let Command::Checkpoint(checkpoint) = Cli::try_parse_from(words.split(' ')).unwrap().command else { panic!() };
        assert!(checkpoint.leave_running);
        assert_eq!(checkpoint.criu.work_path, Some("/b".into()));
        let words = "docker-runc exec -e A=1 -e B=2 x env";
        let Command::Exec(exec) = Cli::try_parse_from(words.split(' ')).unwrap().command else { panic!() };
        assert_eq!(exec.env, ["A=1", "B=2"]);
    }
}
