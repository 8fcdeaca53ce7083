//! What this host is and can do, read from the kernel's files. What cannot be read is empty, zero or "no".

use std::fs;
use std::path::Path;

/// Where the cgroup file systems are.
const CGROUP: &str = "/sys/fs/cgroup";

/// A value of `/etc/os-release`.
pub(super) fn os_release(key: &str) -> String {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
}

/// Bytes of memory.
pub(super) fn memory_bytes() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes: Option<i64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1024)
}

/// Descriptors that this process has open.
pub(super) fn open_files() -> i64 {
    let count = fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0);
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whether packets are forwarded.
pub(super) fn forwards_ipv4() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

/// The cgroup controllers and limits there are.
pub(crate) struct Cgroups {
    /// Only the unified hierarchy is mounted.
    pub is_v2: bool,
    pub memory: bool,
    pub swap: bool,
    pub oom_kill_disable: bool,
    pub cpu_shares: bool,
    pub cpu_quota: bool,
    pub cpuset: bool,
    pub pids: bool,
    pub blkio_weight: bool,
    pub blkio_weight_device: bool,
}

impl Cgroups {
    /// Looks at what is mounted.
    pub fn detect() -> Self {
        Self::below(Path::new(CGROUP))
    }

    fn below(root: &Path) -> Self {
        let unified = fs::read_to_string(root.join("cgroup.controllers"));
        if let Ok(controllers) = unified {
            let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
            return Self {
                is_v2: true,
                memory: has("memory"),
                swap: has("memory"),
                oom_kill_disable: false,
                cpu_shares: has("cpu"),
                cpu_quota: has("cpu"),
                cpuset: has("cpuset"),
                pids: has("pids"),
                blkio_weight: has("io"),
                blkio_weight_device: has("io"),
            };
        }
        let exists = |path: &str| root.join(path).exists();
        Self {
            is_v2: false,
            memory: exists("memory/memory.limit_in_bytes"),
            swap: exists("memory/memory.memsw.limit_in_bytes"),
            oom_kill_disable: exists("memory/memory.oom_control"),
            cpu_shares: exists("cpu/cpu.shares"),
            cpu_quota: exists("cpu/cpu.cfs_quota_us"),
            cpuset: exists("cpuset/cpuset.cpus") || exists("cpuset/cpus"),
            pids: exists("pids/cgroup.procs"),
            blkio_weight: exists("blkio/blkio.weight"),
            blkio_weight_device: exists("blkio/blkio.weight_device"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_memory_and_a_name() {
        assert!(memory_bytes() > 1 << 20);
        assert!(!os_release("ID").is_empty());
        assert!(open_files() > 2);
    }

    #[test]
    fn both_generations_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        let v2 = Cgroups::below(dir.path());
        assert!(v2.is_v2 && v2.memory && v2.cpu_quota && !v2.pids && !v2.oom_kill_disable);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("memory")).unwrap();
        fs::write(dir.path().join("memory/memory.limit_in_bytes"), "").unwrap();
        let v1 = Cgroups::below(dir.path());
        assert!(!v1.is_v2 && v1.memory && !v1.swap && !v1.pids);
    }
}
