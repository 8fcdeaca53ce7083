//! Attributes of a process that have a system call of their own: personality, scheduler, I/O priority, memory policy, and
//! the processors it may run on.
//!
//! All of it is set by the process itself while it is still root: before the seccomp filter and before its capabilities go.

use libcontainer::oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler,
};
use libcontainer::process::{cpu_affinity, memory_policy};
use libcontainer::syscall::syscall::create_syscall;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::{Doing, Error, Result};
use crate::sys;

/// What the kernel's `linux/ioprio.h` shifts a class by.
const IO_CLASS_SHIFT: i64 = 13;
/// From the kernel's `linux/personality.h`.
const PER_LINUX32: libc::c_ulong = 0x0008;

/// Sets everything but the processors.
pub fn apply(process: &Process, linux: Option<&Linux>) -> Result<()> {
    if let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) {
        if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            return Err(Error::NotImplemented("flags of linux.personality".into()));
        }
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
        };
        sys::set_personality(domain).doing(|| "set the personality".into())?;
    }
    if let Some(scheduler) = process.scheduler() {
        set_scheduler(scheduler)?;
    }
    if let Some(io) = process.io_priority() {
        let class: i64 = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        if !(0..1 << IO_CLASS_SHIFT).contains(&io.priority()) {
            return Err(Error::Invalid(format!("invalid process.ioPriority {}", io.priority())));
        }
        create_syscall()
            .set_io_priority(class, io.priority())
            .map_err(|err| Error::Init(format!("set process.ioPriority: {err}")))?;
    }
    if let Some(linux) = linux {
        memory_policy::setup_memory_policy(linux.memory_policy(), create_syscall().as_ref())
            .map_err(|err| Error::Init(format!("set memory policy: {err}")))?;
    }
    Ok(())
}

fn set_scheduler(scheduler: &Scheduler) -> Result<()> {
    let policy = match *scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        // Linux has the number and no such policy.
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        }
    });
    let priority = scheduler.priority().unwrap_or(0);
    let attributes = sys::SchedulerAttributes {
        policy: policy.cast_unsigned(),
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority: u32::try_from(priority)
            .map_err(|_| Error::Invalid(format!("invalid process.scheduler.priority {priority}")))?,
        runtime_ns: scheduler.runtime().unwrap_or(0),
        deadline_ns: scheduler.deadline().unwrap_or(0),
        period_ns: scheduler.period().unwrap_or(0),
    };
    sys::set_scheduler(&attributes).map_err(|source| {
        let hint = match source.raw_os_error() {
            Some(libc::EPERM) if policy == libc::SCHED_DEADLINE => {
                " (process scheduler can't be used together with AllowedCPUs)"
            }
            _ => "",
        };
        Error::Io { what: format!("error setting scheduler{hint}"), source }
    })
}

/// Lets a process run on every processor its cpuset has: whoever started docker-runc may have been kept to a few.
pub fn reset_processors(pid: i32) {
    let mut all = CpuSet::new();
    for processor in 0..CpuSet::count() {
        // Cannot fail: it is below the count.
        let _ = all.set(processor);
    }
    // Runtimes only try this: where it is forbidden, the process stays where its starter was.
    if let Err(err) = sched_setaffinity(Pid::from_raw(pid), &all) {
        tracing::warn!("reset the processors of process {pid}: {err}");
    }
}

/// Which processors an exec's process may use before and after it is moved to the container's cgroups.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Processors {
    /// `execCPUAffinity.initial`
    pub before: Option<CpuSet>,
    /// `execCPUAffinity.final`
    pub after: Option<CpuSet>,
}

impl Processors {
    /// Those of a process.
    pub fn of(process: &Process) -> Result<Self> {
        let Some(affinity) = process.exec_cpu_affinity() else { return Ok(Processors::default()) };
        let parse = |text: Option<&String>| -> Result<Option<CpuSet>> {
            let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
            let bad = |err: String| Error::Invalid(format!("invalid process.execCPUAffinity {text:?}: {err}"));
            // libcontainer's set is of another version of nix.
            let parsed = cpu_affinity::to_cpuset(text).map_err(|err| bad(err.to_string()))?;
            let mut set = CpuSet::new();
            for processor in (0..CpuSet::count()).filter(|processor| parsed.is_set(*processor) == Ok(true)) {
                set.set(processor).map_err(|err| bad(err.to_string()))?;
            }
            Ok(Some(set))
        };
        Ok(Processors {
            before: parse(affinity.initial().as_ref())?,
            after: parse(affinity.cpu_affinity_final().as_ref())?,
        })
    }

    /// To be called before the process joins its cgroups.
    pub fn apply_before(&self, pid: i32) -> Result<()> {
        set(pid, self.before.as_ref())
    }

    /// To be called when it has.
    pub fn apply_after(&self, pid: i32) -> Result<()> {
        match (&self.before, &self.after) {
            (None, None) => reset_processors(pid),
            (_, after) => set(pid, after.as_ref())?,
        }
        Ok(())
    }
}

fn set(pid: i32, processors: Option<&CpuSet>) -> Result<()> {
    match processors {
        Some(set) => {
            sched_setaffinity(Pid::from_raw(pid), set).doing(|| format!("set the processors of process {pid}"))
        }
        None => Ok(()),
    }
}
