//! The program itself: its flags, its boot behind the gate, its end. docker-containerd is a stand-in; no network is made.

mod stand_in;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const DOCKERD: &str = env!("CARGO_BIN_EXE_dockerd");

/// A folder with a dockerd of its own.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    /// dockerd with everything in this folder, an external docker-containerd, and no networks.
    fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let pairs = [
            ("--data-root", path("data")),
            ("--exec-root", path("run")),
            ("--pidfile", path("dockerd.pid")),
            ("--containerd", path("containerd.sock")),
            ("--config-file", path("daemon.json")),
            ("--bridge", "none".to_owned()),
        ];
        std::fs::write(self.path("daemon.json"), r#"{"iptables": false, "ip-forward": false}"#).unwrap();
        pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    fn start(&self, host: &str) -> Running {
        let child = Command::new(DOCKERD).args(self.arguments()).args(["-H", host]).stderr(Stdio::null()).spawn();
        Running(child.unwrap())
    }

    /// The stand-in for docker-containerd.
    fn containerd(&self) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "stand_in::stand_in"]).env("STAND_IN_SOCKET", self.path("containerd.sock"));
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its exit status.
    fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status.code().unwrap_or(-1),
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn connect(home: &Home) -> UnixStream {
    let mut stream = None;
    until("it listens", || {
        stream = UnixStream::connect(home.socket()).ok();
        stream.is_some()
    });
    stream.unwrap()
}

fn ping(mut stream: UnixStream) -> String {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn run(arguments: &[&str]) -> Output {
    Command::new(DOCKERD).args(arguments).output().unwrap()
}

#[test]
fn a_client_that_comes_during_boot_waits_and_is_served() {
    let home = Home::new();
    let mut dockerd = home.start(&format!("unix://{}", home.socket().display()));
    let early = connect(&home);
    let client = std::thread::spawn(move || ping(early));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!client.is_finished(), "nothing can be served yet");
    let _containerd = home.containerd();
    let answer = client.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"), "{answer}");

    // A second one on the same data root is refused and disturbs nothing.
    let host = format!("unix://{}", home.path("other.sock").display());
    let pidfile = home.path("other.pid").display().to_string();
    let mut arguments = home.arguments();
    let at = arguments.iter().position(|argument| argument == "--pidfile").unwrap();
    arguments[at + 1] = pidfile;
    let other = Command::new(DOCKERD).args(&arguments).args(["-H", &host]).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("another dockerd uses the data root"), "{said}");
    // The same pid file is as good a reason.
    arguments[at + 1] = home.path("dockerd.pid").display().to_string();
    let data_at = arguments.iter().position(|argument| argument == "--data-root").unwrap();
    arguments[data_at + 1] = home.path("other-data").display().to_string();
    let other = Command::new(DOCKERD).args(&arguments).args(["-H", &host]).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("ensure docker is not running or delete"), "{said}");

    dockerd.signal(Signal::HUP);
    dockerd.signal(Signal::USR1);
    assert!(ping(connect(&home)).ends_with("OK"));
    dockerd.signal(Signal::TERM);
    assert_eq!(dockerd.wait(), 0);
    assert!(!home.socket().exists() && !home.path("dockerd.pid").exists());
}

#[test]
fn a_signal_during_boot_ends_it_well() {
    let home = Home::new();
    let mut dockerd = home.start(&format!("unix://{}", home.socket().display()));
    let waiting = connect(&home);
    dockerd.signal(Signal::INT);
    assert_eq!(dockerd.wait(), 0);
    assert!(!home.socket().exists() && !home.path("dockerd.pid").exists());
    drop(waiting);
}

#[test]
fn a_killed_one_is_no_obstacle() {
    let home = Home::new();
    let _containerd = home.containerd();
    let host = format!("unix://{}", home.socket().display());
    let mut dockerd = home.start(&host);
    assert!(ping(connect(&home)).ends_with("OK"));
    dockerd.signal(Signal::KILL);
    dockerd.wait();
    assert!(home.socket().exists(), "left behind");
    let mut dockerd = home.start(&host);
    assert!(ping(connect(&home)).ends_with("OK"));
    dockerd.signal(Signal::TERM);
    assert_eq!(dockerd.wait(), 0);
}

#[test]
fn systemd_passes_the_socket_and_is_told() {
    let home = Home::new();
    let _containerd = home.containerd();
    let socket = UnixListener::bind(home.socket()).unwrap();
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
    let notified = UnixDatagram::bind(home.path("notify.sock")).unwrap();
    notified.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // LISTEN_PID has to be dockerd's own: the shell that becomes it knows it.
    let script = format!(
        "exec 3<&{}; export LISTEN_PID=$$ LISTEN_FDS=1; exec {DOCKERD} {} -H fd://",
        socket.as_raw_fd(),
        home.arguments().join(" ")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("NOTIFY_SOCKET", home.path("notify.sock")).stderr(Stdio::null());
    let mut dockerd = Running(command.spawn().unwrap());
    let told = || {
        let mut buffer = [0; 256];
        let count = notified.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).trim().to_owned()
    };
    assert_eq!(told(), "READY=1");
    assert!(ping(connect(&home)).ends_with("OK"));
    dockerd.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(dockerd.wait(), 0);
    assert!(home.socket().exists(), "it is systemd's");
}

#[test]
fn flags_that_only_say_something() {
    let home = Home::new();
    let version = run(&["-v"]);
    assert!(version.status.success() && String::from_utf8_lossy(&version.stdout).starts_with("Dormouse version "));
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--live-restore"));
    let file = home.path("daemon.json");
    let file_flag = ["--config-file", file.to_str().unwrap()];
    let validate = |extra: &[&str]| run(&[&["--validate"], &file_flag[..], extra].concat());
    std::fs::write(&file, r#"{"debug": true}"#).unwrap();
    assert_eq!(String::from_utf8_lossy(&validate(&[]).stdout), "configuration OK\n");
    for (text, flag, words) in [
        (r#"{"debug": true}"#, "--debug", "debug: (from flag: true, from file: true)"),
        (r#"{"bugs": true}"#, "--debug", "the following directives don't match any configuration option: bugs"),
        (r#"{"debug": "#, "--icc", "unable to configure the Docker daemon with file"),
        ("{}", "--metrics-addr=:1", "--metrics-addr: not implemented"),
        ("{}", "--bugs", "unknown flag: --bugs"),
        ("{}", "--storage-driver=vfs", "storage driver \"vfs\" is not implemented"),
        ("{}", "--host=udp://x", "unsupported proto 'udp'"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = validate(&[flag]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(words), "{flag} {text}: {said}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(!validate(&[]).status.success());
}
