//! A shim of one's own: state directory, bundle, the real binary, the real runtime, and a client that never waits long.
#![allow(dead_code, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Io};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode};
use serde_json::{Value, json};
use shim::protocol::{self, Call, Exit, Failure, Message, Reply, Request, Stdio};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Fixture {
    pub base: tempfile::TempDir,
    pub id: String,
    pub runtime: String,
    pub runtime_args: Vec<String>,
    pub shim: Option<Child>,
}

impl Fixture {
    pub fn new(args: &[&str]) -> Self {
        let base = tempfile::Builder::new().prefix("shim-test-").tempdir_in("/var/tmp").unwrap();
        let number = base.path().file_name().unwrap().to_string_lossy().replace("shim-test-", "");
        // As long as a real container's name.
        let id = format!("{:x<64}", format!("shimtest-{number}-"));
        let root = base.path().join("runc").display().to_string();
        let fixture = Self {
            id,
            runtime: std::env::var("SHIM_TEST_RUNTIME").unwrap_or("runc".into()),
            runtime_args: vec!["--root".into(), root],
            shim: None,
            base,
        };
        fs::create_dir_all(fixture.dir().join("init")).unwrap();
        let bundle = fixture.bundle();
        fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
        for place in ["proc", "dev", "sys", "tmp", "etc"] {
            fs::create_dir_all(bundle.join("rootfs").join(place)).unwrap();
        }
        fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox")).unwrap();
        for name in ["sh", "cat", "sleep", "stty", "echo", "dd", "head", "wc", "true", "false", "kill", "tr", "md5sum"]
        {
            std::os::unix::fs::symlink("busybox", bundle.join("rootfs/bin").join(name)).unwrap();
        }
        let written = Command::new("runc").arg("spec").current_dir(&bundle).status().unwrap();
        assert!(written.success());
        fixture.edit_config(|config| {
            config["process"]["args"] = json!(args);
            config["process"]["terminal"] = json!(false);
            config["process"].as_object_mut().unwrap().remove("rlimits");
            config["root"]["readonly"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(format!("/shim-test/{number}"));
        });
        fixture
    }

    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut config);
        fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    }

    /// A script in place of the runtime; it sees the same command line.
    pub fn fake_runtime(&mut self, script: &str) {
        let path = self.base.path().join("runtime.sh");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        self.runtime = path.display().to_string();
    }

    pub fn dir(&self) -> PathBuf {
        self.base.path().join("state").join(&self.id)
    }

    pub fn bundle(&self) -> PathBuf {
        self.base.path().join("bundle")
    }

    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.bundle().join(name);
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o700), 0).unwrap();
        path
    }

    /// Starts the shim and waits until it says that it listens.
    pub fn start_shim(&mut self) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_docker-containerd-shim"));
        command.arg(&self.id).arg(self.bundle()).arg(&self.runtime).current_dir(self.dir());
        command.env(protocol::RUNTIME_ARGS_ENV, serde_json::to_string(&self.runtime_args).unwrap());
        command.stdin(Io::null()).stdout(Io::null()).stderr(Io::null());
        // SAFETY: dup2 is async-signal-safe.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                std::mem::forget(nix::unistd::dup3_raw(&write, protocol::READY_FD, nix::fcntl::OFlag::empty())?);
                Ok(())
            });
        }
        self.shim = Some(command.spawn().unwrap());
        drop(command);
        let mut byte = [0_u8; 1];
        File::from(read).read_exact(&mut byte).expect("the shim says that it is ready");
    }

    pub fn connect(&self) -> Client {
        Client { socket: protocol::connect(&self.dir()).unwrap(), seq: 0, exits: Vec::new(), answers: Vec::new() }
    }

    pub fn begin(args: &[&str]) -> (Self, Client) {
        let mut fixture = Self::new(args);
        fixture.start_shim();
        let client = fixture.connect();
        (fixture, client)
    }

    pub fn write_exec(&self, name: &str, args: &[&str], terminal: bool) {
        let dir = self.dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let process = json!({
            "terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
            "env": ["PATH=/bin"], "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        });
        fs::write(dir.join("process.json"), process.to_string()).unwrap();
    }

    pub fn exit_status(&self, process: &str) -> Option<String> {
        fs::read_to_string(self.dir().join(process).join("exitStatus")).ok()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("shim-log.json")).unwrap_or_default()
    }

    pub fn wait_for_shim(&mut self) -> i32 {
        let mut shim = self.shim.take().unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = shim.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "the shim does not end; its log: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(mut shim) = self.shim.take() {
            let _ = Command::new(&self.runtime).args(&self.runtime_args).args(["delete", "--force", &self.id]).output();
            let _ = shim.kill();
            let _ = shim.wait();
        }
        // Whoever is last takes the parent of all tests' control groups away.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let parent = hierarchy.path().join("shim-test");
            let number = self.id.trim_start_matches("shimtest-").trim_end_matches('x').trim_end_matches('-');
            let _ = fs::remove_dir(parent.join(number));
            let _ = fs::remove_dir(parent);
        }
    }
}

pub struct Client {
    socket: OwnedFd,
    seq: u64,
    pub exits: Vec<Exit>,
    answers: Vec<(u64, Result<Reply, Failure>)>,
}

impl Client {
    pub fn send(&mut self, call: Call) -> u64 {
        self.seq += 1;
        let packet = serde_json::to_vec(&Request { seq: self.seq, call }).unwrap();
        self.send_raw(&packet);
        self.seq
    }

    pub fn send_raw(&mut self, packet: &[u8]) {
        rustix::net::send(&self.socket, packet, rustix::net::SendFlags::NOSIGNAL).unwrap();
    }

    pub fn ask(&mut self, call: Call) -> Result<Reply, Failure> {
        let seq = self.send(call);
        self.answer(seq)
    }

    pub fn answer(&mut self, seq: u64) -> Result<Reply, Failure> {
        loop {
            if let Some(at) = self.answers.iter().position(|(number, _)| *number == seq) {
                return self.answers.remove(at).1;
            }
            assert!(self.receive(PATIENCE), "no answer to {seq}");
        }
    }

    pub fn has_answer(&mut self, seq: u64, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        while !self.answers.iter().any(|(number, _)| *number == seq) && Instant::now() < end {
            if !self.receive(end.saturating_duration_since(Instant::now())) {
                break;
            }
        }
        self.answers.iter().any(|(number, _)| *number == seq)
    }

    pub fn exit(&mut self, process: &str) -> Exit {
        loop {
            if let Some(exit) = self.exits.iter().find(|exit| exit.process == process) {
                return exit.clone();
            }
            assert!(self.receive(PATIENCE), "no exit of {process}");
        }
    }

    /// Takes one message; false when none came in time or the shim has gone.
    pub fn receive(&mut self, wait: Duration) -> bool {
        if !readable(self.socket.as_fd(), wait) {
            return false;
        }
        let mut packet = vec![0; protocol::MAX_MESSAGE];
        let (count, _) = rustix::net::recv(&self.socket, &mut packet[..], rustix::net::RecvFlags::empty()).unwrap();
        if count == 0 {
            return false;
        }
        match protocol::parse_message(&packet[..count]).unwrap() {
            Message::Answer { seq, result } => self.answers.push((seq, result)),
            Message::Exit(exit) => self.exits.push(exit),
        }
        true
    }

    pub fn create(&mut self, stdio: Stdio) -> i32 {
        match self.ask(Call::Create { stdio, no_pivot: false, restore: None }) {
            Ok(Reply::Pid { pid }) => pid,
            other => panic!("create: {other:?}"),
        }
    }

    pub fn create_and_start(&mut self, stdio: Stdio) -> i32 {
        let pid = self.create(stdio);
        assert!(matches!(self.ask(Call::Start), Ok(Reply::Done)));
        pid
    }

    pub fn exec(&mut self, process: &str, stdio: Stdio) -> i32 {
        match self.ask(Call::Exec { process: process.into(), stdio }) {
            Ok(Reply::Pid { pid }) => pid,
            other => panic!("exec: {other:?}"),
        }
    }
}

pub fn readable(fd: std::os::fd::BorrowedFd<'_>, wait: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
}

/// Opens a FIFO for reading without waiting for a writer.
pub fn reader(path: &Path) -> File {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty()).unwrap();
    file
}

/// Reads to the end, but not for ever.
pub fn read_to_end(mut file: File) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0_u8; 65536];
    loop {
        assert!(readable(file.as_fd(), PATIENCE), "no end of file after {} bytes", all.len());
        match file.read(&mut buffer).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Reads until `wanted` has come.
pub fn read_until(file: &mut File, wanted: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0_u8; 4096];
    while !String::from_utf8_lossy(&all).contains(wanted) {
        assert!(readable(file.as_fd(), PATIENCE), "no {wanted:?} in {:?}", String::from_utf8_lossy(&all));
        match file.read(&mut buffer).unwrap() {
            0 => panic!("ended without {wanted:?}: {:?}", String::from_utf8_lossy(&all)),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
