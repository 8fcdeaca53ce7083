//! docker-runc's commands, on real containers. Needs root and busybox.

mod common;

use common::Container;
use serde_json::{Value, json};

const FOR_EVER: &str = "while true; do sleep 0.1; done";

#[test]
fn a_container_lives_and_dies() {
    let container = Container::new("life", FOR_EVER);
    let (bundle, id) = (container.bundle(), container.id.clone());
    let pid_file = container.path("pid");
    let create = ["create", "-b", bundle.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap(), &id];
    let null = std::process::Stdio::null;
    assert!(container.command(&create).stdout(null()).stderr(null()).status().unwrap().success());
    assert_eq!(container.status(), "created");
    assert!(container.must_fail(&create).contains("container with given ID already exists"));
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    container.must(&["start", &id]);
    assert!(container.must_fail(&["start", &id]).contains("cannot start an already running container"));
    let state: Value = serde_json::from_str(&container.must(&["state", &id])).unwrap();
    assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("running"), Some(pid.into())));
    let pids: Vec<i32> = serde_json::from_str(&container.must(&["ps", "-f", "json", &id])).unwrap();
    assert!(pids.contains(&pid));
    container.must(&["pause", &id]);
    assert_eq!(container.status(), "paused");
    assert!(container.must_fail(&["exec", &id, "true"]).contains("cannot exec in a paused container"));
    container.must(&["resume", &id]);
    assert!(container.must_fail(&["delete", &id]).contains("that is not stopped"));
    container.must(&["kill", &id, "KILL"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while container.status() != "stopped" {
        assert!(std::time::Instant::now() < deadline);
    }
    assert!(container.must_fail(&["kill", &id, "TERM"]).contains("container not running"));
    container.must(&["delete", &id]);
    assert!(container.must_fail(&["state", &id]).contains("container does not exist"));
}

#[test]
fn exit_codes_and_words_are_runcs() {
    let mut container = Container::new("words", "exit 7");
    let id = container.id.clone();
    let bundle = container.bundle();
    let run = ["run", "-b", bundle.to_str().unwrap(), &id];
    assert_eq!(container.call(&run).status.code(), Some(7));
    container.config()["process"]["args"] = json!(["no-such-program"]);
    container.bundle();
    let output = container.call(&run);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    assert!(container.must_fail(&["state", &id]).contains("container does not exist"));
}

#[test]
fn the_json_log_has_runcs_keys() {
    let container = Container::new("log", "");
    let log = container.path("log");
    let arguments = ["--log", log.to_str().unwrap(), "--log-format", "json", "state", "nobody"];
    assert!(!container.call(&arguments).status.success());
    let line: Value = serde_json::from_str(std::fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!((line["level"].as_str(), line["msg"].as_str()), (Some("error"), Some("container does not exist")));
}

#[test]
fn an_exec_has_what_the_container_has() {
    let mut container = Container::new("exec", FOR_EVER);
    container.start();
    let id = container.id.clone();
    let text = container.must(&["exec", &id, "cat", "/proc/self/status"]);
    assert!(text.lines().any(|line| line == "Seccomp:\t2"), "{text}");
    assert!(text.lines().any(|line| line == "CapEff:\t00000000000004a1"), "{text}");
    let text = container.must(&["exec", &id, "cat", "/proc/self/cgroup"]);
    assert!(text.lines().all(|line| line.ends_with(&format!("/{id}"))), "{text}");
    assert_eq!(container.call(&["exec", &id, "sh", "-c", "exit 9"]).status.code(), Some(9));
    let output = container.call(&["exec", &id, "nosuch"]);
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(container.must(&["exec", "-u", "5:6", &id, "id", "-u"]).trim(), "5");
}

#[test]
fn what_is_masked_and_read_only_is_so() {
    let mut container = Container::new("masks", FOR_EVER);
    container.start();
    let id = container.id.clone();
    let mounts = container.must(&["exec", &id, "cat", "/proc/self/mounts"]);
    let of = |point: &str| mounts.lines().find(|line| line.split(' ').nth(1) == Some(point)).map(str::to_owned);
    for point in ["/sys/fs/cgroup/memory", "/proc/sys", "/sys"] {
        if let Some(line) = of(point) {
            assert!(line.split(' ').nth(3).unwrap().starts_with("ro"), "{line}");
        }
    }
    assert_eq!(container.must(&["exec", &id, "cat", "/proc/keys"]), "");
    assert!(!container.call(&["exec", &id, "sh", "-c", "echo x > /sys/firmware/x"]).status.success());
}

#[test]
fn limits_reach_the_cgroup() {
    let mut container = Container::new("limits", FOR_EVER);
    container.config()["linux"]["resources"]["memory"] = json!({ "limit": 33554432 });
    container.config()["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 1u64 << 40 }]);
    container.start();
    let id = container.id.clone();
    container.must(&["update", "--pids-limit", "44", &id]);
    let stats: Value = serde_json::from_str(&container.must(&["events", "--stats", &id])).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 33554432);
    assert_eq!(stats["data"]["pids"]["limit"], 44);
}
