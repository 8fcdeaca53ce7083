//! The measurements of docker-containerd, under the names they have always had.

mod format;
mod timer;

use std::fs;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

pub use timer::{Snapshot, Timer};

/// All measurements.
#[derive(Debug, Default)]
pub struct Metrics {
    /// `container-create-time`
    pub container_create: Timer,
    /// `container-delete-time`
    pub container_delete: Timer,
    /// `container-start-time`
    pub container_start: Timer,
    /// `container-stats-time`
    pub container_stats: Timer,
    /// `exec-process-time`
    pub exec_process: Timer,
    /// `exit-process-time`
    pub exit_process: Timer,
    /// `containers`
    pub containers: AtomicI64,
    /// `event-subscribers`
    pub event_subscribers: AtomicI64,
    /// `tasks`: how many there ever were.
    pub tasks: AtomicU64,
    /// `epoll-fds`: the descriptors of containers that are watched.
    pub epoll_fds: AtomicI64,
}

/// One measurement by name.
#[derive(Debug)]
pub enum Value {
    /// A number that only this program knows.
    Counter(i64),
    /// A number read from the system.
    Gauge(i64),
    /// A distribution of durations.
    Timer(Snapshot),
}

impl Metrics {
    /// Everything, by name, sorted.
    pub fn all(&self) -> Vec<(&'static str, Value)> {
        let count = |value: &AtomicI64| Value::Counter(value.load(Ordering::Relaxed));
        let (threads, memory_bytes) = own_status();
        vec![
            ("container-create-time", Value::Timer(self.container_create.snapshot())),
            ("container-delete-time", Value::Timer(self.container_delete.snapshot())),
            ("container-start-time", Value::Timer(self.container_start.snapshot())),
            ("container-stats-time", Value::Timer(self.container_stats.snapshot())),
            ("containers", count(&self.containers)),
            ("epoll-fds", count(&self.epoll_fds)),
            ("event-subscribers", count(&self.event_subscribers)),
            ("exec-process-time", Value::Timer(self.exec_process.snapshot())),
            ("exit-process-time", Value::Timer(self.exit_process.snapshot())),
            ("fds", Value::Gauge(fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as i64))),
            ("goroutines", Value::Gauge(threads)),
            ("memory-used", Value::Gauge(memory_bytes)),
            ("tasks", Value::Counter(self.tasks.load(Ordering::Relaxed) as i64)),
        ]
    }

    /// Measures until the guard is dropped.
    pub fn time(timer: &Timer) -> Measuring<'_> {
        Measuring { timer, since: Instant::now() }
    }
}

/// See [`Metrics::time`].
#[derive(Debug)]
pub struct Measuring<'a> {
    timer: &'a Timer,
    since: Instant,
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        self.timer.update(self.since.elapsed());
    }
}

/// Threads (in the place of goroutines) and virtual memory in bytes.
fn own_status() -> (i64, i64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> i64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    (field("Threads:"), field("VmSize:").saturating_mul(1024))
}
