//! The measurements of docker-containerd, under the names they have always had.

mod format;
mod timer;

use std::fs;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub use timer::{Snapshot, Timer};

use crate::events::Hub;

/// All measurements.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Who knows the number of `event-subscribers`.
    hub: OnceLock<Arc<Hub>>,
    /// `container-create-time`
    pub container_create: Timer,
    /// `checkpoint-time`: ours, like the two below.
    pub checkpoint: Timer,
    /// `checkpoint-frozen-time`: how long containers stood still, where the runtime measures it.
    pub checkpoint_frozen: Timer,
    /// `restore-time`
    pub restore: Timer,
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
    /// `tasks`: how many there ever were.
    pub tasks: AtomicU64,
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
    /// Measurements that ask this hub for its subscribers.
    pub fn new(hub: Arc<Hub>) -> Metrics {
        Metrics { hub: OnceLock::from(hub), ..Metrics::default() }
    }

    /// Everything, by name, sorted.
    pub fn all(&self) -> Vec<(&'static str, Value)> {
        let count = |value: &AtomicI64| Value::Counter(value.load(Ordering::Relaxed));
        let (threads, memory_bytes) = own_status();
        vec![
            ("checkpoint-frozen-time", Value::Timer(self.checkpoint_frozen.snapshot())),
            ("checkpoint-time", Value::Timer(self.checkpoint.snapshot())),
            ("container-create-time", Value::Timer(self.container_create.snapshot())),
            ("container-delete-time", Value::Timer(self.container_delete.snapshot())),
            ("container-start-time", Value::Timer(self.container_start.snapshot())),
            ("container-stats-time", Value::Timer(self.container_stats.snapshot())),
            ("containers", count(&self.containers)),
            ("epoll-fds", Value::Counter(watched_descriptors())),
            ("event-subscribers", Value::Counter(self.hub.get().map_or(0, |hub| hub.subscribers()))),
            ("exec-process-time", Value::Timer(self.exec_process.snapshot())),
            ("exit-process-time", Value::Timer(self.exit_process.snapshot())),
            ("fds", Value::Gauge(fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as i64))),
            ("goroutines", Value::Gauge(threads)),
            ("memory-used", Value::Gauge(memory_bytes)),
            ("restore-time", Value::Timer(self.restore.snapshot())),
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

/// How many descriptors the reactor watches.
fn watched_descriptors() -> i64 {
    let reactors =
        fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]")
        });
    let watched = |entry: fs::DirEntry| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", entry.file_name().to_string_lossy()));
        info.unwrap_or_default().lines().filter(|line| line.starts_with("tfd:")).count() as i64
    };
    // Several descriptors may stand for the same reactor.
    reactors.map(watched).max().unwrap_or(0)
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
