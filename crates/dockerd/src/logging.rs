//! dockerd's own log: on stderr, one line an event, in the form that Docker's logs have.
//!
//! ```text
//! time="2006-01-02T15:04:05.999999999Z" level=info msg="API listen on unix:///var/run/docker.sock" id=3
//! ```

use std::fmt::{self, Write as _};

use anyhow::{anyhow, bail};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Changes the level while running.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<Targets, tracing_subscriber::Registry>);

impl LevelHandle {
    /// Sets the level.
    pub fn set(&self, level: LevelFilter) {
        // Fails only when the subscriber is gone, and then nobody logs.
        let _ = self.0.reload(targets(level));
    }
}

/// Docker's names. `panic` and `fatal` are `error`: what they would add, there is not.
pub fn level(name: &str) -> anyhow::Result<LevelFilter> {
    match name.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => bail!("invalid logging level: {name}"),
    }
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value`.
    Text,
    /// One object a line.
    Json,
}

impl std::str::FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => bail!("invalid log format: {name}"),
        }
    }
}

/// Installs the log for the whole process.
pub fn install(level: LevelFilter, format: Format) -> anyhow::Result<LevelHandle> {
    let (filter, handle) = reload::Layer::new(targets(level));
    let lines = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| anyhow!("failed to configure daemon logging: {error}"))?;
    Ok(LevelHandle(handle))
}

/// Ours at the level; what the protocol libraries have to say at debug is for those who debug them.
fn targets(level: LevelFilter) -> Targets {
    let quieter = level.min(LevelFilter::INFO);
    let libraries = ["h2", "hyper", "hyper_util", "tower", "tonic", "rustls", "netlink_proto", "mio", "reqwest"];
    Targets::new().with_default(level).with_targets(libraries.map(|library| (library, quieter)))
}

struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = logs::rfc3339_nano(now_ns());
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        match self.0 {
            Format::Text => {
                write!(out, "time=\"{time}\" level={level} msg={}", quoted(&fields.message))?;
                for (name, value) in &fields.others {
                    let text = match value {
                        Value::String(text) => quoted_if_needed(text),
                        other => other.to_string(),
                    };
                    write!(out, " {name}={text}")?;
                }
                writeln!(out)
            }
            Format::Json => {
                let mut object = fields.others;
                object.insert("level".to_owned(), level.into());
                object.insert("msg".to_owned(), fields.message.into());
                object.insert("time".to_owned(), time.into());
                writeln!(out, "{}", Value::Object(object))
            }
        }
    }
}

fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// An event's fields, the message apart.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.add(field, text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn quoted_if_needed(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_formats() {
        assert_eq!(level("WARN").unwrap(), LevelFilter::WARN);
        assert_eq!(level("loud").unwrap_err().to_string(), "invalid logging level: loud");
        assert_eq!("xml".parse::<Format>().unwrap_err().to_string(), "invalid log format: xml");
        assert_eq!(quoted_if_needed("a b"), "\"a b\"");
        assert_eq!(quoted_if_needed("/run/x-1.sock"), "/run/x-1.sock");
    }
}
