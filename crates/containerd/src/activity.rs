//! What is going on: every operation is listed while it runs, for the dump on SIGUSR1.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

/// The list of running operations.
#[derive(Debug, Default, Clone)]
pub struct Activity {
    inner: Arc<Mutex<Inner>>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    running: BTreeMap<u64, (String, Instant)>,
}

/// An operation is listed until this is dropped.
#[derive(Debug)]
pub struct Busy {
    number: u64,
    activity: Activity,
}

impl Activity {
    /// Lists an operation.
    pub fn begin(&self, what: String) -> Busy {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        let number = inner.next;
        inner.running.insert(number, (what, Instant::now()));
        self.count.send_replace(inner.running.len());
        Busy { number, activity: self.clone() }
    }

    /// Waits until nothing runs.
    pub async fn idle(&self) {
        // The sender is ours, so this cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Every operation with its age, and every thread with where it is in the kernel.
    pub fn dump(&self) -> String {
        let mut out = String::from("=== BEGIN goroutine stack dump ===\n");
        {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            for (number, (what, since)) in &inner.running {
                let _ = writeln!(out, "task {number} [{:.3} s]: {what}", since.elapsed().as_secs_f64());
            }
        }
        for entry in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let state = read("status").lines().find_map(|l| l.strip_prefix("State:\t").map(str::to_owned));
            let _ = writeln!(
                out,
                "thread {} ({}): {}, in {}, system call {}",
                entry.file_name().to_string_lossy(),
                read("comm").trim(),
                state.unwrap_or_default(),
                read("wchan").trim(),
                read("syscall").trim(),
            );
        }
        out.push_str("=== END goroutine stack dump ===");
        out
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut inner = self.activity.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.running.remove(&self.number);
        self.activity.count.send_replace(inner.running.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_listed_while_they_run() {
        let activity = Activity::default();
        let busy = activity.begin("start abc".into());
        let dump = activity.dump();
        assert!(dump.contains("start abc"), "{dump}");
        assert!(dump.contains("thread "), "{dump}");
        drop(busy);
        assert!(!activity.dump().contains("start abc"));
    }
}
