//! The facts about a host that a checkpoint depends on, recorded when it is taken and compared before it is woken.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The host, as far as a frozen process can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// `x86_64`, …
    pub architecture: String,
    /// `uname -r`.
    pub kernel: String,
    /// The CPU's features, as /proc/cpuinfo names them.
    #[serde(default, alias = "cpu_features")]
    pub cpu_features: BTreeSet<String>,
    /// `v1`, `v2` or `hybrid`.
    #[serde(default)]
    pub cgroups: String,
}

impl HostFacts {
    /// Of this host; looked up once.
    pub fn here() -> &'static Self {
        static HERE: LazyLock<HostFacts> = LazyLock::new(HostFacts::look);
        &HERE
    }

    fn look() -> Self {
        let uname = rustix::system::uname();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let has = |kind: &str| mounts.lines().any(|l| l.split(' ').nth(2) == Some(kind));
        let cgroups = match (has("cgroup"), has("cgroup2")) {
            (true, true) => "hybrid",
            (true, false) => "v1",
            _ => "v2",
        };
        Self {
            architecture: uname.machine().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            cpu_features: features(&cpuinfo),
            cgroups: cgroups.to_owned(),
        }
    }

    /// Why a process of that host cannot live on this one; `None` when nothing is known against it.
    pub fn obstacle(&self, there: &Self) -> Option<String> {
        if self.architecture != there.architecture {
            return Some(format!("it was made on a {} machine, this one is {}", there.architecture, self.architecture));
        }
        let missing: Vec<&str> = there.cpu_features.difference(&self.cpu_features).map(String::as_str).collect();
        if !missing.is_empty() {
            return Some(format!(
                "it was made on a CPU with features that this one lacks: {} (a program that uses them would crash)",
                missing.join(", ")
            ));
        }
        None
    }
}

/// The features that programs choose their code by; what only the kernel looks at is left out.
fn features(cpuinfo: &str) -> BTreeSet<String> {
    const RELEVANT: &[&str] = &[
        "sse",
        "ssse",
        "avx",
        "fma",
        "bmi",
        "aes",
        "sha",
        "adx",
        "f16c",
        "movbe",
        "popcnt",
        "lzcnt",
        "abm",
        "amx",
        "gfni",
        "vaes",
        "vpclmul",
        "pclmul",
        "xsave",
        "rdrand",
        "rdseed",
        "clflushopt",
        "clwb",
        "rtm",
        "hle",
    ];
    let line = cpuinfo.lines().find(|l| l.starts_with("flags") || l.starts_with("Features"));
    let words = line.and_then(|l| l.split_once(':')).map(|(_, words)| words).unwrap_or_default();
    words.split_whitespace().filter(|w| RELEVANT.iter().any(|r| w.starts_with(r))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lesser_cpu_is_an_obstacle() {
        let facts = |flags: &str| HostFacts {
            architecture: "x86_64".into(),
            cpu_features: features(&format!("flags\t\t: fpu {flags}\n")),
            ..HostFacts::default()
        };
        let (big, small) = (facts("sse2 avx2 avx512f"), facts("sse2 avx2"));
        assert_eq!(big.obstacle(&small), None);
        assert!(small.obstacle(&big).unwrap().contains("avx512f"));
        let arm = HostFacts { architecture: "aarch64".into(), ..HostFacts::default() };
        assert!(arm.obstacle(&small).is_some());
        assert_eq!(HostFacts::here().obstacle(HostFacts::here()), None);
    }
}
