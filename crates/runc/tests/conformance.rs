//! What other runtimes' suites have shown: one case for each way in which docker-runc had differed from runc.

mod common;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Container, has_criu};
use serde_json::{Value, json};

const FOR_EVER: &str = "while true; do sleep 0.1; done";
const COUNT: &str = "i=0; while true; do i=$((i+1)); echo n $i; sleep 0.05; done";

/// Runs a bundle to its end in the foreground; gives its standard output.
fn run(container: &Container) -> String {
    let bundle = container.bundle();
    container.must(&["run", "-b", bundle.to_str().unwrap(), &container.id])
}

#[test]
fn a_checkpoint_takes_the_place_of_another() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("replace", COUNT);
    container.start();
    container.wait_past(3);
    let image = container.path("image");
    let arguments = ["checkpoint", "--leave-running", "--image-path", image.to_str().unwrap(), &container.id];
    container.must(&arguments);
    let first = fs::read(image.join("pages-1.img")).unwrap();
    container.wait_past(container.count() + 3);
    container.must(&arguments);
    assert_ne!(fs::read(image.join("pages-1.img")).unwrap(), first);
    assert!(!container.path("image.new").exists());
    // What is no checkpoint is not thrown away with one.
    fs::write(image.join("mine.txt"), "").unwrap();
    assert!(container.must_fail(&arguments).contains("mine.txt"));
    assert_eq!(container.status(), "running");
    assert!(image.join("mine.txt").exists());
}

#[test]
fn what_was_paused_by_whoever_put_it_to_sleep_runs_when_it_wakes() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("paused", COUNT);
    container.start();
    container.wait_past(2);
    let (id, image) = (container.id.clone(), container.path("image"));
    container.must(&["pause", &id]);
    container.must(&["checkpoint", "--image-path", image.to_str().unwrap(), &id]);
    let asleep = container.count();
    container.wake("image");
    container.wait_past(asleep);
}

#[test]
fn a_parent_that_is_not_there_is_refused() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("parent", FOR_EVER);
    container.start();
    for parent in ["/var/tmp", "../nowhere"] {
        let output = container.checkpoint("image", &["--parent-path", parent]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("--parent-path"), "{text}");
        assert!(!container.path("image").exists());
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn binds_within_binds_come_back_after_somebody_has_cleared_up() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("binds", COUNT);
    for name in ["outer", "inner"] {
        fs::create_dir(container.path(name)).unwrap();
    }
    let mount = |container: &Container, source: &str, destination: &str| json!({ "destination": destination, "type": "bind", "source": container.path(source), "options": ["rw", "bind"] });
    let mounts = [mount(&container, "outer", "/tmp/x"), mount(&container, "inner", "/tmp/x/for/nested")];
    container.config()["mounts"].as_array_mut().unwrap().extend(mounts);
    container.start();
    container.wait_past(2);
    container.sleep("image");
    fs::remove_dir_all(container.path("outer/for")).unwrap();
    let asleep = container.count();
    container.wake("image");
    container.wait_past(asleep);
    fs::write(container.path("inner/file"), "still here").unwrap();
    assert_eq!(container.must(&["exec", &container.id, "cat", "/tmp/x/for/nested/file"]), "still here");
}

#[test]
fn a_group_that_is_somebody_elses_or_frozen_is_refused() {
    let mut first = Container::new("taken", FOR_EVER);
    first.start();
    let mut second = Container::new("taker", FOR_EVER);
    second.config()["linux"]["cgroupsPath"] = json!(format!("/{}", first.id));
    let bundle = second.bundle();
    let create = ["run", "-d", "-b", bundle.to_str().unwrap(), &second.id];
    let refused = |container: &Container, words: &str| {
        let text = container.must_fail(&create);
        assert!(text.contains(words), "{text}");
    };
    refused(&second, "container's cgroup is not empty");
    first.must(&["delete", "-f", &first.id]);

    let path = std::path::Path::new("/sys/fs/cgroup/freezer").join(&first.id);
    if path.parent().is_some_and(|parent| parent.join("cgroup.procs").exists()) {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("freezer.state"), "FROZEN").unwrap();
        refused(&second, "container's cgroup unexpectedly frozen");
        fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn an_exec_may_have_a_group_below() {
    let mut container = Container::new("below", FOR_EVER);
    container.start();
    let id = container.id.clone();
    let pids = std::path::Path::new("/sys/fs/cgroup/pids").join(&id);
    if !pids.is_dir() {
        return;
    }
    fs::create_dir(pids.join("sub")).unwrap();
    let text = container.must(&["exec", "--cgroup", "pids:sub", &id, "cat", "/proc/self/cgroup"]);
    let of = |name: &str| text.lines().find(|line| line.split(':').nth(1) == Some(name)).unwrap();
    assert!(of("pids").ends_with(&format!("/{id}/sub")), "{text}");
    assert!(of("memory").ends_with(&format!("/{id}")), "{text}");
    for (argument, words) in [("..", "bad sub cgroup path"), ("nosuch:sub", "unknown controller nosuch")] {
        let text = container.must_fail(&["exec", "--cgroup", argument, &id, "true"]);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn running_out_of_memory_is_an_event() {
    let mut container = Container::new("oom", FOR_EVER);
    container.config()["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20 });
    container.start();
    let id = container.id.clone();
    let file = container.path("events");
    let arguments = ["events", "--interval", "100ms", &id];
    let mut events = container.command(&arguments).stdout(fs::File::create(&file).unwrap()).spawn().unwrap();
    let wait_for = |line: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !fs::read_to_string(&file).unwrap().contains(line) {
            assert!(Instant::now() < deadline, "no {line}: {}", fs::read_to_string(&file).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // It listens from before the first counters on.
    wait_for(&format!(r#"{{"type":"stats","id":"{id}","data":"#));
    let hog =
        ["exec", &id, "sh", "-c", "x=$(cat /dev/zero | head -c 64000000 | cat); echo ${#x}; x=$(cat /dev/urandom)"];
    let _ = container.command(&hog).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    wait_for(&format!(r#"{{"type":"oom","id":"{id}"}}"#));
    container.must(&["delete", "-f", &id]);
    assert!(events.wait().unwrap().success());
}

#[test]
fn the_environment_says_everything_once() {
    let mut container = Container::new("env", "");
    container.config()["process"]["args"] = json!(["cat", "/proc/self/environ"]);
    container.config()["process"]["env"] = json!(["PATH=/bin", "A=1", "A=", "HOME="]);
    let text = run(&container);
    let mut list: Vec<_> = text.split('\0').filter(|entry| !entry.is_empty()).collect();
    list.sort_unstable();
    assert_eq!(list, ["A=", "HOME=/", "PATH=/bin"]);
}

#[test]
fn a_failing_hook_is_named_with_its_number() {
    let mut container = Container::new("hooks", "true");
    container.config()["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }, { "path": "/bin/false" }] });
    let bundle = container.bundle();
    let text = container.must_fail(&["run", "-b", bundle.to_str().unwrap(), &container.id]);
    assert!(text.contains("error running createRuntime hook #1:"), "{text}");
}

#[test]
fn hooks_in_the_container_see_its_root_its_environment_and_its_pid() {
    let mut container = Container::new("inside", "true");
    let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-euc", script] }]);
    container.config()["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
    container.config()["hooks"] = json!({
        "createContainer": hook("grep -q '\"pid\":1,' && touch ./tmp/from-create"),
        "startContainer": hook("test $ONE = two; echo home $HOME > /tmp/from-start")
    });
    run(&container);
    let root = container.path("bundle/rootfs/tmp");
    assert!(root.join("from-create").exists());
    assert_eq!(fs::read_to_string(root.join("from-start")).unwrap(), "home /\n");
}

#[test]
fn a_process_has_the_attributes_of_the_configuration() {
    let script = "cat /proc/self/stat; cat /proc/self/timens_offsets; cat /proc/self/personality";
    let mut container = Container::new("attributes", script);
    container.config()["process"]["scheduler"] =
        json!({ "policy": "SCHED_BATCH", "nice": 19, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    container.config()["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
    container.config()["linux"]["personality"] = json!({ "domain": "LINUX32" });
    container.config()["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    container.config()["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 7881, "nanosecs": 2718281 } });
    container.config()["process"]["args"] = json!(["sh", "-c", format!("exec sh -c '{script}'")]);
    let text = run(&container);
    let lines: Vec<_> = text.lines().collect();
    let offsets: Vec<_> = lines[1].split_ascii_whitespace().collect();
    assert_eq!(offsets, ["monotonic", "7881", "2718281"], "{text}");
    assert_eq!(lines.last(), Some(&"00000008"), "{text}");
    container.config()["linux"]["namespaces"].as_array_mut().unwrap().pop();
    let bundle = container.bundle();
    let text = container.must_fail(&["run", "-b", bundle.to_str().unwrap(), &container.id]);
    assert!(text.contains("time namespace"), "{text}");
}

#[test]
fn a_process_file_needs_no_user_and_names_its_processors() {
    let mut container = Container::new("processors", FOR_EVER);
    container.start();
    let file = container.path("process.json");
    let process = json!({
        "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
        "execCPUAffinity": { "initial": "0", "final": "0" }
    });
    fs::write(&file, process.to_string()).unwrap();
    let text = container.must(&["exec", "-p", file.to_str().unwrap(), &container.id]);
    assert_eq!(text, "Cpus_allowed_list:\t0\n");
}

#[test]
fn a_waiting_container_holds_nothing_of_its_caller() {
    let container = Container::new("waiting", FOR_EVER);
    let bundle = container.bundle();
    let create = ["create", "-b", bundle.to_str().unwrap(), &container.id];
    assert!(container.command(&create).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let state: Value = serde_json::from_str(&container.must(&["state", &container.id])).unwrap();
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", state["pid"]))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .filter(|target| target != "/dev/null")
        .collect();
    assert!(open.len() == 1 && open[0].ends_with("exec.fifo"), "{open:?}");
}

#[test]
fn files_beside_containers_are_no_containers() {
    let container = Container::new("files", FOR_EVER);
    fs::create_dir(container.path("state")).unwrap();
    fs::write(container.path("state/file"), "").unwrap();
    let output = container.call(&["list", "-q"]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn a_terminal_that_is_not_shown_on_one_has_plain_line_ends() {
    let mut container = Container::new("lines", "echo one; echo two");
    container.config()["process"]["terminal"] = json!(true);
    assert_eq!(run(&container), "one\ntwo\n");
}

#[test]
fn limits_of_another_kind_of_host_are_refused() {
    if fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok() {
        return;
    }
    let mut container = Container::new("unified", "true");
    container.config()["linux"]["resources"]["unified"] = json!({ "memory.min": "131072" });
    let bundle = container.bundle();
    let text = container.must_fail(&["run", "-b", bundle.to_str().unwrap(), &container.id]);
    assert!(text.contains("unified resources"), "{text}");
}

#[test]
fn whoever_is_killed_takes_all_others_along() {
    let mut container = Container::new("host-pids", "sleep 1000 & sleep 1000 & while true; do sleep 0.1; done");
    container.config()["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    container.start();
    let id = container.id.clone();
    container.must(&["kill", &id, "0"]);
    let pids = || {
        let found = ["freezer", "."].map(|name| std::path::Path::new("/sys/fs/cgroup").join(name).join(&id));
        let text = found.iter().find_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok()).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let wait_for = |wanted: &dyn Fn(usize) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !wanted(pids().len()) {
            assert!(Instant::now() < deadline, "{:?}", pids());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(&|count| count >= 3);
    // The first one is gone; the others are still the container's.
    let state: Value = serde_json::from_str(&container.must(&["state", &id])).unwrap();
    let first = rustix::process::Pid::from_raw(state["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    wait_for(&|count| count == 2);
    container.must(&["kill", &id, "KILL"]);
    wait_for(&|count| count == 0);
    for signal in ["0", "KILL"] {
        assert!(container.must_fail(&["kill", &id, signal]).contains("container not running"));
    }
    container.must(&["kill", "--all", &id, "0"]);
}

/// The default profile lets `clone` pass when no flag of a new namespace is among its flags.
#[test]
fn a_filter_looks_at_some_bits_of_an_argument() {
    let script = "> /tmp/x; chmod 755 /tmp/x && echo plain; chmod 4755 /tmp/x || echo refused";
    let mut container = Container::new("masked", script);
    let rule = |mask: u32, wanted: u32| {
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["chmod"], "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 1, "value": mask, "valueTwo": wanted, "op": "SCMP_CMP_MASKED_EQ" }] }
        ] })
    };
    container.config()["linux"]["seccomp"] = rule(0o4000, 0o4000);
    assert_eq!(run(&container), "plain\nrefused\n");
    // Docker's form of it: what is asked for is that nothing is left.
    container.config()["linux"]["seccomp"] = rule(0o7000, 0);
    let script = "> /tmp/x; chmod 755 /tmp/x || echo refused; chmod 4755 /tmp/x && echo special";
    container.config()["process"]["args"] = json!(["sh", "-c", script]);
    assert_eq!(run(&container), "refused\nspecial\n");
}
