//! Being attached to a process: raw terminal, window size, end of input, and the wait for its exit.

use std::io::IsTerminal;
use std::time::Duration;

use containerd_api::types::{Event, EventsRequest, UpdateProcessRequest};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use prost_types::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tonic::Streaming;

use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::stdio::{Fifos, Outputs, copy_input};

/// 128 + SIGHUP: the server has gone.
const SERVER_GONE: u8 = 129;

/// How often a broken event stream is taken up again before the server counts as gone.
const RESUBSCRIBE_TRIES: u32 = 30;

/// Our terminal in raw mode; as it was when this is dropped.
#[derive(Debug)]
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn set() -> Result<Self> {
        let stdin = std::io::stdin();
        let failed = |errno: nix::Error| Failure::new(errno.desc().to_lowercase());
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// An attachment that is ready before its process is made.
#[derive(Debug)]
pub(crate) struct Attachment {
    fifos: Fifos,
    outputs: Outputs,
    terminal: Option<RawTerminal>,
}

impl Attachment {
    /// Opens both sides; with `tty`, our terminal becomes raw.
    pub(crate) fn prepare(fifos: Fifos, tty: bool) -> Result<Self> {
        let terminal = if tty { Some(RawTerminal::set()?) } else { None };
        Ok(Self { outputs: Outputs::copy(&fifos)?, fifos, terminal })
    }

    /// The process runs: serves it until it ends, and gives its status. `began` is a time before it was asked for:
    /// events are replayed from there, so that none is missed, and a server that answers a subscription only with
    /// the first event has one.
    pub(crate) async fn serve(self, client: &mut Client, began: Timestamp, id: &str, pid: &str) -> Result<u8> {
        let request = EventsRequest { timestamp: Some(began), ..EventsRequest::default() };
        let mut events = client.api.events(request).await?.into_inner();
        let mut input_ended = copy_input(&self.fifos)?;
        let mut resized = signal(SignalKind::window_change())?;
        if self.terminal.is_some() {
            resize(client, id, pid).await;
        }
        let mut input_open = true;
        let mut last = Some(began);
        let status = loop {
            tokio::select! {
                event = events.message() => match event {
                    Ok(Some(event)) => {
                        last = event.timestamp.or(last);
                        if event.id == id && event.r#type == "exit" && event.pid == pid {
                            break u8::try_from(event.status).unwrap_or(255);
                        }
                    }
                    Err(status) if status.message().contains("is closing") => break SERVER_GONE,
                    Ok(None) | Err(_) => match resubscribe(client, last).await {
                        Some(again) => events = again,
                        None => break SERVER_GONE,
                    },
                },
                _ = &mut input_ended, if input_open => {
                    input_open = false;
                    let request = UpdateProcessRequest {
                        id: id.into(), pid: pid.into(), close_stdin: true, ..UpdateProcessRequest::default()
                    };
                    // It may have ended meanwhile, which the events tell.
                    let _ = client.api.update_process(request).await;
                }
                Some(()) = resized.recv(), if self.terminal.is_some() => resize(client, id, pid).await,
            }
        };
        self.outputs.finish();
        drop(self.terminal);
        Ok(status)
    }
}

/// The time, for [`Attachment::serve`].
pub(crate) fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// Takes the events up where they broke off.
async fn resubscribe(client: &mut Client, last: Option<Timestamp>) -> Option<Streaming<Event>> {
    for _ in 0..RESUBSCRIBE_TRIES {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let request = EventsRequest { timestamp: last, ..EventsRequest::default() };
        if let Ok(events) = client.api.events(request).await {
            return Some(events.into_inner());
        }
    }
    None
}

/// Tells the process how large our terminal is.
async fn resize(client: &mut Client, id: &str, pid: &str) {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return;
    }
    let Ok(size) = rustix::termios::tcgetwinsize(&stdin) else { return };
    let request = UpdateProcessRequest {
        id: id.into(),
        pid: pid.into(),
        width: size.ws_col.into(),
        height: size.ws_row.into(),
        ..UpdateProcessRequest::default()
    };
    if let Err(status) = client.api.update_process(request).await {
        eprint!("{}\r\n", status.message());
    }
}
