//! The last steps of a container's process: limits, identity, capabilities, seccomp, and `execve`.
//!
//! The order matters and is runc's: seccomp before the capabilities go, unless `noNewPrivileges` allows it as the very
//! last; the bounding set while `CAP_SETPCAP` is still there; groups and user before the permitted set shrinks.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use libcontainer::capabilities::CapabilityExt;
use libcontainer::oci_spec::runtime::{Capabilities, PosixRlimit, PosixRlimitType, Process};
use tracing::{debug, warn};

use super::notify::Seccomp;
use super::sync::Channel;
use crate::error::{Doing, Error, Result};
use crate::sys;

/// Applies everything in `process` to the calling process, so that only [`Program::exec`] remains.
/// Whoever is at the other end of `channel` hands the listener of a seccomp filter on, if it has one.
pub fn become_user(process: &Process, seccomp: Option<&Seccomp<'_>>, channel: &Channel) -> Result<()> {
    set_rlimits(process.rlimits().as_deref().unwrap_or_default())?;
    let no_new_privileges = process.no_new_privileges() == Some(true);
    if let Some(profile) = process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty()) {
        libcontainer::apparmor::apply_profile(profile)
            .map_err(|err| Error::Init(format!("apply apparmor profile: {err}")))?;
    }
    if no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing(|| "set no_new_privs".into())?;
    } else if let Some(filter) = seccomp {
        filter.load(channel)?;
    }
    if let Some(umask) = process.user().umask() {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
    }
    // The container's user may be kept out of the directory that root may enter, and the other way round.
    let early = std::env::set_current_dir(process.cwd());
    let empty = Capabilities::new();
    let sets = process.capabilities().as_ref();
    let set = |list: Option<&Capabilities>| -> HashSet<Capability> {
        list.unwrap_or(&empty).iter().map(CapabilityExt::to_cap).collect()
    };
    if let Some(sets) = sets {
        let keep = set(sets.bounding().as_ref());
        for capability in caps::runtime::thread_all_supported().difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability)
                .map_err(|err| Error::Init(format!("drop {capability} from the bounding set: {err}")))?;
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).doing(|| "keep capabilities".into())?;
    set_identity(process)?;
    if let Err(source) = early
        && let Err(_late) = std::env::set_current_dir(process.cwd())
    {
        let what = format!("chdir to cwd ({:?}) set in config.json failed", process.cwd());
        return Err(Error::Io { what, source });
    }
    check_cwd()?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0, 0).doing(|| "stop keeping capabilities".into())?;
    if let Some(sets) = sets {
        let apply = |kind: CapSet, wanted: HashSet<Capability>| {
            caps::set(None, kind, &wanted).map_err(|err| Error::Init(format!("set {kind:?} capabilities: {err}")))
        };
        let permitted = set(sets.permitted().as_ref());
        let inheritable = set(sets.inheritable().as_ref());
        // Effective must never exceed permitted, in any step between.
        caps::clear(None, CapSet::Effective).map_err(|err| Error::Init(format!("clear capabilities: {err}")))?;
        apply(CapSet::Inheritable, inheritable.clone())?;
        apply(CapSet::Permitted, permitted.clone())?;
        let effective = set(sets.effective().as_ref());
        apply(CapSet::Effective, effective.intersection(&permitted).copied().collect())?;
        let ambient = set(sets.ambient().as_ref());
        let (ambient, others): (HashSet<_>, HashSet<_>) =
            ambient.iter().copied().partition(|c| permitted.contains(c) && inheritable.contains(c));
        for capability in others {
            warn!("can't raise ambient capability {capability}: it is not permitted and inheritable as well");
        }
        apply(CapSet::Ambient, ambient)?;
    }
    if no_new_privileges && let Some(filter) = seccomp {
        filter.load(channel)?;
    }
    Ok(())
}

fn set_identity(process: &Process) -> Result<()> {
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let denied = || fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    match sys::set_groups(groups) {
        Err(_) if groups.is_empty() && denied() => (),
        other => other.doing(|| "setgroups".into())?,
    }
    sys::set_gid(user.gid()).doing(|| format!("setgid {}", user.gid()))?;
    sys::set_uid(user.uid()).doing(|| format!("setuid {}", user.uid()))
}

/// A working directory that lies outside the container's root (through a leaked descriptor) has no path in it.
fn check_cwd() -> Result<()> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().first() == Some(&b'/') => Ok(()),
        _ => Err(Error::Init("current working directory is outside of container mount namespace root".into())),
    }
}

fn set_rlimits(limits: &[PosixRlimit]) -> Result<()> {
    for limit in limits {
        let resource = resource(limit.typ());
        if sys::set_rlimit(resource, limit.soft(), limit.hard()).is_ok() {
            continue;
        }
        // Without CAP_SYS_RESOURCE nobody may raise a hard limit: what is there is all there is to give.
        let (_, hard) = sys::get_rlimit(resource).doing(|| format!("read {:?}", limit.typ()))?;
        let (soft, hard) = (limit.soft().min(hard), limit.hard().min(hard));
        // No warning: under some engines it would end up in what the container prints.
        debug!("{:?} {}:{} cannot be had on this host, using {soft}:{hard}", limit.typ(), limit.soft(), limit.hard());
        sys::set_rlimit(resource, soft, hard).doing(|| format!("error setting rlimit {:?}", limit.typ()))?;
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// Sets the adjustment of the out-of-memory killer; a host that does not let us is only warned about.
pub fn set_oom_score(adjustment: Option<i32>) {
    let Some(adjustment) = adjustment else { return };
    let path = "/proc/self/oom_score_adj";
    let current = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if current != Some(adjustment)
        && let Err(err) = fs::write(path, adjustment.to_string())
    {
        warn!("cannot set oom_score_adj to {adjustment}: {err}");
    }
}

/// A program found and ready to be executed.
pub struct Program {
    name: String,
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// Finds the program of `process` as the container's user sees it. The words are those that Docker turns into the
    /// exit codes 126 and 127.
    pub fn find(process: &Process) -> Result<Self> {
        let args = process.args().as_deref().unwrap_or_default();
        let name = args.first().cloned().unwrap_or_default();
        let mut environment = without_repeats(process.env().as_deref().unwrap_or_default());
        let variable = |name: &str| {
            environment.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let path = search(&name, variable("PATH").as_deref().unwrap_or_default())?;
        if variable("HOME").is_none_or(|home| home.is_empty()) {
            environment.retain(|entry| !entry.starts_with("HOME="));
            environment.push(format!("HOME={}", home_of(process.user().uid())));
        }
        let strings = |list: &[String]| -> Result<Vec<CString>> {
            list.iter()
                .map(|text| CString::new(text.as_str()).map_err(|_| Error::Invalid("null byte in args or env".into())))
                .collect()
        };
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::Invalid("null byte".into()))?;
        Ok(Program { name, path, arguments: strings(args)?, environment: strings(&environment)? })
    }

    /// Its environment, as `NAME=value`.
    pub fn environment(&self) -> Vec<String> {
        self.environment.iter().map(|entry| entry.to_string_lossy().into_owned()).collect()
    }

    /// Replaces the process. Returns only if that fails.
    pub fn exec(&self) -> Error {
        let source = sys::execve(&self.path, &self.arguments, &self.environment);
        Error::Io { what: format!("exec {}", self.name), source }
    }
}

/// The last value of each variable.
fn without_repeats(environment: &[String]) -> Vec<String> {
    let name = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let mut kept: Vec<String> = environment.iter().rev().filter(|entry| seen.insert(name(entry))).cloned().collect();
    kept.reverse();
    kept
}

fn search(name: &str, path: &str) -> Result<PathBuf> {
    let not_found = |reason: &str| Error::Init(format!("exec: {name:?}: {reason}"));
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(reason) => Err(Error::Init(format!("exec: {name:?}: stat {name}: {reason}"))),
        };
    }
    let mut denied = false;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(reason) => denied |= reason == "permission denied",
        }
    }
    Err(not_found(if denied { "permission denied" } else { "executable file not found in $PATH" }))
}

/// Whether `path` can be executed. The container's seccomp profile may be at work already, and one of 2017 knows neither
/// `statx` nor `faccessat2`: only the old calls are made, and a refusal of the call itself leaves the question to `execve`.
fn executable(path: &Path) -> std::result::Result<(), &'static str> {
    use rustix::fs::{Access, AtFlags, CWD, FileType};
    use rustix::io::Errno;
    match rustix::fs::stat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Err("is a directory"),
        Ok(_) | Err(Errno::PERM | Errno::NOSYS) => (),
        Err(Errno::ACCESS) => return Err("permission denied"),
        Err(_) => return Err("no such file or directory"),
    }
    let access = |flags| rustix::fs::accessat(CWD, path, Access::EXEC_OK, flags);
    match access(AtFlags::EACCESS) {
        Err(Errno::PERM | Errno::NOSYS) => match access(AtFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::NOSYS) => Ok(()),
            Err(_) => Err("permission denied"),
        },
        Ok(()) => Ok(()),
        Err(_) => Err("permission denied"),
    }
}

fn home_of(uid: u32) -> String {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    // The file is the container's: a FIFO nobody writes to must not hold us up, and no terminal become ours.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let Ok(file) = fs::OpenOptions::new().read(true).custom_flags(flags).open("/etc/passwd") else {
        return "/".into();
    };
    // An old seccomp profile does not know `statx`.
    if !rustix::fs::fstat(&file).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()) {
        return "/".into();
    }
    // Bounded.
    let lines = BufReader::new(file.take(1 << 20)).lines().map_while(std::io::Result::ok);
    for line in lines {
        let fields: Vec<_> = line.split(':').collect();
        if fields.len() >= 6 && fields[2].parse() == Ok(uid) && !fields[5].is_empty() {
            return fields[5].to_owned();
        }
    }
    "/".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_missing_program_are_runcs() {
        let text = search("no-such-program", "/usr/bin:/bin").unwrap_err().to_string();
        assert!(text.ends_with("exec: \"no-such-program\": executable file not found in $PATH"), "{text}");
        let text = search("/no/such", "").unwrap_err().to_string();
        assert!(text.contains("no such file or directory"), "{text}");
        let text = search("/etc/passwd", "").unwrap_err().to_string();
        assert!(text.contains("permission denied"), "{text}");
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let list = ["A=1", "B=2", "A=", "C"].map(str::to_owned);
        assert_eq!(without_repeats(&list), ["B=2", "A=", "C"]);
    }

    #[test]
    fn the_path_is_searched_in_order() {
        assert_eq!(search("sh", "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
    }
}
