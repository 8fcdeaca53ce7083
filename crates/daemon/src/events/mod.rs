//! What happened, told to whoever asks: the last 256 events are remembered, new ones are broadcast.

mod filter;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use api::backend::{BoxStream, EventsOptions};
use api::types::{EventActor, EventMessage, Map};
use futures::StreamExt;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::error::Result;

/// How many events are remembered.
const REMEMBERED: usize = 256;

/// The daemon's events.
pub struct Events {
    past: Mutex<VecDeque<EventMessage>>,
    live: broadcast::Sender<EventMessage>,
}

impl Default for Events {
    fn default() -> Self {
        Self { past: Mutex::default(), live: broadcast::Sender::new(1024) }
    }
}

impl Events {
    /// Tells that `action` happened to the `kind` of thing called `id`.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: Map<String>) {
        let nanos = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let mut message = EventMessage {
            r#type: kind.to_owned(),
            action: action.to_owned(),
            actor: EventActor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: nanos / 1_000_000_000,
            time_nano: nanos,
            ..EventMessage::default()
        };
        // Old clients read these three.
        if kind == "container" || kind == "image" {
            message.status = action.to_owned();
            message.id = id.to_owned();
            message.from = match kind {
                "container" => message.actor.attributes.get("image").cloned().unwrap_or_default(),
                _ => String::new(),
            };
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(message.clone());
        // Sent under the lock: a subscriber sees each event either in the past or live, and in one order.
        let _ = self.live.send(message);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    /// Replays and follows.
    pub fn follow(&self, options: EventsOptions) -> Result<BoxStream<EventMessage>> {
        let (replay, live) = {
            let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            let replay: Vec<_> = match (options.since_ns, options.until_ns) {
                (None, None) => Vec::new(),
                _ => past.iter().cloned().collect(),
            };
            (replay, self.live.subscribe())
        };
        let since = options.since_ns.unwrap_or(i128::MIN);
        let until = options.until_ns;
        let filters = options.filters;
        let matches = move |event: &EventMessage| {
            let at = i128::from(event.time_nano);
            at >= since && until.is_none_or(|until| at <= until) && filter::matches(&filters, event)
        };
        let now = i128::from(chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default());
        let replay = futures::stream::iter(replay.into_iter().filter(matches.clone()).map(Ok).collect::<Vec<_>>());
        if until.is_some_and(|until| until <= now) {
            return Ok(Box::pin(replay));
        }
        let live = BroadcastStream::new(live).filter_map(move |item| {
            let kept = match item {
                Ok(event) => matches(&event).then_some(Ok(event)),
                Err(BroadcastStreamRecvError::Lagged(missed)) => Some(Err(api::Error::new(
                    errors::Kind::Unavailable,
                    format!("this client reads too slowly: {missed} events were lost"),
                ))),
            };
            futures::future::ready(kept)
        });
        let all = replay.chain(live);
        match until {
            None => Ok(Box::pin(all)),
            Some(until) => {
                let left = u64::try_from(until - now).unwrap_or(u64::MAX);
                let end = tokio::time::sleep(std::time::Duration::from_nanos(left));
                Ok(Box::pin(all.take_until(end)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_past_then_the_present() {
        let events = Events::default();
        for n in 0..300 {
            events.emit("container", "start", &format!("c{n}"), Map::empty());
        }
        let mut all = events.follow(EventsOptions { since_ns: Some(0), ..Default::default() }).unwrap();
        for n in 44..300 {
            assert_eq!(all.next().await.unwrap().unwrap().id, format!("c{n}"));
        }
        events.emit("volume", "create", "v", Map::empty());
        assert_eq!(all.next().await.unwrap().unwrap().actor.id, "v");
    }

    #[tokio::test]
    async fn an_end_in_the_past_ends_after_the_replay() {
        let events = Events::default();
        events.emit("container", "die", "c", Map::empty());
        let now = i128::from(chrono::Utc::now().timestamp_nanos_opt().unwrap());
        let options = EventsOptions { since_ns: Some(0), until_ns: Some(now), ..Default::default() };
        assert_eq!(events.follow(options).unwrap().count().await, 1);
    }
}
