//! runc's log: one JSON object or one logfmt line per event, to `--log` or standard error.
//!
//! containerd and Docker read the JSON form to find out why a call failed; its keys (`level`, `msg`, `time`) are part of
//! the interface and must not change.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Doing, Result};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

impl Format {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
        }
    }
}

/// Where a call's log goes, for those that go on after it.
#[derive(Debug, Clone)]
pub struct Log {
    /// The file.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
}

struct RuncLayer {
    format: Format,
    debug: bool,
    out: Mutex<Out>,
}

enum Out {
    Stderr,
    File(&'static File),
}

/// Open until the program ends.
static FILE: OnceLock<File> = OnceLock::new();

/// The log's file, if it has one.
pub fn descriptor() -> Option<BorrowedFd<'static>> {
    FILE.get().map(AsFd::as_fd)
}

impl Write for Out {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Out::Stderr => io::stderr().write(buffer),
            Out::File(file) => file.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Message {
    text: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.text, " {name}={value:?}"),
        };
    }
}

impl<S: Subscriber> Layer<S> for RuncLayer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        // The libraries below log every step and every error they return; only ours are for runc's callers.
        let ours = metadata.target().starts_with("runc") || metadata.target().starts_with("criu");
        ours && (self.debug || *metadata.level() <= Level::INFO)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let Ok(mut out) = self.out.lock() else { return };
        // There is nobody to tell that the log cannot be written.
        let _ = out.write_all(line(self.format, level, &message.text).as_bytes());
    }
}

fn line(format: Format, level: &str, msg: &str) -> String {
    let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    match format {
        Format::Json => serde_json::to_string(&Line { level, msg, time }).map(|text| text + "\n").unwrap_or_default(),
        Format::Text => format!("time=\"{time}\" level={level} msg={msg:?}\n"),
    }
}

/// Starts the log. Without a file it goes to standard error.
pub fn start(file: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let out = match file {
        None => Out::Stderr,
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let file = file.doing(|| format!("open log file {}", path.display()))?;
            // A second start (in tests) leaves the first in place.
            Out::File(FILE.get_or_init(|| file))
        }
    };
    let layer = RuncLayer { format, debug, out: Mutex::new(out) };
    // A second start (in tests) leaves the first in place.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_have_runcs_keys() {
        let text = line(Format::Json, "error", "container does not exist");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], "container does not exist");
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
        assert!(text.ends_with('\n'));
    }
}
