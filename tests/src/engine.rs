//! An engine of the test's own: dockerd and what it starts, from boot to a clean end.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{self, Done, wait_within};
use crate::http::{self, Answer};
use crate::image::busybox_tar;
use crate::programs;
use crate::pty::Terminal;
use crate::sandbox::Sandbox;
use crate::wait::{eventually, eventually_seen, eventually_within};

/// No command of a test may take longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const BOOT_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How an engine is to be started.
#[derive(Default)]
pub struct Builder {
    args: Vec<String>,
    environment: Vec<(String, String)>,
    without_image: bool,
}

impl Builder {
    /// Sets a variable of dockerd's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds flags for dockerd, as one would type them; `{home}` stands for the engine's folder.
    #[must_use]
    pub fn flags(mut self, flags: &str) -> Self {
        self.args.extend(flags.split_whitespace().map(str::to_owned));
        self
    }

    /// Leaves the engine without an image.
    #[must_use]
    pub fn without_image(mut self) -> Self {
        self.without_image = true;
        self
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Engine {
        let engine = self.prepare();
        engine.boot();
        engine.provide_image();
        engine
    }

    /// Makes the place, but starts nothing yet.
    pub fn prepare(self) -> Engine {
        let sandbox = Sandbox::take();
        fs::create_dir(sandbox.home().join("config")).expect("create a folder");
        let args = self.args.iter().map(|arg| arg.replace("{home}", &sandbox.home().to_string_lossy())).collect();
        let image = !self.without_image;
        Engine { args, environment: self.environment, image, dockerd: Mutex::new(None), sandbox }
    }
}

/// An engine. Dropping it takes everything away.
pub struct Engine {
    args: Vec<String>,
    environment: Vec<(String, String)>,
    image: bool,
    dockerd: Mutex<Option<Child>>,
    pub(crate) sandbox: Sandbox,
}

impl Engine {
    /// An engine with the defaults and the image `busybox`.
    #[track_caller]
    pub fn start() -> Self {
        Builder::default().start()
    }

    /// An engine with other flags.
    pub fn with() -> Builder {
        Builder::default()
    }

    // --- where things are

    /// The engine's folder. Tests may put files there.
    pub fn home(&self) -> &Path {
        self.sandbox.home()
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.home().join("docker.sock")
    }

    /// `--data-root`.
    pub fn data_root(&self) -> PathBuf {
        self.home().join("data")
    }

    /// `--exec-root`.
    pub fn exec_root(&self) -> PathBuf {
        self.home().join("run")
    }

    /// What all addresses on the default bridge begin with.
    pub fn bridge_prefix(&self) -> String {
        self.sandbox.bridge_prefix()
    }

    /// The default bridge's name.
    pub fn bridge(&self) -> String {
        self.sandbox.bridge()
    }

    // --- its life

    /// Starts dockerd without waiting for it.
    #[track_caller]
    pub fn boot_without_waiting(&self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("open the engine's log");
        let mut command = Command::new(programs::directory().join("dockerd"));
        command
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.home().join("dockerd.pid"))
            .args(["--bridge", &self.sandbox.bridge(), "--bip", &self.sandbox.bridge_cidr()])
            .args(["--default-address-pool", &self.sandbox.pool()])
            .args(&self.args)
            .envs(self.environment.iter().cloned())
            .env("PATH", programs::search_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate a descriptor"))
            .stderr(log);
        let child = command.spawn().expect("start dockerd");
        let before = self.dockerd.lock().expect("no holder panics").replace(child);
        assert!(before.is_none(), "dockerd runs already");
    }

    /// Starts dockerd and waits until it answers.
    #[track_caller]
    pub fn boot(&self) {
        self.boot_without_waiting();
        eventually_within(BOOT_LIMIT, "dockerd binds its socket", || {
            self.assert_alive();
            self.socket().exists().then_some(())
        });
        // Connections may be refused until it is ready: that they are not has a case of its own.
        eventually_within(BOOT_LIMIT, "dockerd answers", || {
            self.assert_alive();
            http::try_request(&self.socket(), "GET", "/_ping", &[], b"").ok().filter(|answer| answer.status == 200)
        });
    }

    /// Imports `busybox`, unless the engine is to be without.
    pub fn provide_image(&self) {
        if self.image {
            self.ok(&format!(
                "docker import -c 'CMD [\"sh\"]' -c 'ENV PATH={}' {} busybox",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                busybox_tar().display()
            ));
        }
    }

    #[track_caller]
    fn assert_alive(&self) {
        if let Some(child) = self.dockerd.lock().expect("no holder panics").as_mut()
            && let Ok(Some(status)) = child.try_wait()
        {
            panic!("dockerd ended by itself: {status}\n{}", self.log_tail());
        }
    }

    /// The pid of dockerd.
    pub fn dockerd_pid(&self) -> Pid {
        let guard = self.dockerd.lock().expect("no holder panics");
        Pid::from_raw(guard.as_ref().expect("dockerd runs").id() as i32)
    }

    /// The pid of docker-containerd, from its pid file.
    #[track_caller]
    pub fn containerd_pid(&self) -> Pid {
        let path = self.exec_root().join("libcontainerd/docker-containerd.pid");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        Pid::from_raw(text.trim().parse().expect("a pid file holds a number"))
    }

    /// Ends dockerd by SIGKILL, as a crash does.
    pub fn kill_dockerd(&self) {
        let child = self.dockerd.lock().expect("no holder panics").take();
        if let Some(mut child) = child {
            child.kill().expect("kill dockerd");
            child.wait().expect("wait for dockerd");
        }
    }

    /// Ends docker-containerd by SIGKILL.
    pub fn kill_containerd(&self) {
        kill(self.containerd_pid(), Signal::SIGKILL).expect("kill docker-containerd");
    }

    /// Ends dockerd by SIGTERM and waits for it; its exit status.
    #[track_caller]
    pub fn stop_dockerd(&self) -> i32 {
        let mut child = self.dockerd.lock().expect("no holder panics").take().expect("dockerd runs");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("send SIGTERM to dockerd");
        wait_within(&mut child, STOP_LIMIT).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("dockerd does not stop on SIGTERM\n{}", self.log_tail())
        })
    }

    /// Crashes dockerd and starts it again.
    #[track_caller]
    pub fn crash_and_restart(&self) {
        self.kill_dockerd();
        self.boot();
    }

    /// What a power cut leaves of the engine once the machine is up again: its data root, nothing that lives in the
    /// kernel, and what lies below `/run` only where that is a disk.
    #[track_caller]
    pub fn lose_power(&self, keeps_run: bool) {
        let ids = self.container_ids();
        self.kill_dockerd();
        self.sandbox.clear(&ids);
        eventually("all processes are gone", || self.sandbox.processes(&ids).is_empty().then_some(()));
        self.sandbox.clear(&ids);
        if !keeps_run {
            fs::remove_dir_all(self.exec_root()).expect("remove the exec root");
            self.sandbox.clear_runtime(&ids);
        }
    }

    /// Waits until dockerd has ended without having been told to; its exit status.
    #[track_caller]
    pub fn ends_by_itself(&self) -> i32 {
        let mut child = self.dockerd.lock().expect("no holder panics").take().expect("dockerd runs");
        wait_within(&mut child, BOOT_LIMIT).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("dockerd does not end\n{}", self.log_tail())
        })
    }

    // --- talking to it

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        self.environment(command.args(["-c", script]));
        command
    }

    fn environment(&self, command: &mut Command) {
        for name in ["DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"] {
            command.env_remove(name);
        }
        command
            .current_dir(self.home())
            .env("PATH", programs::search_path())
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.home().join("config"))
            .env("DOCKER_CLI_HINTS", "false");
    }

    /// Runs a shell command line in which `docker` means this engine; the engine's folder is the working directory.
    #[track_caller]
    pub fn run(&self, script: &str) -> Done {
        command::run(self.shell(script), script, None, COMMAND_LIMIT)
    }

    /// The same, with something on standard input.
    #[track_caller]
    pub fn run_with_input(&self, script: &str, input: &[u8]) -> Done {
        command::run(self.shell(script), script, Some(input.to_vec()), COMMAND_LIMIT)
    }

    /// Runs a command line that must succeed; its standard output without the white space around it.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let done = self.run(script);
        assert!(done.code == 0, "this must succeed\n{}\n{}", done.report(), self.log_tail());
        done.out().to_owned()
    }

    /// Runs a command line that must fail.
    #[track_caller]
    pub fn fails(&self, script: &str) -> Done {
        let done = self.run(script);
        assert!(done.code != 0, "this must fail\n{}", done.report());
        done
    }

    /// Runs a command line that must end with `code`.
    #[track_caller]
    pub fn ends_with(&self, code: i32, script: &str) -> Done {
        let done = self.run(script);
        assert!(done.code == code, "this must end with {code}\n{}\n{}", done.report(), self.log_tail());
        done
    }

    /// Starts a command line and leaves it running; its outputs go to `<name>.out` and `<name>.err` in the folder.
    #[track_caller]
    pub fn background(&self, name: &str, script: &str) -> Background {
        let file = |suffix: &str| File::create(self.home().join(format!("{name}.{suffix}"))).expect("create a file");
        // `exec`, so that what is signalled is the program and not the shell.
        let child = self
            .shell(&format!("exec {script}"))
            .stdin(Stdio::piped())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("start a shell");
        Background { child, out: self.home().join(format!("{name}.out")) }
    }

    /// Starts a command line on a terminal of 24 rows and 80 columns.
    pub fn terminal(&self, script: &str) -> Terminal {
        let mut command = Command::new("setsid");
        self.environment(command.args(["--ctty", "--wait", "/bin/sh", "-c", script]).env("TERM", "xterm"));
        Terminal::start(command, 24, 80)
    }

    /// `docker inspect` with a template.
    #[track_caller]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&format!("docker inspect --format '{template}' {name}"))
    }

    /// The whole of `docker inspect` of one object.
    #[track_caller]
    pub fn inspect_json(&self, name: &str) -> Value {
        let text = self.ok(&format!("docker inspect {name}"));
        let mut list: Vec<Value> = serde_json::from_str(&text).expect("docker inspect prints JSON");
        assert_eq!(list.len(), 1, "inspect of {name}");
        list.remove(0)
    }

    /// Waits until the container has the state.
    #[track_caller]
    pub fn wait_for_state(&self, name: &str, state: &str) {
        eventually_seen(
            format_args!("{name} is {state}"),
            || self.inspect(name, "{{.State.Status}}"),
            |seen| seen == state,
        );
    }

    /// Sends `GET`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        http::request(&self.socket(), "GET", path, &[], b"")
    }

    /// Sends `DELETE`.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        http::request(&self.socket(), "DELETE", path, &[], b"")
    }

    /// Sends `POST` with a JSON body; an empty one is sent without a type.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Answer {
        let headers: &[&str] = if body.is_empty() { &[] } else { &["Content-Type: application/json"] };
        http::request(&self.socket(), "POST", path, headers, body.as_bytes())
    }

    // --- looking under it

    fn log_path(&self) -> PathBuf {
        self.home().join("dockerd.log")
    }

    /// The engine's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The last lines of the engine's log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- the engine's log ends with\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// The ids of all containers there ever were, as far as the engine's files tell.
    fn container_ids(&self) -> BTreeSet<String> {
        [self.data_root().join("containers"), self.exec_root().join("libcontainerd")]
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .collect()
    }

    /// What is left of this engine on the machine outside its own files: processes, mounts, control groups of the
    /// given containers. The engine must have been stopped.
    pub fn leftovers(&self, containers: &[&str]) -> Vec<String> {
        let ids: BTreeSet<String> = containers.iter().map(|id| (*id).to_owned()).collect();
        let mut left = Vec::new();
        for pid in self.sandbox.processes(&ids) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            left.push(format!("process {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " ")));
        }
        left.extend(self.sandbox.mounts().iter().map(|point| format!("mount {}", point.display())));
        left.extend(self.sandbox.cgroups(&ids).iter().map(|group| format!("control group {}", group.display())));
        left
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        let ids = self.container_ids();
        let child = self.dockerd.lock().ok().and_then(|mut guard| guard.take());
        if let Some(mut child) = child {
            // The containers are killed with the rest below: what `docker rm` does is tested elsewhere.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
        self.sandbox.clear(&ids);
        self.sandbox.clear_runtime(&ids);
    }
}

/// A command that runs beside the test.
pub struct Background {
    child: Child,
    out: PathBuf,
}

impl Background {
    /// Everything it has written to standard output so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// Waits until its standard output holds `text`; gives the output.
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        eventually_seen(format_args!("{text:?} appears"), || self.output(), |output| output.contains(text))
    }

    /// Writes to its standard input.
    pub fn types(&mut self, text: &str) {
        assert!(self.hears(text), "it does not read its standard input any more");
    }

    /// The same of one that may have ended; whether it has not.
    pub fn hears(&mut self, text: &str) -> bool {
        use std::io::Write;
        self.child.stdin.as_mut().expect("standard input is open").write_all(text.as_bytes()).is_ok()
    }

    /// Closes its standard input.
    pub fn closes_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("signal a child");
    }

    /// Waits for its end; the exit status.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        wait_within(&mut self.child, Duration::from_secs(30))
            .unwrap_or_else(|| panic!("this does not end; it wrote:\n{}", self.output()))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
