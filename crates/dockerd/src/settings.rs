//! Options with their defaults, checked: from here on nothing can be wrong that could have been seen before the start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use listeners::{Address, SocketGroup, TlsFiles};
use tracing::level_filters::LevelFilter;

use crate::logging;
use crate::options::Options;
use crate::options::values::Runtime;
use crate::programs;

/// Our own OCI runtime, and the name of the default.
pub const DEFAULT_RUNTIME: &str = "docker-runc";
/// The reference runtime; its name cannot be given to another.
const STOCK_RUNTIME: &str = "runc";

/// dockerd's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What listens.
    pub listen: Listen,
    /// `--data-root`.
    pub data_root: PathBuf,
    /// `--exec-root`.
    pub exec_root: PathBuf,
    /// `--pidfile`; empty is none.
    pub pidfile: PathBuf,
    /// `--debug`.
    pub debug: bool,
    /// `--log-level`; `--debug` is at least debug.
    pub level: LevelFilter,
    /// `--log-format`.
    pub format: logging::Format,
    /// `--label`, `key=value` each.
    pub labels: Vec<String>,
    /// `--containerd`.
    pub containerd: Option<String>,
    /// `--oom-score-adjust`.
    pub oom_score_adjust: i32,
    /// `--live-restore`.
    pub live_restore: bool,
    /// `--shutdown-timeout`; negative is without end.
    pub shutdown_timeout_seconds: i64,
    /// Runtimes by name, the built-in ones included.
    pub runtimes: BTreeMap<String, Runtime>,
    /// `--default-runtime`, one of them.
    pub default_runtime: String,
    /// `--cgroup-parent`; empty is the runtime's default.
    pub cgroup_parent: String,
    /// `--init`.
    pub init: bool,
    /// `--init-path`.
    pub init_path: Option<PathBuf>,
    /// `--default-shm-size`, bytes.
    pub default_shm_bytes: u64,
    /// `--log-driver`.
    pub log_driver: String,
    /// `--log-opt`.
    pub log_opts: BTreeMap<String, String>,
    /// `--max-concurrent-downloads`.
    pub max_concurrent_downloads: usize,
    /// `--max-concurrent-uploads`.
    pub max_concurrent_uploads: usize,
    /// `--registry-mirror`, without a slash at the end.
    pub registry_mirrors: Vec<String>,
    /// The host's address for `host-gateway`.
    pub host_gateway: Option<IpAddr>,
    /// `PATH` for what is started.
    pub search_path: OsString,
    /// Everything that needs neither a default nor a check here.
    pub options: Options,
}

/// Where the API is served.
#[derive(Debug, Clone)]
pub struct Listen {
    /// At least one.
    pub addresses: Vec<Address>,
    /// Who may use the unix sockets.
    pub group: SocketGroup,
    /// Certificates for TCP.
    pub tls: Option<TlsFiles>,
}

impl Settings {
    /// Checks options.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let search_path = programs::search_path();
        let debug = options.debug.unwrap_or(false);
        let level = logging::level(options.log_level.as_deref().unwrap_or("info"))?;
        let runtimes = runtimes(&options.runtimes, &search_path)?;
        let default_runtime = options.default_runtime.clone().unwrap_or_else(|| DEFAULT_RUNTIME.to_owned());
        if !runtimes.contains_key(&default_runtime) {
            bail!("specified default runtime '{default_runtime}' does not exist");
        }
        check_storage(&options)?;
        check_exec_opts(&options.exec_opts)?;
        check_labels(&options.labels)?;
        check_dns_search(&options.dns_search)?;
        if options.mtu.is_some_and(|mtu| !(0..=65_535).contains(&mtu)) {
            bail!("invalid default MTU: {}", options.mtu.unwrap_or_default());
        }
        let log_driver = options.log_driver.clone().unwrap_or_else(|| "json-file".to_owned());
        let log_opts: BTreeMap<String, String> =
            options.log_opts.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
        logs::validate(&log_driver, &log_opts)?;
        let host_gateway = match options.host_gateway_ips[..] {
            [] => None,
            [address] => Some(address),
            _ => bail!("host-gateway-ip: only one address is supported"),
        };
        Ok(Self {
            listen: Listen::new(&options)?,
            data_root: options.data_root.clone().unwrap_or_else(|| "/var/lib/docker".into()),
            exec_root: options.exec_root.clone().unwrap_or_else(|| "/var/run/docker".into()),
            pidfile: options.pidfile.clone().unwrap_or_else(|| "/var/run/docker.pid".into()),
            debug,
            level: if debug { level.max(LevelFilter::DEBUG) } else { level },
            format: options.log_format.as_deref().unwrap_or("text").parse()?,
            labels: options.labels.clone(),
            containerd: options.containerd.clone().filter(|socket| !socket.is_empty()),
            oom_score_adjust: oom_score(options.oom_score_adjust.unwrap_or(-500))?,
            live_restore: options.live_restore.unwrap_or(false),
            shutdown_timeout_seconds: options.shutdown_timeout.unwrap_or(15),
            runtimes,
            default_runtime,
            cgroup_parent: options.cgroup_parent.clone().unwrap_or_default(),
            init: options.init.unwrap_or(false),
            init_path: options.init_path.clone(),
            default_shm_bytes: options.default_shm_size.map_or(64 << 20, |size| size.0),
            log_driver,
            log_opts,
            max_concurrent_downloads: concurrent("downloads", options.max_concurrent_downloads, 3)?,
            max_concurrent_uploads: concurrent("uploads", options.max_concurrent_uploads, 5)?,
            registry_mirrors: options.registry_mirrors.iter().map(|text| mirror(text)).collect::<Result<_, _>>()?,
            host_gateway,
            search_path,
            options,
        })
    }

    /// A directory as an absolute path: what is started by us may have another working directory.
    pub fn make_absolute(&mut self) -> std::io::Result<()> {
        for path in [&mut self.data_root, &mut self.exec_root] {
            *path = std::path::absolute(&*path)?;
        }
        Ok(())
    }
}

impl Listen {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let tls = tls(options)?;
        let hosts: Vec<&str> = options.hosts.iter().map(|host| host.trim()).filter(|host| !host.is_empty()).collect();
        let hosts = if hosts.is_empty() { vec![""] } else { hosts };
        let addresses = hosts.into_iter().map(|host| Address::parse(host, tls.is_some())).collect::<Result<_, _>>()?;
        Ok(Self { addresses, group: SocketGroup::dockers(options.group.as_deref().unwrap_or("docker")), tls })
    }
}

/// `--tlsverify`, true or false, is TLS; TLS without a word about it is with it.
fn tls(options: &Options) -> anyhow::Result<Option<TlsFiles>> {
    let variable_says_verify = std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
    let verify_given = options.tlsverify.or(variable_says_verify.then_some(true));
    if verify_given.is_none() && !options.tls.unwrap_or(false) {
        return Ok(None);
    }
    let directory = ["DOCKER_CERT_PATH", "DOCKER_CONFIG"].into_iter().find_map(std::env::var_os).map(PathBuf::from);
    let directory = directory
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))
        .unwrap_or_else(|| "/root/.docker".into());
    let file = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| directory.join(name));
    let files = TlsFiles {
        certificate: file(&options.tlscert, "cert.pem"),
        key: file(&options.tlskey, "key.pem"),
        client_ca: verify_given.unwrap_or(true).then(|| file(&options.tlscacert, "ca.pem")),
    };
    listeners::acceptor(&files).map(|_| Some(files)).context("invalid TLS configuration")
}

fn runtimes(given: &[Runtime], search_path: &std::ffi::OsStr) -> anyhow::Result<BTreeMap<String, Runtime>> {
    let found = |name: &str| programs::find(name, search_path).map(|path| path.to_string_lossy().into_owned());
    let ours = found(DEFAULT_RUNTIME);
    let stock = found(STOCK_RUNTIME);
    let default_path = ours.clone().or(stock.clone()).unwrap_or_else(|| DEFAULT_RUNTIME.to_owned());
    let stock_path = stock.or(ours).unwrap_or_else(|| STOCK_RUNTIME.to_owned());
    let built_in =
        [(DEFAULT_RUNTIME, default_path.clone()), (STOCK_RUNTIME, stock_path), ("io.containerd.runc.v2", default_path)];
    let mut runtimes = BTreeMap::new();
    for (name, path) in built_in {
        runtimes.insert(name.to_owned(), Runtime { name: name.to_owned(), path, args: Vec::new() });
    }
    for runtime in given {
        if runtimes.contains_key(&runtime.name) {
            bail!("runtime name '{}' is reserved or given twice", runtime.name);
        }
        let path = found(&runtime.path).unwrap_or_else(|| runtime.path.clone());
        runtimes.insert(runtime.name.clone(), Runtime { path, ..runtime.clone() });
    }
    Ok(runtimes)
}

fn check_storage(options: &Options) -> anyhow::Result<()> {
    match options.storage_driver.as_deref().unwrap_or_default() {
        "" | "overlay2" => Ok(()),
        other => bail!("storage driver \"{other}\" is not implemented: there is overlay2"),
    }
}

fn check_exec_opts(exec_opts: &[String]) -> anyhow::Result<()> {
    for option in exec_opts {
        match option.split_once('=').map(|(key, value)| (key.trim().to_lowercase(), value.trim())) {
            Some((key, "cgroupfs" | "")) if key == "native.cgroupdriver" => {}
            Some((key, "systemd")) if key == "native.cgroupdriver" => {
                bail!("exec-opt native.cgroupdriver=systemd is not implemented: there is cgroupfs");
            }
            Some((key, value)) if key == "native.cgroupdriver" => {
                bail!("exec-opt has invalid value for native.cgroupdriver: {value}, use \"cgroupfs\"");
            }
            Some((key, _)) => bail!("invalid exec-opt ({option}): unknown option: '{key}'"),
            None => bail!("invalid exec-opt ({option}): must be formatted 'opt=value'"),
        }
    }
    Ok(())
}

fn check_labels(labels: &[String]) -> anyhow::Result<()> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for label in labels {
        let (key, value) = label.split_once('=').ok_or_else(|| anyhow!("bad attribute format: {label}"))?;
        if let Some(before) = seen.insert(key, value).filter(|before| *before != value) {
            bail!("conflict labels for {key}={value} and {key}={before}");
        }
    }
    Ok(())
}

fn check_dns_search(domains: &[String]) -> anyhow::Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match domains.iter().map(|domain| domain.trim()).find(|d| *d != "." && (d.is_empty() || !d.chars().all(allowed))) {
        Some(domain) => bail!("invalid DNS search domain: {domain}"),
        None => Ok(()),
    }
}

fn concurrent(what: &str, given: Option<i64>, default: usize) -> anyhow::Result<usize> {
    match given {
        None | Some(0) => Ok(default),
        Some(count) => usize::try_from(count).map_err(|_| anyhow!("invalid max concurrent {what}: {count}")),
    }
}

fn oom_score(score: i32) -> anyhow::Result<i32> {
    if !(-1000..=1000).contains(&score) {
        bail!("invalid oom-score-adjust: {score} (from -1000 to 1000)");
    }
    Ok(score)
}

/// `http(s)://host[:port]/`, nothing behind it.
fn mirror(text: &str) -> anyhow::Result<String> {
    let invalid = |why: &str| anyhow!("invalid mirror: {why}: \"{text}\"");
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.ok_or_else(|| invalid("no scheme specified, must use either 'https://' or 'http://'"))?;
    if host.trim_end_matches('/').is_empty() {
        return Err(invalid("no host specified"));
    }
    if host.contains(['?', '#']) {
        return Err(invalid("query or fragment at end of the URI"));
    }
    if host.contains('@') {
        return Err(invalid("username/password not allowed in URI"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::file::merge_text;

    fn settings(json: &str) -> anyhow::Result<Settings> {
        Settings::new(merge_text(&Options::default(), json)?)
    }

    #[test]
    fn defaults() {
        let settings = settings("{}").unwrap();
        assert_eq!(settings.listen.addresses, [Address::Unix("/var/run/docker.sock".into())]);
        assert_eq!((settings.log_driver.as_str(), settings.default_shm_bytes), ("json-file", 64 << 20));
        assert_eq!(settings.default_runtime, DEFAULT_RUNTIME);
        let names: Vec<&str> = settings.runtimes.keys().map(String::as_str).collect();
        assert_eq!(names, ["docker-runc", "io.containerd.runc.v2", "runc"]);
        assert_eq!((settings.max_concurrent_downloads, settings.max_concurrent_uploads), (3, 5));
        assert_eq!(settings.level, LevelFilter::INFO);
    }

    #[test]
    fn debug_is_a_level() {
        assert_eq!(settings(r#"{"debug": true}"#).unwrap().level, LevelFilter::DEBUG);
        assert_eq!(settings(r#"{"debug": true, "log-level": "trace"}"#).unwrap().level, LevelFilter::TRACE);
    }

    #[test]
    fn what_is_refused_says_why() {
        for (json, words) in [
            (r#"{"storage-driver": "vfs"}"#, "storage driver \"vfs\" is not implemented"),
            (r#"{"exec-opts": ["native.cgroupdriver=systemd"]}"#, "native.cgroupdriver=systemd is not implemented"),
            (r#"{"exec-opts": ["x=y"]}"#, "unknown option: 'x'"),
            (r#"{"labels": ["x"]}"#, "bad attribute format: x"),
            (r#"{"labels": ["x=1", "x=2"]}"#, "conflict labels for x=2 and x=1"),
            (r#"{"hosts": ["udp://x"]}"#, "unsupported proto 'udp'"),
            (r#"{"default-runtime": "crun"}"#, "specified default runtime 'crun' does not exist"),
            (r#"{"runtimes": {"runc": {"path": "/x"}}}"#, "runtime name 'runc' is reserved"),
            (r#"{"log-driver": "x"}"#, "error looking up logging plugin x"),
            (r#"{"log-opts": {"x": "y"}}"#, "unknown log opt 'x' for json-file log driver"),
            (r#"{"log-level": "x"}"#, "invalid logging level: x"),
            (r#"{"mtu": -1}"#, "invalid default MTU: -1"),
            (r#"{"max-concurrent-downloads": -1}"#, "invalid max concurrent downloads: -1"),
            (r#"{"registry-mirrors": ["x"]}"#, "invalid mirror: no scheme specified"),
            (r#"{"oom-score-adjust": 2000}"#, "invalid oom-score-adjust"),
            (r#"{"tls": true, "tlscert": "/nonexistent", "tlscacert": "/nonexistent"}"#, "/nonexistent"),
        ] {
            let error = format!("{:#}", settings(json).unwrap_err());
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
