//! The private protocol between docker-containerd and the shim of one container.
//!
//! The shim listens on a `SOCK_SEQPACKET` socket, `<state-dir>/<id>/shim.sock`; one JSON message a packet, at most
//! [`MAX_MESSAGE`] bytes. A request carries a number that its answer repeats; answers may come in any order, because
//! a checkpoint does not hold up a resize. Exits are pushed to every open connection *after* they were written to the
//! process's `exitStatus` file (temporary name, rename): a docker-containerd that was not there reads the file instead.

//!
//! How a shim is started: `docker-containerd-shim <id> <bundle> <runtime>` with the working directory
//! `<state-dir>/<id>`, stdio on `/dev/null`, [`RUNTIME_ARGS_ENV`] and, optionally, the write
//! end of a pipe as [`READY_FD`]: one byte arrives there when the socket listens, an end of file without a byte means
//! that the shim failed (its reason is in `shim-log.json`). A container's directory is often too long a path for a
//! socket address, so connect with [`connect`].
//!
//! How a shim ends: by itself, after [`Message::Exit`] of `init` was sent; after a [`Call::Create`] that failed was
//! answered; or when nobody has asked it for anything within half a minute of its start. A reader who has then not
//! taken all output is left to a copy of the shim, which has no socket and ends within a minute.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

/// No message is longer, in either direction.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The socket's name in the container's directory.
pub const SOCKET_NAME: &str = "shim.sock";

/// The environment variable with the runtime's extra arguments, a JSON array of strings.
pub const RUNTIME_ARGS_ENV: &str = "SHIM_RUNTIME_ARGS";

/// Where the shim says that it listens, if that descriptor is a pipe when the shim starts.
pub const READY_FD: RawFd = 3;

/// Connects to the shim whose working directory is `container_dir`; the socket is close-on-exec and non-blocking.
///
/// # Errors
/// `NotFound` when there is no socket, `ConnectionRefused` when its shim is gone.
pub fn connect(container_dir: &Path) -> io::Result<OwnedFd> {
    let dir =
        rustix::fs::openat(CWD, container_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// A packet that is not a message.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
    /// Not JSON, or not one of ours.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A name or path that would leave its place.
    #[error("{what} {value:?} is not allowed")]
    Refused {
        /// The field.
        what: &'static str,
        /// What was in it.
        value: String,
    },
}

/// Reads a request as it came from the socket, and refuses what the shim must never act on: a process name that is
/// not a plain file name, a path that is not absolute.
///
/// # Errors
/// Says what is wrong with the packet.
pub fn parse_request(packet: &[u8]) -> Result<Request, ParseError> {
    if packet.len() > MAX_MESSAGE {
        return Err(ParseError::TooLong(packet.len()));
    }
    let request: Request = serde_json::from_slice(packet)?;
    match &request.call {
        Call::Create { stdio, restore, .. } => {
            stdio.check()?;
            if let Some(restore) = restore {
                check_path("image path", &restore.image_path)?;
                check_path("work path", &restore.work_path)?;
            }
        }
        Call::Exec { process, stdio } => {
            check_process(process)?;
            stdio.check()?;
        }
        Call::Resize { process, .. } | Call::CloseStdin { process } | Call::Signal { process, .. } => {
            check_process(process)?;
        }
        Call::Start | Call::Checkpoint { .. } | Call::State => {}
    }
    Ok(request)
}

/// Reads a message as it came from a shim.
///
/// # Errors
/// Says what is wrong with the packet.
pub fn parse_message(packet: &[u8]) -> Result<Message, ParseError> {
    if packet.len() > MAX_MESSAGE {
        return Err(ParseError::TooLong(packet.len()));
    }
    Ok(serde_json::from_slice(packet)?)
}

fn check_process(name: &str) -> Result<(), ParseError> {
    if name.is_empty() || name.len() > 255 || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(ParseError::Refused { what: "process name", value: name.chars().take(64).collect() });
    }
    Ok(())
}

fn check_path(what: &'static str, path: &Path) -> Result<(), ParseError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(ParseError::Refused { what, value: path.to_string_lossy().chars().take(64).collect() })
}

impl Stdio {
    fn check(&self) -> Result<(), ParseError> {
        for (what, path) in [("stdin", &self.stdin), ("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !path.as_os_str().is_empty() {
                check_path(what, path)?;
            }
        }
        Ok(())
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, ParseError> {
        parse_request(text.as_bytes())
    }

    #[test]
    fn a_request_round_trips() {
        let request = Request {
            seq: 7,
            call: Call::Exec { process: "e1".into(), stdio: Stdio { terminal: true, ..Stdio::default() } },
        };
        let text = serde_json::to_string(&request).unwrap();
        let again = parse(&text).unwrap();
        assert_eq!(again.seq, 7);
        assert!(matches!(again.call, Call::Exec { process, stdio } if process == "e1" && stdio.terminal));
    }

    #[test]
    fn an_answer_round_trips() {
        let answer =
            Message::Answer { seq: 1, result: Err(Failure { origin: Origin::Runtime, message: "no\n".into() }) };
        let bytes = serde_json::to_vec(&answer).unwrap();
        assert!(matches!(parse_message(&bytes), Ok(Message::Answer { seq: 1, result: Err(f) }) if f.message == "no\n"));
    }

    #[test]
    fn names_and_paths_that_leave_their_place_are_refused() {
        for name in ["", ".", "..", "a/b", "../x", "a\\u0000b"] {
            let text = format!(r#"{{"seq":1,"call":"close_stdin","process":"{name}"}}"#);
            assert!(matches!(parse(&text), Err(ParseError::Refused { .. })), "{name}");
        }
        let text = r#"{"seq":1,"call":"exec","process":"a",
            "stdio":{"stdin":"x","stdout":"","stderr":"","terminal":false,"uid":0,"gid":0}}"#;
        assert!(matches!(parse(text), Err(ParseError::Refused { what: "stdin", .. })));
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "{", "[]", "null", r#"{"seq":1}"#, r#"{"seq":-1,"call":"start"}"#, r#"{"seq":1,"call":"x"}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
