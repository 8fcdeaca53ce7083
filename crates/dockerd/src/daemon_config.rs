//! dockerd's settings as the daemon's configuration.

use std::path::PathBuf;

use anyhow::Context as _;
use api::types::{LogConfig, Ulimit};

use crate::options::values::{Pool, Runtime};
use crate::settings::Settings;

/// The default bridge's device.
const DEFAULT_BRIDGE: &str = "docker0";

/// Everything that the daemon is to know.
pub fn of(settings: &Settings) -> anyhow::Result<daemon::Config> {
    Ok(daemon::Config {
        data_root: settings.data_root.clone(),
        exec_root: settings.exec_root.clone(),
        network: network(settings)?,
        insecure_registries: settings.options.insecure_registries.clone(),
        registry_mirrors: settings.registry_mirrors.clone(),
        max_concurrent_downloads: settings.max_concurrent_downloads,
        max_concurrent_uploads: settings.max_concurrent_uploads,
        runtimes: settings.runtimes.iter().map(|(name, value)| (name.clone(), runtime(value))).collect(),
        default_runtime: settings.default_runtime.clone(),
        cgroup_parent: settings.cgroup_parent.clone(),
        log_config: LogConfig { r#type: settings.log_driver.clone(), config: settings.log_opts.clone().into() },
        default_ulimits: settings.options.default_ulimits.iter().map(ulimit).collect(),
        default_shm_size: settings.default_shm_bytes,
        init: settings.init,
        init_path: settings.init_path.clone(),
        live_restore: settings.live_restore,
        shutdown_timeout_seconds: settings.shutdown_timeout_seconds,
        labels: settings.labels.clone(),
        debug: settings.debug,
        version: crate::VERSION,
    })
}

fn runtime(runtime: &Runtime) -> daemon::containerd::Runtime {
    daemon::containerd::Runtime { path: runtime.path.clone(), args: runtime.args.clone() }
}

fn ulimit(ulimit: &crate::options::values::Ulimit) -> Ulimit {
    Ulimit { name: ulimit.name.clone(), soft: ulimit.soft, hard: ulimit.hard }
}

fn network(settings: &Settings) -> anyhow::Result<network::Config> {
    let options = &settings.options;
    let bridge = options.bridge.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_BRIDGE.to_owned());
    let mut config = network::Config::new(settings.data_root.clone(), settings.exec_root.clone(), bridge);
    config.bip = parsed("bip", options.bip.as_deref())?;
    config.fixed_cidr = parsed("fixed-cidr", options.fixed_cidr.as_deref())?;
    if !options.default_address_pools.is_empty() {
        let pool = |pool: &Pool| {
            let base = pool.base.parse().with_context(|| format!("invalid base pool \"{}\"", pool.base))?;
            anyhow::Ok((base, pool.size))
        };
        config.address_pools = options.default_address_pools.iter().map(pool).collect::<Result<_, _>>()?;
    }
    config.mtu = options.mtu.and_then(|mtu| u32::try_from(mtu).ok()).unwrap_or(config.mtu);
    config.ip_forward = options.ip_forward.unwrap_or(config.ip_forward);
    config.ip_masq = options.ip_masq.unwrap_or(config.ip_masq);
    config.iptables = options.iptables.unwrap_or(config.iptables);
    config.userland_proxy = options.userland_proxy.unwrap_or(config.userland_proxy);
    config.icc = options.icc.unwrap_or(config.icc);
    config.default_publish_ip = options.ip.or(config.default_publish_ip);
    config.dns = options.dns.clone();
    config.dns_search = options.dns_search.clone();
    config.dns_options = options.dns_opts.clone();
    config.host_gateway = settings.host_gateway;
    let systemds = PathBuf::from("/run/systemd/resolve/resolv.conf");
    if only_systemds_stub(&config.host_resolv_conf) && systemds.exists() {
        // The stub on loopback cannot be reached from a container.
        config.host_resolv_conf = systemds;
    }
    Ok(config)
}

fn parsed<T: std::str::FromStr>(name: &str, text: Option<&str>) -> anyhow::Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.filter(|text| !text.is_empty())
        .map(|text| text.parse().with_context(|| format!("invalid --{name} \"{text}\"")))
        .transpose()
}

fn only_systemds_stub(path: &std::path::Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim).peekable();
    servers.peek().is_some() && servers.all(|server| server == "127.0.0.53")
}
