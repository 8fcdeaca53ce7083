//! How the messages that are printed look as JSON: the names and the order are those of the protocol.

use containerd_api::types::{
    BlkioStats, BlkioStatsEntry, CgroupStats, Container, CpuStats, HugetlbStats, Machine, MemoryData, MemoryStats,
    NetworkStats, Process, Rlimit, StateResponse, StatsResponse, User,
};
use prost_types::Timestamp;

use crate::json::{Object, quote};

pub(crate) fn state(state: &StateResponse) -> String {
    Object::default()
        .list("containers", &state.containers, container)
        .message("machine", state.machine.as_ref(), |machine: &Machine| {
            Object::default().number("cpus", machine.cpus.into()).number("memory", machine.memory).end()
        })
        .end()
}

fn container(container: &Container) -> String {
    Object::default()
        .text("id", &container.id)
        .text("bundlePath", &container.bundle_path)
        .list("processes", &container.processes, process)
        .text("status", &container.status)
        .list("labels", &container.labels, |label| quote(label))
        .list("pids", &container.pids, ToString::to_string)
        .text("runtime", &container.runtime)
        .end()
}

fn process(process: &Process) -> String {
    let user = |user: &User| {
        Object::default()
            .number("uid", user.uid.into())
            .number("gid", user.gid.into())
            .list("additionalGids", &user.additional_gids, ToString::to_string)
            .end()
    };
    let rlimit = |limit: &Rlimit| {
        Object::default().text("type", &limit.r#type).number("soft", limit.soft).number("hard", limit.hard).end()
    };
    Object::default()
        .text("pid", &process.pid)
        .flag("terminal", process.terminal)
        .message("user", process.user.as_ref(), user)
        .list("args", &process.args, |argument| quote(argument))
        .list("env", &process.env, |variable| quote(variable))
        .text("cwd", &process.cwd)
        .number("systemPid", process.system_pid.into())
        .text("stdin", &process.stdin)
        .text("stdout", &process.stdout)
        .text("stderr", &process.stderr)
        .list("capabilities", &process.capabilities, |capability| quote(capability))
        .text("apparmorProfile", &process.apparmor_profile)
        .text("selinuxLabel", &process.selinux_label)
        .flag("noNewPrivileges", process.no_new_privileges)
        .list("rlimits", &process.rlimits, rlimit)
        .end()
}

pub(crate) fn stats(stats: &StatsResponse) -> String {
    Object::default()
        .list("network_stats", &stats.network_stats, network)
        .message("cgroup_stats", stats.cgroup_stats.as_ref(), cgroup)
        .message("timestamp", stats.timestamp.as_ref(), timestamp)
        .end()
}

fn timestamp(time: &Timestamp) -> String {
    Object::default().signed("seconds", time.seconds).signed("nanos", time.nanos.into()).end()
}

fn network(network: &NetworkStats) -> String {
    Object::default()
        .text("name", &network.name)
        .number("rx_bytes", network.rx_bytes)
        .number("rx_Packets", network.rx_packets)
        .number("Rx_errors", network.rx_errors)
        .number("Rx_dropped", network.rx_dropped)
        .number("Tx_bytes", network.tx_bytes)
        .number("Tx_packets", network.tx_packets)
        .number("Tx_errors", network.tx_errors)
        .number("Tx_dropped", network.tx_dropped)
        .end()
}

fn cgroup(cgroup: &CgroupStats) -> String {
    let hugetlb = |pages: &HugetlbStats| {
        Object::default()
            .number("usage", pages.usage)
            .number("max_usage", pages.max_usage)
            .number("failcnt", pages.failcnt)
            .number("limit", pages.limit)
            .end()
    };
    Object::default()
        .message("cpu_stats", cgroup.cpu_stats.as_ref(), cpu)
        .message("memory_stats", cgroup.memory_stats.as_ref(), memory)
        .message("blkio_stats", cgroup.blkio_stats.as_ref(), blkio)
        .map("hugetlb_stats", &cgroup.hugetlb_stats, hugetlb)
        .message("pids_stats", cgroup.pids_stats.as_ref(), |pids| {
            Object::default().number("current", pids.current).number("limit", pids.limit).end()
        })
        .end()
}

fn cpu(cpu: &CpuStats) -> String {
    Object::default()
        .message("cpu_usage", cpu.cpu_usage.as_ref(), |usage| {
            Object::default()
                .number("total_usage", usage.total_usage)
                .list("percpu_usage", &usage.percpu_usage, ToString::to_string)
                .number("usage_in_kernelmode", usage.usage_in_kernelmode)
                .number("usage_in_usermode", usage.usage_in_usermode)
                .end()
        })
        .message("throttling_data", cpu.throttling_data.as_ref(), |throttling| {
            Object::default()
                .number("periods", throttling.periods)
                .number("throttled_periods", throttling.throttled_periods)
                .number("throttled_time", throttling.throttled_time)
                .end()
        })
        .number("system_usage", cpu.system_usage)
        .end()
}

fn memory(memory: &MemoryStats) -> String {
    let data = |data: &MemoryData| {
        Object::default()
            .number("usage", data.usage)
            .number("max_usage", data.max_usage)
            .number("failcnt", data.failcnt)
            .number("limit", data.limit)
            .end()
    };
    Object::default()
        .number("cache", memory.cache)
        .message("usage", memory.usage.as_ref(), data)
        .message("swap_usage", memory.swap_usage.as_ref(), data)
        .message("kernel_usage", memory.kernel_usage.as_ref(), data)
        .map("stats", &memory.stats, ToString::to_string)
        .end()
}

fn blkio(blkio: &BlkioStats) -> String {
    let entry = |entry: &BlkioStatsEntry| {
        Object::default()
            .number("major", entry.major)
            .number("minor", entry.minor)
            .text("op", &entry.op)
            .number("value", entry.value)
            .end()
    };
    Object::default()
        .list("io_service_bytes_recursive", &blkio.io_service_bytes_recursive, entry)
        .list("io_serviced_recursive", &blkio.io_serviced_recursive, entry)
        .list("io_queued_recursive", &blkio.io_queued_recursive, entry)
        .list("io_service_time_recursive", &blkio.io_service_time_recursive, entry)
        .list("io_wait_time_recursive", &blkio.io_wait_time_recursive, entry)
        .list("io_merged_recursive", &blkio.io_merged_recursive, entry)
        .list("io_time_recursive", &blkio.io_time_recursive, entry)
        .list("sectors_recursive", &blkio.sectors_recursive, entry)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_as_the_original_prints_it() {
        let message = StateResponse {
            containers: vec![Container {
                id: "a".into(),
                bundle_path: "/b".into(),
                processes: vec![Process { pid: "init".into(), user: Some(User::default()), ..Process::default() }],
                pids: vec![7],
                ..Container::default()
            }],
            machine: Some(Machine { cpus: 2, memory: 0 }),
        };
        assert_eq!(
            state(&message),
            r#"{"containers":[{"id":"a","bundlePath":"/b","processes":[{"pid":"init","user":{}}],"pids":[7]}],"machine":{"cpus":2}}"#
        );
    }
}
