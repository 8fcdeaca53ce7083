//! Log lines as the original wrote them: `time="…" level=info msg="…" key=value`.

use std::fmt;

use chrono::{SecondsFormat, Utc};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::runtime::go_quote;

/// The format. Times have nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogLine;

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        writeln!(writer, "{}", line(level, &fields.message, &fields.rest))
    }
}

/// One line, without its end.
pub fn line(level: &str, message: &str, fields: &[(&'static str, String)]) -> String {
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
    let mut line = format!("time={} level={level} msg={}", go_quote(&time), go_quote(message));
    for (key, value) in fields {
        line.push_str(&format!(" {key}={}", value_text(value)));
    }
    line
}

/// Quoted when it holds anything but plain letters.
fn value_text(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/' | '@' | '^' | '+');
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { go_quote(value) }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            // What the log crate's bridge adds.
            name if name.starts_with("log.") => {}
            name => self.rest.push((name, text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logrus_text() {
        let line = line("info", "a \"b\"\nc", &[("id", "abc".into()), ("error", "no such file".into())]);
        assert!(line.starts_with("time=\"2"), "{line}");
        assert!(line.ends_with(" level=info msg=\"a \\\"b\\\"\\nc\" id=abc error=\"no such file\""), "{line}");
    }
}
