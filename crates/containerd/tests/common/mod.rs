//! A docker-containerd of its own for a test: own folder, own runtime root, own control groups, real programs below.
#![allow(dead_code, missing_docs)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use containerd_api::types::api_client::ApiClient;
use containerd_api::types::{self, CreateContainerRequest, Event, EventsRequest};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

pub type Client = ApiClient<Channel>;

/// How long anything may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The OCI runtime below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oci {
    Runc,
    /// Refuses hybrid hosts, so it gets a mount namespace without the v2 mount.
    Crun,
    /// This project's own.
    DockerRunc,
}

impl Oci {
    /// The one that `DORMOUSE_RUNTIME` names (`runc`, `docker-runc`).
    pub fn asked_for() -> Oci {
        match std::env::var("DORMOUSE_RUNTIME").as_deref() {
            Err(_) | Ok("runc") => Oci::Runc,
            Ok("docker-runc") => Oci::DockerRunc,
            Ok(other) => panic!("no runtime {other}"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Oci::Runc => "runc",
            Oci::Crun => "crun",
            Oci::DockerRunc => "docker-runc",
        }
    }

    /// Where it is; this project's own is built beside docker-containerd.
    fn program(self) -> PathBuf {
        match self {
            Oci::DockerRunc => program().with_file_name(self.name()),
            Oci::Runc | Oci::Crun => self.name().into(),
        }
    }

    /// Whether it is there; false for our own only, when this crate is tested by itself.
    pub fn exists(self) -> bool {
        self != Oci::DockerRunc || self.program().exists()
    }
}

pub struct Daemon {
    pub oci: Oci,
    apart: bool,
    pub dir: PathBuf,
    child: Option<Child>,
    pub client: Client,
    flags: Vec<String>,
    keep: bool,
}

/// Runs tests that are functions of the runtime with each of the two that everybody has.
#[macro_export]
macro_rules! with_each_runtime {
    ($($test:ident),* $(,)?) => {
        mod with_runc {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Oci::Runc).await;
            })*
        }
        mod with_crun {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Oci::Crun).await;
            })*
        }
    };
}

/// docker-containerd, with the other programs beside it: as built for this test, or from the folder in `DORMOUSE_PROGRAMS`.
pub fn program() -> PathBuf {
    match std::env::var_os("DORMOUSE_PROGRAMS") {
        Some(dir) => Path::new(&dir).join("docker-containerd"),
        None => env!("CARGO_BIN_EXE_docker-containerd").into(),
    }
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Daemon {
    pub async fn start(oci: Oci) -> Daemon {
        Daemon::start_with(oci, &[]).await
    }

    /// With a mount namespace of its own.
    pub async fn start_apart(oci: Oci) -> Daemon {
        Daemon::start_in(oci, true, &[]).await
    }

    pub async fn start_with(oci: Oci, flags: &[&str]) -> Daemon {
        // The v2 mount has to be taken away for it.
        Daemon::start_in(oci, oci == Oci::Crun, flags).await
    }

    async fn start_in(oci: Oci, apart: bool, flags: &[&str]) -> Daemon {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/var/tmp/dmcd-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("root")).unwrap();
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        make_rootfs(&dir.join("root"));
        let child = spawn(oci, apart, &dir, &flags);
        let client = connect(&dir).await;
        Daemon { oci, apart, dir, child: Some(child), client, flags, keep: false }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        signal(child.id(), "TERM");
        child.wait().unwrap().code()
    }

    /// Starts the daemon again on the same state.
    pub async fn again(&mut self) {
        assert!(self.child.is_none());
        self.child = Some(spawn(self.oci, self.apart, &self.dir, &self.flags));
        self.client = connect(&self.dir).await;
    }

    pub fn runtime_root(&self) -> String {
        self.dir.join("runtime").to_string_lossy().into_owned()
    }

    /// A bundle that runs `args`.
    pub fn bundle(&self, name: &str, args: &[&str]) -> PathBuf {
        self.bundle_with(name, args, |_| {})
    }

    pub fn bundle_with(&self, name: &str, args: &[&str], adjust: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.dir.join("bundles").join(name);
        fs::create_dir_all(&bundle).unwrap();
        let mut spec = default_spec().clone();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = args.into();
        spec["root"]["path"] = self.dir.join("root").to_string_lossy().into();
        spec["root"]["readonly"] = false.into();
        spec["linux"]["cgroupsPath"] = format!("{}/{name}", self.cgroup()).into();
        adjust(&mut spec);
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    pub fn cgroup(&self) -> String {
        format!("/{}", self.dir.file_name().unwrap().to_string_lossy())
    }

    pub fn request(&self, id: &str, bundle: &Path) -> CreateContainerRequest {
        CreateContainerRequest {
            id: id.to_owned(),
            bundle_path: bundle.to_string_lossy().into_owned(),
            ..Default::default()
        }
    }

    /// A script in the place of a runtime; gives its path.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Starts a container that runs `args`, with its output in a file.
    pub async fn run(&self, id: &str, args: &[&str]) -> types::Container {
        let request = self.request_with_output(id, &self.bundle(id, args));
        self.create(request).await.unwrap_or_else(|status| panic!("{status:?}\n{}", self.log()))
    }

    pub fn request_with_output(&self, id: &str, bundle: &Path) -> CreateContainerRequest {
        let output = self.output_path(id);
        fs::write(&output, "").unwrap();
        let output = output.to_string_lossy().into_owned();
        CreateContainerRequest { stdout: output.clone(), stderr: output, ..self.request(id, bundle) }
    }

    pub async fn create(&self, request: CreateContainerRequest) -> Result<types::Container, Status> {
        let response = self.client.clone().create_container(request).await?.into_inner();
        Ok(response.container.unwrap())
    }

    pub fn output_path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.out"))
    }

    pub fn output(&self, id: &str) -> String {
        fs::read_to_string(self.output_path(id)).unwrap_or_default()
    }

    pub async fn wait_output(&self, id: &str, wanted: &str) {
        wait(&format!("{wanted:?} in the output of {id}"), || self.output(id).contains(wanted)).await;
    }

    pub async fn signal(&self, id: &str, pid: &str, signal: u32) -> Result<(), Status> {
        let request = types::SignalRequest { id: id.into(), pid: pid.into(), signal };
        self.client.clone().signal(request).await.map(drop)
    }

    pub async fn state(&self, id: &str) -> Result<Vec<types::Container>, Status> {
        let request = types::StateRequest { id: id.into() };
        Ok(self.client.clone().state(request).await?.into_inner().containers)
    }

    pub async fn exec(&self, id: &str, pid: &str, args: &[&str]) -> Result<u32, Status> {
        let request = types::AddProcessRequest {
            id: id.into(),
            pid: pid.into(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: Some(types::User::default()),
            ..Default::default()
        };
        Ok(self.client.clone().add_process(request).await?.into_inner().system_pid)
    }

    pub async fn update_status(&self, id: &str, status: &str) -> Result<(), Status> {
        let request =
            types::UpdateContainerRequest { id: id.into(), pid: "init".into(), status: status.into(), resources: None };
        self.client.clone().update_container(request).await.map(drop)
    }

    /// Every stored event, in short: `type id pid status`.
    pub async fn stored(&self) -> Vec<String> {
        let epoch = prost_types::Timestamp { seconds: 1, nanos: 0 };
        let request = EventsRequest { timestamp: Some(epoch), stored_only: true, id: String::new() };
        let mut stream = self.client.clone().events(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await.unwrap() {
            events.push(short(&event));
        }
        events
    }

    pub async fn events_of(&self, id: &str) -> Vec<String> {
        self.stored().await.into_iter().filter(|e| e.split(' ').nth(1) == Some(id)).collect()
    }

    /// Waits until a stored event reads like this.
    pub async fn wait_event(&self, wanted: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let events = self.stored().await;
            if events.iter().any(|event| event == wanted) {
                return;
            }
            assert!(Instant::now() < end, "no event {wanted:?} among {events:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nothing of this daemon's is left: no state, no process, no control group.
    pub async fn assert_clean(&self) {
        let state = self.state_dir();
        wait("an empty state directory", || entries(&state).iter().all(|name| name == "events.log")).await;
        let marker = self.dir.to_string_lossy().into_owned();
        wait("the end of all shims", || shims_of(&marker).is_empty()).await;
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
    }

    /// The control groups of this daemon's containers.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
            let parent = Path::new("/sys/fs/cgroup").join(hierarchy).join(self.cgroup().trim_start_matches('/'));
            for name in entries(&parent) {
                if parent.join(&name).is_dir() {
                    found.push(parent.join(name));
                }
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}", self.log());
        }
        self.kill();
        for pid in shims_of(&self.dir.to_string_lossy()) {
            signal(pid, "KILL");
        }
        for group in self.cgroups() {
            for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Ok(pid) = pid.parse() {
                    signal(pid, "KILL");
                }
            }
            let freezer = group.join("freezer.state");
            if freezer.exists() {
                let _ = fs::write(freezer, "THAWED");
            }
        }
        std::thread::sleep(Duration::from_millis(50));
        for group in self.cgroups() {
            let _ = fs::remove_dir(group);
        }
        for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
            let parent = Path::new("/sys/fs/cgroup").join(hierarchy).join(self.cgroup().trim_start_matches('/'));
            let _ = fs::remove_dir(parent);
        }
        if !self.keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn spawn(oci: Oci, apart: bool, dir: &Path, flags: &[String]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let program = program();
    let mut command = Command::new(if apart { "unshare".as_ref() } else { program.as_path() });
    if apart {
        let umount = if oci == Oci::Crun { "umount /sys/fs/cgroup/unified 2>/dev/null;" } else { "" };
        command.args(["--mount", "sh", "-c", &format!("{umount} exec \"$0\" \"$@\"")]).arg(&program);
    }
    command
        .arg("-l")
        .arg(format!("unix://{}", dir.join("containerd.sock").display()))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--shim")
        .arg(shim_program())
        .arg("--runtime")
        .arg(oci.program())
        .args(["--runtime-args", "--root", "--runtime-args"])
        .arg(dir.join("runtime"))
        .args(["--debug", "--metrics-interval=0"])
        .args(flags)
        .env("PATH", path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command.spawn().unwrap()
}

/// The `PATH`, with the CRIU that was installed for this project in front.
pub fn path() -> String {
    format!("/opt/dormouse/criu/bin:{}", std::env::var("PATH").unwrap_or_default())
}

pub async fn connect(dir: &Path) -> Client {
    let end = Instant::now() + PATIENCE;
    loop {
        match containerd_api::connect(&dir.join("containerd.sock")).await {
            Ok(channel) => return ApiClient::new(channel),
            Err(error) if Instant::now() > end => {
                panic!("{error}\n{}", fs::read_to_string(dir.join("log")).unwrap_or_default())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn shim_program() -> PathBuf {
    let beside = program().with_file_name("docker-containerd-shim");
    assert!(beside.exists(), "{} is missing: cargo build -p shim", beside.display());
    beside
}

fn make_rootfs(root: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in
        ["sh", "cat", "sleep", "echo", "true", "false", "kill", "stty", "dd", "tail", "id", "env", "pwd", "head"]
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// What `runc spec` writes, once.
fn default_spec() -> &'static Value {
    static SPEC: OnceLock<Value> = OnceLock::new();
    SPEC.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("runc").arg("spec").arg("-b").arg(dir.path()).status().unwrap();
        assert!(status.success());
        let mut spec: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        spec["process"]["env"] = json!(["PATH=/bin"]);
        // Nobody here may raise it.
        spec["process"]["rlimits"] = json!([]);
        spec
    })
}

pub fn short(event: &Event) -> String {
    format!("{} {} {} {}", event.r#type, event.id, event.pid, event.status)
}

pub fn assert_status<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, message: &str) {
    match result {
        Ok(value) => panic!("no error but {value:?}; expected {code:?} {message:?}"),
        Err(status) => assert_eq!((status.code(), status.message()), (code, message)),
    }
}

pub async fn wait(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The shims whose working directory is `dir` or below.
pub fn shims_of(dir: &str) -> Vec<u32> {
    let pids = entries(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<u32>().ok());
    pids.filter(|pid| {
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        cwd.starts_with(dir) && comm.starts_with("docker-contain") && cwd.components().any(|c| c.as_os_str() == "state")
    })
    .collect()
}

pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null()).status();
}

pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

pub fn mkfifo(path: &Path) -> String {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o700)).unwrap();
    path.to_string_lossy().into_owned()
}

/// The literal strings of a header block, decoded where they are compressed.
pub fn hpack_strings(block: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    // Every suffix is tried: whatever is a string somewhere in the block is among them.
    for at in 0..block.len() {
        let (length, compressed) = (usize::from(block[at] & 0x7f), block[at] & 0x80 != 0);
        let Some(bytes) = block.get(at + 1..at + 1 + length) else { continue };
        let mut text = Vec::new();
        if !compressed {
            text = bytes.to_vec();
        } else if httlib_huffman::decode(bytes, &mut text, httlib_huffman::DecoderSpeed::FourBits).is_err() {
            continue;
        }
        found.extend(String::from_utf8(text));
    }
    found
}

/// Reads a FIFO to its end, from now on.
pub fn read_fifo(path: &str) -> std::thread::JoinHandle<String> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        let mut text = String::new();
        fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    })
}

/// A port of the loopback address that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Everything that a debug address answers.
pub fn get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Finding symbols in a program with debug information takes its time.
    stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
