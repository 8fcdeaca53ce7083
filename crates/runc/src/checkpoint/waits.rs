//! Processes that CRIU cannot stop, because they wait in the kernel for a child that borrows their memory.
//!
//! `vfork` and `posix_spawn` do so for a moment, which is no reason to worry. CRIU would try for ten seconds, while
//! everything else stands still.

use std::fs;
use std::time::Duration;

use crate::state::process_stat;

/// The calls that may wait for a child: `clone`, `vfork`, `clone3`.
#[cfg(target_arch = "x86_64")]
const CALLS: [(i64, &str); 3] = [(libc::SYS_clone, "clone"), (libc::SYS_vfork, "vfork"), (libc::SYS_clone3, "clone3")];
#[cfg(not(target_arch = "x86_64"))]
const CALLS: [(i64, &str); 2] = [(libc::SYS_clone, "clone"), (libc::SYS_clone3, "clone3")];
/// For so long nothing must have moved.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// Those of these processes, with the call.
pub fn for_a_child(pids: &[i32]) -> Vec<(i32, &'static str)> {
    let mut waiting: Vec<Waiting> = pids.iter().flat_map(|pid| waiting_in(*pid)).collect();
    for _ in 1..LOOKS {
        if waiting.is_empty() {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        waiting.retain(|then| Waiting::of(then.pid, then.thread).as_ref() == Some(then));
    }
    waiting.into_iter().map(|waiting| (waiting.pid, waiting.call)).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    pid: i32,
    thread: i32,
    call: &'static str,
    /// How often it has begun to wait: another number is another wait.
    times: u64,
}

fn waiting_in(pid: i32) -> Vec<Waiting> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|entry| Waiting::of(pid, entry.file_name().to_str()?.parse().ok()?)).collect()
}

impl Waiting {
    fn of(pid: i32, thread: i32) -> Option<Self> {
        if process_stat(thread).ok()?.state != 'D' {
            return None;
        }
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")).ok()?;
        let number: i64 = text.split(' ').next()?.parse().ok()?;
        let (_, call) = CALLS.iter().find(|(call, _)| *call == number)?;
        let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?;
        let times = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some(Waiting { pid, thread, call, times: times.trim().parse().ok()? })
    }
}
