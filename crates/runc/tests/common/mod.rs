//! Bundles on busybox, and docker-runc run on them.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// One container in a folder of its own. Whatever is left of it goes when it is dropped.
pub struct Container {
    dir: tempfile::TempDir,
    pub id: String,
    config: Value,
    relays: Vec<Child>,
    /// Lives where the host's mounts are shared, as systemd makes them; docker-runc is run there if it is set.
    shared_mounts: Option<Child>,
}

impl Container {
    /// A bundle that runs a busybox shell script.
    pub fn new(name: &str, script: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("docker-runc-test-").tempdir_in("/var/tmp").unwrap();
        let root = dir.path().join("bundle/rootfs");
        for path in ["bin", "proc", "sys", "dev", "tmp", "etc", "usr", "lib", "lib64"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "sleep", "cat", "echo", "rm", "wc", "id", "true", "grep", "mount", "ps", "tty", "kill", "mkdir",
            "chmod", "test",
        ] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let mut config: Value = serde_json::from_str(include_str!("config.json")).unwrap();
        config["process"]["args"] = json!(["sh", "-c", script]);
        let id = format!("test-{name}-{}", std::process::id());
        Container { dir, id, config, relays: Vec::new(), shared_mounts: None }
    }

    /// A bundle that runs one test of this very program in the container, with `DORMOUSE_WORKLOAD` set.
    pub fn of_test(name: &str, test: &str) -> Self {
        let mut container = Container::new(name, "");
        let program = std::env::current_exe().unwrap();
        let mounts = container.config["mounts"].as_array_mut().unwrap();
        for (source, destination) in [
            (Path::new("/usr"), "/usr"),
            (Path::new("/lib"), "/lib"),
            (Path::new("/lib64"), "/lib64"),
            (&program, "/bin/workload"),
        ] {
            if source.exists() {
                mounts.push(json!({
                    "destination": destination, "type": "bind", "source": source, "options": ["rbind", "ro"]
                }));
            }
        }
        container.config["process"]["args"] =
            json!(["/bin/workload", "--exact", test, "--nocapture", "--test-threads=1"]);
        container.config["process"]["env"].as_array_mut().unwrap().push(json!("DORMOUSE_WORKLOAD=1"));
        container
    }

    /// The configuration, to be changed before it is used.
    pub fn config(&mut self) -> &mut Value {
        &mut self.config
    }

    /// From now on docker-runc sees shared mounts.
    pub fn share_mounts(&mut self) {
        let mut namespace = Command::new("unshare")
            .args(["--mount", "--propagation", "shared", "sh", "-c", "echo; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        namespace.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        self.shared_mounts = Some(namespace);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn bundle(&self) -> PathBuf {
        let bundle = self.path("bundle");
        fs::write(bundle.join("config.json"), self.config.to_string()).unwrap();
        bundle
    }

    /// A call of docker-runc.
    pub fn command(&self, arguments: &[&str]) -> Command {
        const RUNC: &str = env!("CARGO_BIN_EXE_docker-runc");
        let mut command = Command::new(if self.shared_mounts.is_some() { "nsenter" } else { RUNC });
        if let Some(namespace) = &self.shared_mounts {
            command.arg(format!("--mount=/proc/{}/ns/mnt", namespace.id())).arg(RUNC);
        }
        command.arg("--root").arg(self.path("state")).args(arguments).stdin(Stdio::null());
        command
    }

    /// Calls docker-runc to its end, with its output.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Calls docker-runc, which must succeed; gives its standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {} {error}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Calls docker-runc, which must fail; gives its standard error.
    pub fn must_fail(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A call whose container writes through a pipe into the file `output`, as under an engine.
    pub fn with_output(&mut self, arguments: &[&str]) {
        let file = fs::OpenOptions::new().append(true).create(true).open(self.path("output")).unwrap();
        let mut relay = Command::new("cat").stdin(Stdio::piped()).stdout(file).spawn().unwrap();
        let pipe = relay.stdin.take().unwrap();
        let errors = File::create(self.path("errors")).unwrap();
        let status = self.command(arguments).stdout(pipe).stderr(errors).status().unwrap();
        self.relays.push(relay);
        let errors = fs::read_to_string(self.path("errors")).unwrap();
        assert!(status.success(), "{arguments:?}: {status} {errors}");
    }

    pub fn start(&mut self) {
        let bundle = self.bundle();
        let id = self.id.clone();
        self.with_output(&["run", "-d", "-b", bundle.to_str().unwrap(), &id]);
    }

    pub fn checkpoint(&self, name: &str, more: &[&str]) -> Output {
        let image = self.path(name);
        let mut arguments = vec!["checkpoint", "--auto", "--image-path", image.to_str().unwrap()];
        arguments.extend(more);
        arguments.push(&self.id);
        self.call(&arguments)
    }

    pub fn sleep(&self, name: &str) {
        let output = self.checkpoint(name, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn wake(&mut self, name: &str) {
        let (bundle, image, work, id) = (self.bundle(), self.path(name), self.path("work"), self.id.clone());
        self.with_output(&[
            "restore",
            "-d",
            "-b",
            bundle.to_str().unwrap(),
            "--image-path",
            image.to_str().unwrap(),
            "--work-path",
            work.to_str().unwrap(),
            &id,
        ]);
    }

    pub fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.must(&["state", &self.id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    /// The number in the last whole line `n <number>…` of the output.
    pub fn count(&self) -> u64 {
        let text = self.output();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let last = whole.lines().rev().find_map(|line| line.strip_prefix("n ")?.split(' ').next()?.parse().ok());
        last.unwrap_or(0)
    }

    /// Waits until the count has passed a number.
    pub fn wait_past(&self, number: u64) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let count = self.count();
            if count > number {
                return count;
            }
            assert!(Instant::now() < deadline, "stuck at {count}: {}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A cycle after which the count must go on where it was.
    pub fn cycle(&mut self, name: &str) {
        let before = self.wait_past(self.count() + 1);
        self.sleep(name);
        let asleep = self.count();
        assert!(asleep >= before);
        self.wake(name);
        let after = self.wait_past(asleep);
        assert!(after < asleep + 100, "began afresh or ran on: {asleep} {after}");
        let broken = self.output();
        assert!(!broken.contains("BROKEN"), "{broken}");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.call(&["delete", "-f", &self.id]);
        for relay in &mut self.relays {
            let _ = relay.wait();
        }
        if let Some(namespace) = &mut self.shared_mounts {
            namespace.kill().unwrap();
            namespace.wait().unwrap();
        }
        let leftover = Path::new("/sys/fs/cgroup/freezer").join(&self.id);
        if !std::thread::panicking() {
            assert!(!leftover.exists(), "{} is left", leftover.display());
        }
    }
}

/// Whether tests that need CRIU can run; without it they say so and pass.
pub fn has_criu() -> bool {
    let found = criu::Program::find(None).is_ok();
    if !found {
        eprintln!("criu is not installed: nothing was tested");
    }
    found
}
