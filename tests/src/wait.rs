//! Waiting for something to become true, with a deadline. The only place that sleeps between two looks.

use std::fmt::Display;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

const USUAL_LIMIT: Duration = Duration::from_secs(15);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Waits until `look` gives a value, 15 seconds at most; panics with `what` if it never does.
#[track_caller]
pub fn eventually<T>(what: impl Display, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(USUAL_LIMIT, what, look)
}

/// Waits until `look` gives a value, `limit` at most; panics with `what` if it never does.
#[track_caller]
pub fn eventually_within<T>(limit: Duration, what: impl Display, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "within {limit:?} it never happened that {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Waits until `see` gives something that `is` as wanted; panics with `what` and the last thing seen if it never does.
#[track_caller]
pub fn eventually_seen(what: impl Display, mut see: impl FnMut() -> String, is: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + USUAL_LIMIT;
    loop {
        let seen = see();
        if is(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "within {USUAL_LIMIT:?} it never happened that {what}; last seen:\n{seen}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// A TCP port of the loopback address that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port of the loopback address");
    listener.local_addr().expect("the address of a bound socket").port()
}
