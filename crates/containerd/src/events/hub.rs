//! The hub: gives events their time, remembers them, and hands them to whoever listens.
//!
//! Publishing never waits for a subscriber. One that is too slow for its queue is cut off and *told* that it lost
//! events; it can come back and resume from the last one it saw. The replay is not pushed through the queue, so it may
//! be of any length.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::{Event, EventKind, Journal};

/// How many events may wait for one subscriber.
const QUEUE: usize = 2048;

/// The subscriber was too slow: events after the last one it was given were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// The one place where events are made.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    past: VecDeque<Arc<Event>>,
    /// Zero keeps everything.
    retain: usize,
    since_cut: usize,
    last: DateTime<Utc>,
    subscribers: Vec<Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    id: String,
    queue: mpsc::Sender<Arc<Event>>,
}

impl Hub {
    /// Opens the journal at `path`. `retain` is the number of events that are always kept; 0 keeps all.
    ///
    /// # Errors
    /// When the journal can be neither read nor made.
    pub fn open(path: &Path, retain: usize) -> io::Result<Hub> {
        let (mut journal, events) = Journal::open(path)?;
        let mut past: VecDeque<_> = events.into_iter().map(Arc::new).collect();
        if retain > 0 && past.len() > 2 * retain {
            past.drain(..past.len() - retain);
            journal.replace(past.iter().map(AsRef::as_ref))?;
        }
        let last = past.iter().map(|e| e.timestamp).max().unwrap_or(DateTime::UNIX_EPOCH);
        let inner = Inner { journal, past, retain, since_cut: 0, last, subscribers: Vec::new() };
        Ok(Hub { inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A time after every event so far and before every event to come.
    pub fn now(&self) -> DateTime<Utc> {
        self.lock().tick()
    }

    /// Records that something happened and tells everyone.
    pub fn publish(&self, kind: EventKind, id: &str, pid: &str, status: u32) {
        self.publish_end(kind, id, pid, status, String::new());
    }

    /// The same of an end that has a reason outside of the container.
    pub fn publish_end(&self, kind: EventKind, id: &str, pid: &str, status: u32, reason: String) {
        let mut inner = self.lock();
        let timestamp = inner.tick();
        let event = Arc::new(Event { id: id.to_owned(), kind, timestamp, pid: pid.to_owned(), status, reason });
        inner.remember(&event);
        inner.subscribers.retain(|subscriber| subscriber.offer(&event));
    }

    /// Whether an event of this kind about this process was published after `since`.
    pub fn happened_since(&self, since: DateTime<Utc>, kind: &EventKind, id: &str, pid: &str) -> bool {
        let inner = self.lock();
        inner.past.iter().rev().any(|e| e.timestamp > since && e.kind == *kind && e.id == id && e.pid == pid)
    }

    /// Everything after `from` (nothing past, if there is none), and then, unless `stored_only`, what happens next.
    /// An empty `id` is every container.
    pub fn subscribe(&self, from: Option<DateTime<Utc>>, stored_only: bool, id: &str) -> Subscription {
        let mut inner = self.lock();
        let replay = match from {
            None => VecDeque::new(),
            Some(from) => {
                let wanted = |e: &&Arc<Event>| e.timestamp > from && (id.is_empty() || e.id == id);
                inner.past.iter().filter(wanted).cloned().collect()
            }
        };
        if stored_only {
            return Subscription { replay, live: None };
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        inner.subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        inner.subscribers.push(Subscriber { id: id.to_owned(), queue: sender });
        Subscription { replay, live: Some(receiver) }
    }

    /// How many subscribers there are, the journal being one.
    pub fn subscribers(&self) -> i64 {
        1 + self.lock().subscribers.iter().filter(|s| !s.queue.is_closed()).count() as i64
    }
}

impl Inner {
    fn tick(&mut self) -> DateTime<Utc> {
        // A journal may come from a machine with any clock: at the end of time it stands still.
        let next = self.last.checked_add_signed(TimeDelta::nanoseconds(1)).unwrap_or(self.last);
        self.last = Utc::now().max(next);
        self.last
    }

    fn remember(&mut self, event: &Arc<Event>) {
        self.since_cut += 1;
        if self.retain > 0 && self.since_cut > self.retain {
            self.since_cut = 0;
            let excess = self.past.len().saturating_sub(self.retain - 1);
            self.past.drain(..excess);
            if let Err(error) = self.journal.replace(self.past.iter().map(AsRef::as_ref)) {
                error!(%error, "cannot cut the event journal");
            }
        }
        self.past.push_back(Arc::clone(event));
        if let Err(error) = self.journal.append(event) {
            error!(%error, "cannot write to the event journal; this event will be forgotten at a restart");
        }
    }
}

impl Subscriber {
    /// False when it is gone or too slow.
    fn offer(&self, event: &Arc<Event>) -> bool {
        if !self.id.is_empty() && self.id != event.id {
            return !self.queue.is_closed();
        }
        match self.queue.try_send(Arc::clone(event)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn!("an event subscriber is too slow and loses events");
                false
            }
        }
    }
}

/// What one subscriber is given.
#[derive(Debug)]
pub struct Subscription {
    replay: VecDeque<Arc<Event>>,
    live: Option<mpsc::Receiver<Arc<Event>>>,
}

impl Subscription {
    /// The next event; `None` after the last of stored ones.
    ///
    /// # Errors
    /// [`Lost`] when the hub gave up on this subscriber.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Lost>> {
        if let Some(event) = self.replay.pop_front() {
            return Some(Ok(event));
        }
        let live = self.live.as_mut()?;
        match live.recv().await {
            Some(event) => Some(Ok(event)),
            None => {
                self.live = None;
                Some(Err(Lost))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(retain: usize) -> (tempfile::TempDir, Hub) {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::open(&dir.path().join("events.log"), retain).unwrap();
        (dir, hub)
    }

    async fn ids(mut subscription: Subscription) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(Ok(event)) = subscription.next().await {
            ids.push(event.id.clone());
        }
        ids
    }

    #[test]
    fn the_length_moves_between_once_and_twice_the_retained_count() {
        let (_dir, hub) = hub(3);
        let lengths: Vec<_> = (0..12)
            .map(|n| {
                hub.publish(EventKind::Oom, &n.to_string(), "", 0);
                hub.lock().past.len()
            })
            .collect();
        assert_eq!(lengths, [1, 2, 3, 3, 4, 5, 6, 3, 4, 5, 6, 3]);
    }

    #[tokio::test]
    async fn replay_is_strictly_after_and_survives_any_number_of_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        for n in 0..5 {
            Hub::open(&path, 500).unwrap().publish(EventKind::Oom, &n.to_string(), "", 0);
        }
        let hub = Hub::open(&path, 500).unwrap();
        let third = hub.lock().past[2].timestamp;
        assert_eq!(ids(hub.subscribe(Some(third), true, "")).await, ["3", "4"]);
        assert_eq!(ids(hub.subscribe(Some(DateTime::UNIX_EPOCH), true, "1")).await, ["1"]);
        assert_eq!(ids(hub.subscribe(None, true, "")).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_replay_larger_than_the_queue_arrives_whole() {
        let (_dir, hub) = hub(0);
        let count = QUEUE + 500;
        for n in 0..count {
            hub.publish(EventKind::Oom, &n.to_string(), "", 0);
        }
        let mut subscription = hub.subscribe(Some(DateTime::UNIX_EPOCH), false, "");
        hub.publish(EventKind::Oom, "last", "", 0);
        for n in 0..count {
            assert_eq!(subscription.next().await.unwrap().unwrap().id, n.to_string());
        }
        assert_eq!(subscription.next().await.unwrap().unwrap().id, "last");
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_others_are_not_held_up() {
        let (_dir, hub) = hub(10);
        let mut slow = hub.subscribe(None, false, "");
        for n in 0..QUEUE + 5 {
            hub.publish(EventKind::Oom, &n.to_string(), "", 0);
        }
        for n in 0..QUEUE {
            assert_eq!(slow.next().await.unwrap().unwrap().id, n.to_string());
        }
        assert_eq!(slow.next().await, Some(Err(Lost)));
        assert_eq!(slow.next().await, None);
        assert_eq!(hub.subscribers(), 1);
    }

    #[test]
    fn a_journal_from_the_end_of_time_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let timestamp = DateTime::<Utc>::MAX_UTC;
        let (pid, reason) = (String::new(), String::new());
        let event = Event { id: "a".into(), kind: EventKind::Oom, timestamp, pid, status: 0, reason };
        journal.append(&event).unwrap();
        let hub = Hub::open(&path, 0).unwrap();
        assert_eq!(hub.lock().past.len(), 1);
        hub.publish(EventKind::Oom, "b", "", 0);
        assert_eq!(hub.lock().past.len(), 2);
    }

    #[test]
    fn times_never_repeat() {
        let (_dir, hub) = hub(0);
        for _ in 0..1000 {
            hub.publish(EventKind::Oom, "a", "", 0);
        }
        let inner = hub.lock();
        assert!(inner.past.iter().zip(inner.past.iter().skip(1)).all(|(a, b)| a.timestamp < b.timestamp));
    }
}
