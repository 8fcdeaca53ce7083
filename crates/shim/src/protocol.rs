//! The private protocol between docker-containerd and the shim of one container.
//!
//! The shim listens on a `SOCK_SEQPACKET` socket, `<state-dir>/<id>/shim.sock`; one JSON message a packet, at most
//! [`MAX_MESSAGE`] bytes. A request carries a number that its answer repeats; answers may come in any order, because
//! a checkpoint does not hold up a resize. Exits are pushed to every open connection *after* they were written to the
//! process's `exitStatus` file (temporary name, rename): a docker-containerd that was not there reads the file instead.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// No message is longer, in either direction.
pub const MAX_MESSAGE: usize = 1 << 20;

/// docker-containerd to shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Repeated in the answer.
    pub seq: u64,
    /// What to do.
    #[serde(flatten)]
    pub call: Call,
}

/// What docker-containerd may ask of a shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Run `runtime create` for the container's init process (or `runtime restore` when `restore` is given).
    /// Answered with [`Reply::Pid`] when the pid file is written.
    Create {
        /// Where its output goes and its input comes from.
        stdio: Stdio,
        /// Pass `--no-pivot`.
        no_pivot: bool,
        /// Restore instead of create.
        restore: Option<Restore>,
    },
    /// Run `runtime start`.
    Start,
    /// Run `runtime exec` with `<process dir>/process.json`. Answered with [`Reply::Pid`].
    Exec {
        /// The client's name for the process; its directory is `<state-dir>/<id>/<process>`.
        process: String,
        /// Where its output goes and its input comes from.
        stdio: Stdio,
    },
    /// Set the window size of a process that has a terminal; ignored for one that has none.
    Resize {
        /// `init` or an exec's name.
        process: String,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Close the process's standard input once what was written to it has been read.
    CloseStdin {
        /// `init` or an exec's name.
        process: String,
    },
    /// Send a signal to the one process, which the shim as its parent can do without a race against pid reuse.
    /// A refusal is a [`Failure`] of [`Origin::Shim`] with the words `no such process` or `invalid argument`.
    Signal {
        /// `init` or an exec's name.
        process: String,
        /// The number, real-time signals included.
        signal: i32,
    },
    /// Run `runtime checkpoint` with these arguments (the container's id is appended by the shim).
    Checkpoint {
        /// Everything after the word `checkpoint` and before the id.
        args: Vec<String>,
    },
    /// What the shim knows of its processes: [`Reply::Processes`].
    State,
}

/// The stdio of one process, by path; an empty path means `/dev/null`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stdio {
    /// FIFO (or file) to read.
    pub stdin: PathBuf,
    /// FIFO (or file) to write.
    pub stdout: PathBuf,
    /// FIFO (or file) to write; unused with a terminal.
    pub stderr: PathBuf,
    /// Give the process a terminal.
    pub terminal: bool,
    /// Owner of the pipes or the terminal: the host id of the container's root.
    pub uid: u32,
    /// Group of the same.
    pub gid: u32,
}

/// How to restore.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restore {
    /// Directory with the CRIU images.
    pub image_path: PathBuf,
    /// Where CRIU writes its log.
    pub work_path: PathBuf,
    /// Further arguments, such as `--tcp-established`.
    pub args: Vec<String>,
}

/// Shim to docker-containerd.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// The answer to the request with the same number.
    Answer {
        /// The request's number.
        seq: u64,
        /// What came of it.
        result: Result<Reply, Failure>,
    },
    /// A process ended, its output is drained and its `exitStatus` written. For `init` this is sent after
    /// `runtime delete`; the shim ends after it was sent.
    Exit(Exit),
}

/// One process's end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exit {
    /// `init` or an exec's name.
    pub process: String,
    /// Exit code, or 128 + signal.
    pub status: u8,
    /// Nanoseconds since the epoch when it was reaped.
    pub timestamp_ns: u64,
}

/// A successful answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The process's pid on the host.
    Pid {
        /// The pid.
        pid: i32,
    },
    /// What the runtime printed on its standard output.
    Output {
        /// The text.
        text: String,
    },
    /// The shim's processes.
    Processes {
        /// Each with its pid and, when it has ended, its exit.
        list: Vec<ProcessState>,
    },
}

/// One process as the shim knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessState {
    /// `init` or an exec's name.
    pub process: String,
    /// Host pid.
    pub pid: i32,
    /// Set when it has ended.
    pub exit: Option<Exit>,
}

/// Why a call failed; the words are what the client of docker-containerd is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Where it failed.
    pub origin: Origin,
    /// The first error of the runtime's log, or the system's error.
    pub message: String,
}

/// Who could not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The shim itself (`shim error: …`).
    Shim,
    /// The runtime (`oci runtime error: …`).
    Runtime,
    /// The runtime ended with a status and some output that is not a log (`exit status N: "…"`).
    ExitStatus,
}
