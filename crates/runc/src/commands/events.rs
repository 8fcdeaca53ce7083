//! `events`: counters in runc's form, once or at an interval; and when the container runs out of memory.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libcgroups::stats::{BlkioDeviceStat, MemoryData, Stats};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cgroup::HierarchyKind;
use crate::cli;
use crate::error::{Doing, Error, Result};
use crate::state::{Container, Status};

/// `events`
pub fn events(root: &Path, arguments: &cli::Events) -> Result<i32> {
    let interval = parse_interval(&arguments.interval)?;
    let container = Container::open(root, &arguments.id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::Conflict(format!("container with id {} is not running", arguments.id)));
    }
    if arguments.stats {
        print(&container)?;
        return Ok(0);
    }
    let pid = Pid::from_raw(container.record.pid).ok_or(Error::NotRunning)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(|| "open the process".into())?;
    let memory = OutOfMemory::watch(&container)?;
    let pause = Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: i64::from(interval.subsec_nanos()) };
    loop {
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        watched.extend(memory.as_ref().map(|memory| PollFd::new(memory.descriptor(), PollFlags::IN)));
        match poll(&mut watched, Some(&pause)) {
            Ok(0) => print(&container)?,
            Ok(_) => {
                let ended = !watched[0].revents().is_empty();
                if let Some(memory) = &memory
                    && watched[1].revents().contains(PollFlags::IN)
                    && memory.happened()?
                {
                    print_event("oom", &container, None)?;
                }
                if ended {
                    return Ok(0);
                }
            }
            Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(Error::Io { what: "poll".into(), source: errno.into() }),
        }
    }
}

/// What runc prints, in its order.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

fn print_event(kind: &str, container: &Container, data: Option<Value>) -> Result<()> {
    let event = Event { kind, id: &container.record.id, data };
    println!("{}", serde_json::to_string(&event).doing(|| "encode".into())?);
    Ok(())
}

fn print(container: &Container) -> Result<()> {
    let stats = container.cgroups()?.stats()?;
    print_event("stats", container, Some(data(&stats)))
}

/// Hears when the container has run out of memory.
enum OutOfMemory {
    /// v1: an event descriptor, registered with the group, which is told of its removal as well.
    V1 { events: OwnedFd, control: PathBuf },
    /// v2: the file that counts, watched.
    V2 { watch: OwnedFd, file: PathBuf, seen: Cell<u64> },
}

impl OutOfMemory {
    /// `None` where there is no memory controller.
    fn watch(container: &Container) -> Result<Option<Self>> {
        let cgroups = container.cgroups()?;
        for hierarchy in cgroups.hierarchies() {
            let dir = cgroups.dir(hierarchy);
            match &hierarchy.kind {
                HierarchyKind::V1(list) if list.iter().any(|name| name == "memory") => {
                    let control = dir.join("cgroup.event_control");
                    let doing = || format!("watch {}", dir.display());
                    let events = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).doing(doing)?;
                    let oom = File::open(dir.join("memory.oom_control")).doing(doing)?;
                    std::fs::write(&control, format!("{} {}", events.as_raw_fd(), oom.as_raw_fd())).doing(doing)?;
                    return Ok(Some(OutOfMemory::V1 { events, control }));
                }
                HierarchyKind::V2 if dir.join("memory.events").exists() => {
                    let file = dir.join("memory.events");
                    let doing = || format!("watch {}", file.display());
                    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).doing(doing)?;
                    inotify::add_watch(&watch, &file, inotify::WatchFlags::MODIFY).doing(doing)?;
                    let seen = Cell::new(kills(&file));
                    return Ok(Some(OutOfMemory::V2 { watch, file, seen }));
                }
                _ => (),
            }
        }
        Ok(None)
    }

    fn descriptor(&self) -> &OwnedFd {
        match self {
            OutOfMemory::V1 { events, .. } => events,
            OutOfMemory::V2 { watch, .. } => watch,
        }
    }

    /// Takes what the descriptor has to say.
    fn happened(&self) -> Result<bool> {
        let mut buffer = [0u8; 4096];
        rustix::io::read(self.descriptor(), &mut buffer).doing(|| "read memory events".into())?;
        Ok(match self {
            OutOfMemory::V1 { control, .. } => control.exists(),
            OutOfMemory::V2 { file, seen, .. } => {
                let now = kills(file);
                seen.replace(now) < now
            }
        })
    }
}

fn kills(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

fn data(stats: &Stats) -> Value {
    let usage = &stats.cpu.usage;
    let throttling = &stats.cpu.throttling;
    let memory = |data: &MemoryData| json!({ "limit": data.limit, "usage": data.usage, "max": data.max_usage, "failcnt": data.fail_count });
    let devices = |list: &[BlkioDeviceStat]| -> Vec<Value> {
        list.iter().map(|s| json!({ "major": s.major, "minor": s.minor, "op": s.op_type, "value": s.value })).collect()
    };
    let huge: serde_json::Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, s)| (size.clone(), json!({ "usage": s.usage, "max": s.max_usage, "failcnt": s.fail_count })))
        .collect();
    json!({
        "cpu": {
            "usage": {
                "total": usage.usage_total,
                "percpu": usage.per_core_usage_total,
                "kernel": usage.usage_kernel,
                "user": usage.usage_user
            },
            "throttling": {
                "periods": throttling.periods,
                "throttledPeriods": throttling.throttled_periods,
                "throttledTime": throttling.throttled_time
            }
        },
        "memory": {
            "cache": stats.memory.cache,
            "usage": memory(&stats.memory.memory),
            "swap": memory(&stats.memory.memswap),
            "kernel": memory(&stats.memory.kernel),
            "kernelTCP": memory(&stats.memory.kernel_tcp),
            "raw": stats.memory.stats
        },
        "pids": { "current": stats.pids.current, "limit": stats.pids.limit },
        "blkio": {
            "ioServiceBytesRecursive": devices(&stats.blkio.service_bytes),
            "ioServicedRecursive": devices(&stats.blkio.serviced),
            "ioQueueRecursive": devices(&stats.blkio.queued),
            "ioServiceTimeRecursive": devices(&stats.blkio.service_time),
            "ioWaitTimeRecursive": devices(&stats.blkio.wait_time),
            "ioMergedRecursive": devices(&stats.blkio.merged),
            "ioTimeRecursive": devices(&stats.blkio.time),
            "sectorsRecursive": devices(&stats.blkio.sectors)
        },
        "hugetlb": huge
    })
}

/// A duration as Go writes it: `500ms`, `5s`, `1m30s`.
fn parse_interval(text: &str) -> Result<Duration> {
    let bad = || Error::Invalid(format!("invalid duration {text:?}"));
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        rest = &rest[unit_end..];
    }
    if total.is_zero() { Err(Error::Invalid("duration interval must be greater than 0".into())) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_interval("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_interval("500ms").unwrap(), Duration::from_millis(500));
        for text in ["", "5", "0s", "x", "1y"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
