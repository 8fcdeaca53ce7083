//! `docker info`.

use api::types::{
    AddressPool, Commit, FirewallInfo, IndexInfo, List, Map, PluginsInfo, RegistryConfig, RuntimeInfo, SwarmInfo,
    SystemInfo, Timestamp,
};

use super::host::{self, Cgroups};
use crate::Daemon;
use crate::containers::state::State;

impl Daemon {
    pub(super) fn system_info(&self) -> SystemInfo {
        let config = &self.config;
        let cgroups = Cgroups::detect();
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        for container in self.containers.all() {
            match &container.record().state {
                State::Running(running) if running.paused => paused += 1,
                State::Running(_) | State::Restarting(_) => running += 1,
                _ => stopped += 1,
            }
        }
        let images = self.images.list(&::images::ListFilter { all: true, ..Default::default() });
        let kernel = rustix::system::uname();
        let commit = Commit { id: config.version.into() };
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<List<String>>();
        let environment =
            |name: &str| std::env::var(name).or_else(|_| std::env::var(name.to_lowercase())).unwrap_or_default();
        let runtimes = config.runtimes.iter().map(|(name, runtime)| {
            let arguments = if runtime.args.is_empty() { List::null() } else { runtime.args.clone().into() };
            (name.as_str(), RuntimeInfo { path: runtime.path.clone(), runtime_args: arguments, status: Map::null() })
        });
        SystemInfo {
            id: self.id.clone(),
            containers: running + paused + stopped,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: stopped,
            images: images.map_or(0, |images| i64::try_from(images.len()).unwrap_or(i64::MAX)),
            driver: "overlay2".into(),
            driver_status: self.storage_status().into(),
            plugins: PluginsInfo {
                volume: strings(&["local"]),
                network: strings(&["bridge", "host", "null"]),
                authorization: List::null(),
                log: strings(&["json-file", "local", "none"]),
            },
            memory_limit: cgroups.memory,
            swap_limit: cgroups.swap,
            cpu_cfs_period: cgroups.cpu_quota,
            cpu_cfs_quota: cgroups.cpu_quota,
            cpu_shares: cgroups.cpu_shares,
            cpu_set: cgroups.cpuset,
            pids_limit: cgroups.pids,
            ipv4_forwarding: host::forwards_ipv4(),
            debug: config.debug,
            n_fd: host::open_files(),
            oom_kill_disable: cgroups.oom_kill_disable,
            n_goroutines: tokio::runtime::Handle::try_current()
                .map_or(0, |runtime| i64::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(i64::MAX)),
            system_time: Timestamp::now().to_string(),
            logging_driver: config.log_config.r#type.clone(),
            cgroup_driver: "cgroupfs".into(),
            cgroup_version: if cgroups.is_v2 { "2" } else { "1" }.into(),
            n_events_listener: i64::try_from(self.events.listeners()).unwrap_or(i64::MAX),
            kernel_version: kernel.release().to_string_lossy().into_owned(),
            operating_system: host::os_release("PRETTY_NAME"),
            os_version: host::os_release("VERSION_ID"),
            os_type: "linux".into(),
            architecture: kernel.machine().to_string_lossy().into_owned(),
            index_server_address: "https://index.docker.io/v1/".into(),
            registry_config: self.registry_config(),
            ncpu: std::thread::available_parallelism()
                .map_or(1, |count| i64::try_from(count.get()).unwrap_or(i64::MAX)),
            mem_total: host::memory_bytes(),
            docker_root_dir: config.data_root.to_string_lossy().into_owned(),
            http_proxy: environment("HTTP_PROXY"),
            https_proxy: environment("HTTPS_PROXY"),
            no_proxy: environment("NO_PROXY"),
            name: kernel.nodename().to_string_lossy().into_owned(),
            labels: config.labels.clone(),
            experimental_build: true,
            server_version: config.version.into(),
            runtimes: runtimes.collect(),
            default_runtime: config.default_runtime.clone(),
            swarm: SwarmInfo { local_node_state: "inactive".into(), ..Default::default() },
            live_restore_enabled: config.live_restore,
            init_binary: "docker-init".into(),
            containerd_commit: commit.clone(),
            runc_commit: commit,
            security_options: strings(match cgroups.is_v2 {
                true => &["name=seccomp,profile=builtin", "name=cgroupns"][..],
                false => &["name=seccomp,profile=builtin"][..],
            }),
            default_address_pools: config
                .network
                .address_pools
                .iter()
                // Only what the administrator has chosen.
                .filter(|_| config.network.address_pools != ::network::Config::new("", "", "").address_pools)
                .map(|(base, size)| AddressPool { base: base.to_string(), size: u32::from(*size) })
                .collect(),
            firewall_backend: config
                .network
                .iptables
                .then(|| FirewallInfo { driver: "nftables".into(), info: List::null() }),
            warnings: self.warnings(&cgroups),
            ..SystemInfo::default()
        }
    }

    fn storage_status(&self) -> Vec<[String; 2]> {
        let pair = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
        vec![
            pair("Backing Filesystem", file_system(&self.config.data_root)),
            pair("Supports d_type", "true"),
            pair("Using metacopy", "false"),
            pair("Native Overlay Diff", "true"),
            pair("userxattr", "false"),
        ]
    }

    fn registry_config(&self) -> RegistryConfig {
        let mirrors = self.config.registry_mirrors.clone();
        let is_network = |registry: &&String| registry.parse::<ipnet::IpNet>().is_ok();
        let own = ["::1/128", "127.0.0.0/8"].map(str::to_owned);
        let insecure = &self.config.insecure_registries;
        let docker =
            IndexInfo { name: "docker.io".into(), mirrors: mirrors.clone().into(), secure: true, official: true };
        let others = insecure.iter().filter(|registry| !is_network(registry)).map(|registry| {
            let index = IndexInfo { name: registry.clone(), mirrors: List::empty(), ..IndexInfo::default() };
            (registry.clone(), index)
        });
        RegistryConfig {
            insecure_registry_cidrs: own.into_iter().chain(insecure.iter().filter(is_network).cloned()).collect(),
            index_configs: others.chain([("docker.io".to_owned(), docker)]).collect(),
            mirrors: if mirrors.is_empty() { List::null() } else { mirrors.into() },
        }
    }

    fn warnings(&self, cgroups: &Cgroups) -> List<String> {
        let mut warnings = self.networks.warnings();
        warnings.extend(self.criu_warning.get().map(|warning| format!("WARNING: {warning}")));
        for (is_there, what) in [
            (cgroups.memory, "memory limit"),
            (cgroups.swap, "swap limit"),
            (cgroups.cpu_quota, "cpu cfs quota"),
            (cgroups.cpu_shares, "cpu shares"),
            (cgroups.cpuset, "cpuset"),
            (cgroups.pids, "pids limit"),
        ] {
            if !is_there {
                warnings.push(format!("WARNING: No {what} support"));
            }
        }
        if !host::forwards_ipv4() {
            warnings.push("WARNING: IPv4 forwarding is disabled".into());
        }
        if warnings.is_empty() { List::null() } else { warnings.into() }
    }
}

/// The kind of file system a directory is on.
fn file_system(path: &std::path::Path) -> &'static str {
    // Magic numbers of `statfs(2)`.
    match rustix::fs::statfs(path).map(|stat| stat.f_type as u64) {
        Ok(0xef53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794c_7630) => "overlayfs",
        Ok(0x2fc1_2fc1) => "zfs",
        _ => "<unknown>",
    }
}
