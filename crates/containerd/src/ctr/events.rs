//! `events`: what happens, a line each, as it happens.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use containerd_api::types::EventsRequest;
use prost_types::Timestamp;

use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::table;

/// The first second that Go knows, which stands for "no time": live events only.
const GO_ZERO_SECONDS: i64 = -62_135_596_800;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Get events from a specific time stamp in RFC3339Nano format
    #[arg(short, long, default_value = "", hide_default_value = true)]
    timestamp: String,
}

pub(crate) async fn run(client: &mut Client, arguments: Arguments) -> Result<()> {
    let timestamp = if arguments.timestamp.is_empty() {
        Timestamp { seconds: GO_ZERO_SECONDS, nanos: 0 }
    } else {
        let from = DateTime::parse_from_rfc3339(&arguments.timestamp)
            .map_err(|error| Failure::new(format!("parsing time {:?}: {error}", arguments.timestamp)))?;
        Timestamp { seconds: from.timestamp(), nanos: from.timestamp_subsec_nanos().try_into().unwrap_or(0) }
    };
    let request = EventsRequest { timestamp: Some(timestamp), ..EventsRequest::default() };
    print_line(["TIME", "TYPE", "ID", "PID", "STATUS"].map(String::from));
    let mut events = client.api.events(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        let time = rfc3339_nano(event.timestamp.unwrap_or_default());
        print_line([time, event.r#type, event.id, event.pid, event.status.to_string()]);
    }
    Err(Failure::new("EOF"))
}

fn print_line(cells: [String; 5]) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Nobody left to read it: the next line will tell by its signal.
    let _ = out.write_all(table::lay_out(&[cells.to_vec()], 31, 1).as_bytes()).and_then(|()| out.flush());
}

/// The time in UTC with as many decimals as it needs, as Go's `RFC3339Nano`.
fn rfc3339_nano(time: Timestamp) -> String {
    let nanos = u32::try_from(time.nanos).unwrap_or(0);
    let time = DateTime::<Utc>::from_timestamp(time.seconds, nanos).unwrap_or_default();
    let text = time.to_rfc3339_opts(SecondsFormat::Nanos, true);
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_decimals_they_need() {
        let at = |nanos| rfc3339_nano(Timestamp { seconds: 1_480_000_000, nanos });
        assert_eq!(at(0), "2016-11-24T15:06:40Z");
        assert_eq!(at(120_000_000), "2016-11-24T15:06:40.12Z");
        assert_eq!(at(1), "2016-11-24T15:06:40.000000001Z");
    }
}
