//! What an engine's programs weigh: proportional set sizes, as the kernel adds them up.

use std::collections::BTreeMap;
use std::fs;

use crate::peer::Peer;

/// The programs of engines that we did not start, by the name of the peer.
const KNOWN: [(&str, &[&str]); 2] =
    [("docker", &["dockerd", "containerd", "containerd-shim"]), ("podman", &["podman", "conmon", "aardvark-dns"])];

/// The memory of an engine's programs.
pub struct Weight {
    pub total_bytes: u64,
    pub private_bytes_per_shim: u64,
    by_program: BTreeMap<String, (usize, u64)>,
}

impl Weight {
    pub fn of(peer: &Peer) -> Self {
        let mut weight = Self { total_bytes: 0, private_bytes_per_shim: 0, by_program: BTreeMap::new() };
        let mut shims = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
            let program = command.split('\0').next().unwrap_or("").rsplit('/').next().unwrap_or("").to_owned();
            let belongs = match &peer.home {
                Some(home) => command.contains(&*home.to_string_lossy()) && program.contains("docker"),
                None => KNOWN.iter().any(|(name, programs)| {
                    *name == peer.name && programs.iter().any(|known| program.starts_with(known))
                }),
            };
            if !belongs {
                continue;
            }
            let rollup = String::from_utf8_lossy(&read("smaps_rollup")).into_owned();
            let bytes = |field: &str| {
                let line = rollup.lines().find(|line| line.starts_with(field));
                line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
            };
            let pss = bytes("Pss:");
            if program.contains("shim") || program == "conmon" {
                shims.push(bytes("Private_Clean:") + bytes("Private_Dirty:"));
            }
            weight.total_bytes += pss;
            let sum = weight.by_program.entry(program).or_default();
            sum.0 += 1;
            sum.1 += pss;
        }
        if !shims.is_empty() {
            weight.private_bytes_per_shim = shims.iter().sum::<u64>() / shims.len() as u64;
        }
        weight
    }

    /// Every program with its number and sum.
    pub fn programs(&self) -> String {
        let one = |(program, (count, bytes)): (&String, &(usize, u64))| {
            format!("{program} ×{count} {:.1} MiB", *bytes as f64 / f64::from(1 << 20))
        };
        self.by_program.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
