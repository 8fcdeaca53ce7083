//! The seccomp filter: Docker's default one, or the profile a user hands in with `--security-opt seccomp=…`.
//!
//! Both are a [`Profile`], the JSON format of the docker CLI's `--security-opt seccomp=profile.json`, and go through the
//! same [`Profile::resolve`] to become the `linux.seccomp` object of the OCI runtime specification. A profile that
//! cannot be read in full is refused: half a filter would be no filter.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A profile in Docker's format.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

impl Profile {
    /// Reads a user's profile.
    pub fn parse(text: &str) -> Result<Self> {
        let profile: Self = serde_json::from_str(text)
            .map_err(|e| Error::InvalidParameter(format!("Decoding seccomp profile failed: {e}")))?;
        if profile.architectures.is_some() && profile.arch_map.is_some() {
            return Err(Error::InvalidParameter(
                "Decoding seccomp profile failed: use either 'architectures' or 'archMap'".into(),
            ));
        }
        for rule in profile.syscalls.iter().flatten() {
            if rule.name.is_some() && rule.names.is_some() {
                return Err(Error::InvalidParameter(
                    "Decoding seccomp profile failed: use either 'name' or 'names'".into(),
                ));
            }
        }
        Ok(profile)
    }

    /// Docker's default: everything that is not listed fails with EPERM.
    pub fn docker_default() -> Self {
        let allow = |names: &[&str]| Rule {
            names: Some(names.iter().map(|&n| n.to_owned()).collect()),
            action: ALLOW.into(),
            ..Rule::default()
        };
        let with_arg = |name: &str, index, value, value_two, op: &str| Rule {
            args: Some(vec![Arg { index, value, value_two, op: op.into() }]),
            ..allow(&[name])
        };
        let caps = |cap: &str| Some(Condition { caps: Some(vec![cap.into()]), ..Condition::default() });
        let arches = |names: &[&str]| {
            Some(Condition { arches: Some(names.iter().map(|&n| n.to_owned()).collect()), ..Condition::default() })
        };

        let mut rules = vec![allow(ALWAYS), allow(PTRACE)];
        // AF_ALG (38) and AF_VSOCK (40) stay closed.
        rules.push(with_arg("socket", 0, 38, 0, "SCMP_CMP_LT"));
        rules.push(with_arg("socket", 0, 39, 0, "SCMP_CMP_EQ"));
        rules.push(with_arg("socket", 0, 40, 0, "SCMP_CMP_GT"));
        for persona in PERSONALITIES {
            rules.push(with_arg("personality", 0, *persona, 0, "SCMP_CMP_EQ"));
        }
        for (arch_names, names) in BY_ARCH {
            rules.push(Rule { includes: arches(arch_names), ..allow(names) });
        }
        for (cap, names) in BY_CAPABILITY {
            rules.push(Rule { includes: caps(cap), ..allow(names) });
        }
        // Without CAP_SYS_ADMIN: clone(2) without any new namespace, and clone3(2), whose flags a filter cannot see,
        // as if the kernel did not have it, so that libc falls back to clone.
        rules.push(Rule {
            excludes: Some(Condition {
                caps: Some(vec!["CAP_SYS_ADMIN".into()]),
                arches: Some(vec!["s390".into(), "s390x".into()]),
                min_kernel: None,
            }),
            ..with_arg("clone", 0, CLONE_NEW_ANY, 0, "SCMP_CMP_MASKED_EQ")
        });
        rules.push(Rule {
            includes: arches(&["s390", "s390x"]),
            excludes: caps("CAP_SYS_ADMIN"),
            ..with_arg("clone", 1, CLONE_NEW_ANY, 0, "SCMP_CMP_MASKED_EQ")
        });
        rules.push(Rule {
            action: ERRNO.into(),
            errno_ret: Some(libc::ENOSYS as u32),
            excludes: caps("CAP_SYS_ADMIN"),
            ..allow(&["clone3"])
        });
        Self {
            default_action: ERRNO.into(),
            default_errno_ret: Some(libc::EPERM as u32),
            listener_path: None,
            listener_metadata: None,
            flags: Vec::new(),
            architectures: None,
            arch_map: Some(native_arch_map()),
            syscalls: Some(rules),
        }
    }

    /// The OCI `linux.seccomp` object for a container with these capabilities (`CAP_…` names).
    pub fn resolve(&self, capabilities: &[String]) -> Value {
        let architectures: Vec<String> = match (&self.architectures, &self.arch_map) {
            (Some(list), _) => list.clone(),
            (None, Some(map)) => map
                .iter()
                .filter(|entry| entry.architecture == NATIVE_SCMP_ARCH)
                .flat_map(|entry| {
                    std::iter::once(entry.architecture.clone())
                        .chain(entry.sub_architectures.clone().unwrap_or_default())
                })
                .collect(),
            (None, None) => Vec::new(),
        };
        let syscalls: Vec<Value> =
            self.syscalls.iter().flatten().filter(|rule| rule.applies(capabilities)).map(Rule::to_oci).collect();
        let mut out =
            json!({ "defaultAction": self.default_action, "architectures": architectures, "syscalls": syscalls });
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out[key] = value;
            }
        };
        set("defaultErrnoRet", self.default_errno_ret.map(Into::into));
        set("listenerPath", self.listener_path.clone().map(Into::into));
        set("listenerMetadata", self.listener_metadata.clone().map(Into::into));
        set("flags", (!self.flags.is_empty()).then(|| json!(self.flags)));
        out
    }
}

impl Rule {
    fn applies(&self, capabilities: &[String]) -> bool {
        let has = |cap: &String| capabilities.contains(cap);
        let native = |arch: &String| arch == NATIVE_GO_ARCH;
        if let Some(c) = &self.excludes {
            if c.arches.iter().flatten().any(native) || c.caps.iter().flatten().any(has) {
                return false;
            }
            if c.min_kernel.as_deref().is_some_and(kernel_is_at_least) {
                return false;
            }
        }
        if let Some(c) = &self.includes {
            if c.arches.as_ref().is_some_and(|a| !a.is_empty() && !a.iter().any(native)) {
                return false;
            }
            if !c.caps.iter().flatten().all(has) {
                return false;
            }
            if c.min_kernel.as_deref().is_some_and(|v| !kernel_is_at_least(v)) {
                return false;
            }
        }
        true
    }

    fn to_oci(&self) -> Value {
        let names = match (&self.name, &self.names) {
            (Some(name), _) => vec![name.clone()],
            (None, names) => names.clone().unwrap_or_default(),
        };
        let args: Vec<Value> = self
            .args
            .iter()
            .flatten()
            .map(|a| json!({ "index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op }))
            .collect();
        let mut out = json!({ "names": names, "action": self.action });
        if !args.is_empty() {
            out["args"] = args.into();
        }
        if let Some(errno) = self.errno_ret {
            out["errnoRet"] = errno.into();
        }
        out
    }
}

/// Whether the running kernel is `major.minor` or newer; a version that cannot be read is not.
fn kernel_is_at_least(wanted: &str) -> bool {
    fn parse(text: &str) -> Option<(u32, u32)> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
    let uname = rustix::system::uname();
    let running = uname.release().to_str().ok().and_then(parse);
    matches!((running, parse(wanted)), (Some(running), Some(wanted)) if running >= wanted)
}

fn native_arch_map() -> Vec<ArchMap> {
    let subs: &[&str] = match NATIVE_SCMP_ARCH {
        "SCMP_ARCH_X86_64" => &["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "SCMP_ARCH_AARCH64" => &["SCMP_ARCH_ARM"],
        _ => &[],
    };
    vec![ArchMap {
        architecture: NATIVE_SCMP_ARCH.into(),
        sub_architectures: Some(subs.iter().map(|&s| s.to_owned()).collect()),
    }]
}

#[cfg(target_arch = "x86_64")]
const NATIVE_SCMP_ARCH: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const NATIVE_SCMP_ARCH: &str = "SCMP_ARCH_AARCH64";
#[cfg(target_arch = "riscv64")]
const NATIVE_SCMP_ARCH: &str = "SCMP_ARCH_RISCV64";
#[cfg(target_arch = "x86_64")]
const NATIVE_GO_ARCH: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const NATIVE_GO_ARCH: &str = "arm64";
#[cfg(target_arch = "riscv64")]
const NATIVE_GO_ARCH: &str = "riscv64";

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";

/// Every `CLONE_NEW…` flag of `clone(2)` that makes a namespace.
const CLONE_NEW_ANY: u64 = 0x7E02_0000;

/// `personality(2)`: PER_LINUX, PER_LINUX32, both with UNAME26, and the query.
const PERSONALITIES: &[u64] = &[0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// Safe since Linux 4.8, when ptrace stopped being a way around a filter. Older kernels are not supported.
const PTRACE: &[&str] = &["process_vm_readv", "process_vm_writev", "ptrace"];

/// Calls of one architecture.
const BY_ARCH: &[(&[&str], &[&str])] = &[
    (&["ppc64le"], &["swapcontext", "sync_file_range2"]),
    (
        &["arm", "arm64"],
        &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"],
    ),
    (&["amd64", "x32"], &["arch_prctl"]),
    (&["amd64", "x32", "x86"], &["modify_ldt"]),
    (&["s390", "s390x"], &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"]),
    (&["riscv64"], &["riscv_flush_icache"]),
];

/// Calls that a capability opens.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// Calls that are always allowed.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat",
    "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64",
    "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group",
    "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod",
    "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat",
    "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2",
    "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv",
    "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat",
    "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2",
    "prlimit64", "process_mrelease", "pselect6", "pselect6_time64", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64",
    "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "riscv_hwprobe", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
    "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid",
    "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32",
    "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid",
    "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn", "socketcall",
    "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(seccomp: &Value) -> Vec<&str> {
        let rules = seccomp["syscalls"].as_array().unwrap();
        rules.iter().flat_map(|r| r["names"].as_array().unwrap()).map(|n| n.as_str().unwrap()).collect()
    }

    #[test]
    fn the_default_opens_calls_by_capability() {
        let plain = Profile::docker_default().resolve(&[]);
        assert!(!names_of(&plain).contains(&"mount"));
        assert_eq!(plain["defaultErrnoRet"], 1);
        let clone3 = plain["syscalls"].as_array().unwrap().iter().find(|r| r["names"][0] == "clone3").unwrap();
        assert_eq!(clone3["errnoRet"], 38);
        let admin = Profile::docker_default().resolve(&["CAP_SYS_ADMIN".into()]);
        assert!(names_of(&admin).contains(&"mount"));
        assert!(!admin["syscalls"].as_array().unwrap().iter().any(|r| r["errnoRet"] == 38));
    }

    #[test]
    fn a_broken_profile_is_refused() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"defaultAction":"x","surprise":1}"#,
            r#"{"defaultAction":"x","syscalls":[{"name":"a","names":["b"],"action":"y"}]}"#,
        ] {
            assert!(Profile::parse(bad).is_err(), "{bad}");
        }
        let p = Profile::parse(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}"#,
        );
        assert_eq!(names_of(&p.unwrap().resolve(&[])), ["mkdir"]);
    }
}
