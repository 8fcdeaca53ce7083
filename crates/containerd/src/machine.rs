//! Facts about the machine.

use std::fs;
use std::io;

use containerd_api::types::Machine;

use crate::error::Result;

const BYTES_PER_MEBIBYTE: u64 = 1 << 20;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Clock ticks per second in the kernel's counters for user space: 100 on every architecture Linux runs on today.
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// A number of clock ticks as nanoseconds.
pub fn ticks_to_nanoseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(NANOSECONDS_PER_SECOND / ticks_per_second())
}

/// Number of processors and memory in MiB.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn machine() -> Result<Machine> {
    let stat = fs::read_to_string("/proc/stat")?;
    let cpus = stat.lines().filter(|line| is_one_cpu(line)).count();
    let info = rustix::system::sysinfo();
    // The type of these fields differs between architectures.
    #[allow(clippy::unnecessary_cast)]
    let memory = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / BYTES_PER_MEBIBYTE;
    Ok(Machine { cpus: u32::try_from(cpus).unwrap_or(u32::MAX), memory })
}

fn is_one_cpu(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What all processors together have spent since boot, idle included: the first seven columns of `cpu` in `/proc/stat`.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub fn cpu_nanoseconds() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: u64 = line.split_whitespace().skip(1).take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(ticks_to_nanoseconds(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_processors_memory_and_a_past() {
        let machine = machine().unwrap();
        assert!(machine.cpus >= 1);
        assert!(machine.memory > 64);
        assert!(cpu_nanoseconds().unwrap() > 0);
    }
}
