//! A machine of its own for a test, and how its containers look at each other.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use network::{Config, CreateNetwork, EndpointRequest, Networks, PortPublish, Protocol};

/// An engine of its own.
pub struct Host {
    pub networks: Networks,
    pub config: Config,
    pub dir: tempfile::TempDir,
    pub servers: Vec<Child>,
    pub containers: Vec<String>,
}

impl Host {
    pub async fn new(bridge: &str, third: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path(), dir.path().join("run"), bridge);
        config.bip = Some(format!("10.214.{third}.1/24").parse().unwrap());
        config.address_pools = vec![(format!("10.214.{}.0/24", third + 1).parse().unwrap(), 26)];
        let resolv_conf = dir.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\nsearch example.test\n").unwrap();
        config.host_resolv_conf = resolv_conf;
        let networks = Networks::open(config.clone()).await.unwrap();
        assert!(!networks.warnings().iter().any(|text| text.contains("firewall")), "{:?}", networks.warnings());
        Self { networks, config, dir, servers: Vec::new(), containers: Vec::new() }
    }

    pub async fn container(&mut self, id: &str) -> PathBuf {
        self.containers.push(id.to_owned());
        self.networks.sandbox_create(id).await.unwrap()
    }

    pub async fn joined(&mut self, id: &str, network: &str, request: EndpointRequest) -> network::Endpoint {
        self.container(id).await;
        self.networks.connect(id, network, request).await.unwrap()
    }

    pub fn netns(&self, id: &str) -> PathBuf {
        self.networks.sandbox_path(id)
    }

    /// Serves `text` to whoever connects to a port of a container.
    pub fn serve(&mut self, id: &str, port: u16, text: &str) {
        let script = format!("while :; do echo {text} | busybox nc -l -p {port} >/dev/null; done");
        let mut server = inside(&self.netns(id), &["busybox", "sh", "-c", &script]);
        let child = std::os::unix::process::CommandExt::process_group(&mut server, 0).spawn().unwrap();
        self.servers.push(child);
    }

    pub async fn end(mut self) {
        self.stop_servers();
        for id in std::mem::take(&mut self.containers) {
            self.networks.release_all(&id).await.unwrap();
            assert!(!self.netns(&id).exists());
        }
        self.networks.teardown().await.unwrap();
    }

    pub fn stop_servers(&mut self) {
        for mut server in self.servers.drain(..) {
            let group = nix::unistd::Pid::from_raw(-(server.id() as i32));
            nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL).ok();
            server.kill().ok();
            server.wait().ok();
        }
    }
}

/// Cleans up after a test that failed.
impl Drop for Host {
    fn drop(&mut self) {
        self.stop_servers();
        if self.containers.is_empty() {
            return;
        }
        for id in &self.containers {
            nix::mount::umount2(&self.netns(id), nix::mount::MntFlags::MNT_DETACH).ok();
        }
        for network in self.networks.list().iter().filter(|network| !network.bridge.is_empty()) {
            Command::new("ip").args(["link", "delete", &network.bridge]).output().ok();
        }
        let table = format!("dormouse_{}", self.config.bridge);
        Command::new("nft").args(["delete", "table", "ip", &table]).output().ok();
    }
}

pub fn inside(netns: &Path, command: &[&str]) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", netns.display())).args(command);
    nsenter.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    nsenter
}

pub fn run(netns: &Path, command: &[&str]) -> (bool, String) {
    let output = inside(netns, command).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

pub fn pings(netns: &Path, address: &str) -> bool {
    run(netns, &["busybox", "ping", "-c1", "-W1", address]).0
}

/// What a server says; waits for one that is only just starting.
pub fn fetch(address: SocketAddr) -> Option<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
                return Some(text.trim().to_owned());
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

pub fn fetch_inside(netns: &Path, address: &str, port: u16) -> Option<String> {
    let port = port.to_string();
    for _ in 0..20 {
        let (_, text) = run(netns, &["busybox", "timeout", "2", "busybox", "nc", "-w2", address, &port]);
        if !text.trim().is_empty() && !text.contains("nc:") {
            return Some(text.trim().to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

pub fn named(name: &str) -> EndpointRequest {
    EndpointRequest { container_name: name.to_owned(), ..Default::default() }
}

pub fn publish(host_ip: Option<IpAddr>, host_port: Option<u16>, container_port: u16) -> PortPublish {
    PortPublish { container_port, protocol: Protocol::Tcp, host_ip, host_port: host_port.map(|port| port..=port) }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn user_network(name: &str) -> CreateNetwork {
    CreateNetwork { name: name.to_owned(), ..Default::default() }
}
