//! Holds memory and tells how long it stood still: what the benchmark puts to sleep and wakes.
//!
//! usage: `hold MEBIBYTES PORT`. It fills the memory with what does not compress, looks at the clock every half millisecond,
//! and answers each connection to 127.0.0.1:PORT with a line `<longest gap since the last answer, microseconds> <checks of
//! the memory that failed>`. One file and nothing but the standard library: `scripts/bench` has rustc make a static program
//! of it.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static LONGEST_GAP_US: AtomicU64 = AtomicU64::new(0);
const PAGE_WORDS: usize = 4096 / 8;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("a number"));
    let (mebibytes, port) = (args.next().expect("how much memory"), args.next().expect("which port"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let memory: Vec<u64> = (0..mebibytes << 17).map(|_| next()).collect();
    let checks: Vec<(usize, u64)> = memory.iter().copied().enumerate().step_by(PAGE_WORDS * 61).collect();
    std::thread::spawn(|| {
        let mut last = Instant::now();
        loop {
            std::thread::sleep(Duration::from_micros(500));
            let now = Instant::now();
            LONGEST_GAP_US.fetch_max((now - last).as_micros() as u64, Ordering::Relaxed);
            last = now;
        }
    });
    let listener = TcpListener::bind(("127.0.0.1", port as u16)).expect("listen");
    for connection in listener.incoming() {
        let Ok(mut connection) = connection else { continue };
        let wrong = checks.iter().filter(|(at, word)| memory[*at] != *word).count();
        let gap = LONGEST_GAP_US.swap(0, Ordering::Relaxed);
        let _ = writeln!(connection, "{gap} {wrong}");
    }
}
