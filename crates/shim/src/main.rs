//! docker-containerd-shim: stays with one container, from before its first process to after its last.
//!
//! `docker-containerd-shim <id> <bundle> <runtime>`, in the working directory `<state-dir>/<id>`, with the runtime's
//! extra arguments as a JSON array of strings in the environment variable `SHIM_RUNTIME_ARGS`. docker-containerd
//! starts it with `/dev/null` as its stdio; it makes a session of its own, and does not put itself in the background.
//!
//! Readiness: if descriptor 3 is the write end of a pipe, one byte is written to it when `shim.sock` listens in the
//! working directory; it is closed either way. An end of file without a byte: the shim failed, and said why in
//! `shim-log.json`. From there on `shim::protocol` is all there is to say to it. Every signal but SIGKILL and SIGSTOP
//! is ignored. The status is 0 when the container was looked after to its end, 1 otherwise.
//!
//! It must never write to its stdout or stderr once it is at work, nor outlive what it looks after.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use shim::protocol::{READY_FD, RUNTIME_ARGS_ENV, SOCKET_NAME};
use shim::{Error, Log, Setup, Shim};

fn main() -> ExitCode {
    // First of all: descriptor 3 would be anybody's once something was opened.
    let ready = shim::adopt_pipe(READY_FD);
    // Nobody's Ctrl-C and nobody's terminal. Fails when we lead a process group, so that somebody has seen to it already.
    let _ = rustix::process::setsid();
    let log = Log::new(PathBuf::from("shim-log.json"));
    let served = setup(log.clone()).and_then(Shim::new).and_then(|mut shim| {
        if let Some(ready) = ready {
            // Nobody there to read it: nobody to tell.
            let _ = rustix::io::write(&ready, b"1");
        }
        let served = shim.run();
        let _ = std::fs::remove_file(SOCKET_NAME);
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error(&error.to_string());
            eprintln!("docker-containerd-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setup(log: Log) -> Result<Setup, Error> {
    let usage = || Error::Usage("usage: docker-containerd-shim <id> <bundle> <runtime>".into());
    let mut args = std::env::args_os().skip(1);
    let mut next = || args.next().filter(|argument| !argument.is_empty()).ok_or_else(usage);
    let (id, bundle, runtime) = (text(next()?)?, PathBuf::from(next()?), text(next()?)?);
    if args.next().is_some() {
        return Err(usage());
    }
    let runtime_args = match std::env::var(RUNTIME_ARGS_ENV) {
        Ok(json) if !json.is_empty() => serde_json::from_str(&json)
            .map_err(|error| Error::Usage(format!("{RUNTIME_ARGS_ENV} is not a JSON array of strings: {error}")))?,
        _ => Vec::new(),
    };
    let dir = std::env::current_dir().map_err(|error| Error::Usage(format!("no working directory: {error}")))?;
    let bundle = dir.join(bundle);
    Ok(Setup { id, bundle, runtime, runtime_args, dir, log })
}

fn text(argument: OsString) -> Result<String, Error> {
    argument.into_string().map_err(|argument| Error::Usage(format!("{argument:?} is not UTF-8")))
}
