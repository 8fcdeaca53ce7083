//! Knowing beforehand: what stands in the way of a checkpoint, what a list of checkpoints tells, what one has cost.

use std::sync::mpsc;

use e2e::{Counter, Engine};
use nix::unistd::Pid;
use serde_json::Value;

fn preflight(engine: &Engine, name: &str) -> Value {
    let answer = engine.get(&format!("/containers/{name}/checkpoints/preflight"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_str(&answer.text()).expect("JSON")
}

fn codes(report: &Value) -> Vec<String> {
    let list = report["Obstacles"].as_array().expect("a list");
    list.iter().map(|found| found["Code"].as_str().expect("a code").to_owned()).collect()
}

#[test]
fn nothing_stands_in_the_way_of_an_ordinary_container() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "-p 127.0.0.1::80 --tmpfs /scratch -v data:/data");
    let report = preflight(&engine, "c1");
    assert_eq!((&report["Possible"], codes(&report).len()), (&Value::Bool(true), 0), "{report}");
    assert_eq!(report["Options"]["tcp"], "none", "{report}");
    counter.goes_on();
    engine.ok("docker pause c1");
    let report = preflight(&engine, "c1");
    assert_eq!(report["Possible"], true, "{report}");
    assert_eq!(report["Warnings"][0]["Code"], "paused", "{report}");
    engine.ok("docker unpause c1 && docker checkpoint create c1 nap");
    let report = preflight(&engine, "c1");
    assert_eq!((&report["Possible"], codes(&report)), (&Value::Bool(false), vec!["not-running".to_owned()]));
    assert_eq!(engine.get("/containers/nobody/checkpoints/preflight").status, 404);
}

#[test]
fn what_stands_in_the_way_is_named_with_its_process() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    let pid: i32 = engine.inspect("c1", "{{.State.Pid}}").parse().expect("a pid");
    let (done, wait) = mpsc::channel::<()>();
    let debugger = std::thread::spawn(move || {
        nix::sys::ptrace::seize(Pid::from_raw(pid), nix::sys::ptrace::Options::empty()).expect("trace a process");
        // The kernel lets it go when this thread ends.
        let _ = wait.recv();
    });
    e2e::eventually("it is traced", || codes(&preflight(&engine, "c1")).contains(&"traced".to_owned()).then_some(()));
    let report = preflight(&engine, "c1");
    let found = &report["Obstacles"][0];
    assert_eq!((&found["Code"], &found["Pid"]), (&Value::from("traced"), &Value::from(pid)), "{report}");
    drop(done);
    debugger.join().expect("the tracer ends");
    counter.goes_on();

    engine.ok("docker exec -d c1 sleep 1000");
    assert_eq!(codes(&preflight(&engine, "c1")), ["exec-running"]);
    engine.ok("docker exec c1 killall sleep");
    e2e::eventually("the exec has ended", || codes(&preflight(&engine, "c1")).is_empty().then_some(()));

    engine.ok("docker run -d --name c2 --label dormouse.checkpoint.ghost-limit=1000 busybox sh -c 'exec 5>/big; head -c 5000 /dev/zero >&5; rm /big; sleep 1000'");
    e2e::eventually("the deleted file is told", || {
        (codes(&preflight(&engine, "c2")) == ["deleted-file"]).then_some(())
    });
    engine.ok("docker run -d --name c3 --privileged busybox sh -c 'exec 5</dev/fuse; sleep 1000'");
    e2e::eventually("the device is told", || (codes(&preflight(&engine, "c3")) == ["device"]).then_some(()));
    let report = preflight(&engine, "c3");
    assert!(report["Obstacles"][0]["Message"].as_str().expect("a sentence").contains("/dev/fuse"), "{report}");
    counter.goes_on();
}

#[test]
fn what_it_costs_is_told() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "--network none");
    assert!(engine.inspect_json("c1").get("Checkpoints").is_none(), "nothing to tell yet");
    let answer = engine.post("/containers/c1/checkpoints", r#"{"CheckpointID":"nap","Exit":false}"#);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let cost: Value = serde_json::from_str(&answer.text()).expect("JSON");
    let micros = |value: &Value, name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"));
    assert_eq!(cost["Name"], "nap");
    assert!(micros(&cost, "FrozenMicros") <= micros(&cost, "TotalMicros") && micros(&cost, "Bytes") > 0, "{cost}");
    assert_eq!(engine.inspect_json("c1")["Checkpoints"]["LastCheckpoint"], cost);

    let list = engine.get("/containers/c1/checkpoints").text();
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let nap = &list[0];
    assert_eq!((&nap["Name"], &nap["Valid"], &nap["Options"]["tcp"]), (&"nap".into(), &true.into(), &"none".into()));
    assert_eq!(nap["Image"], engine.inspect("c1", "{{.Image}}").as_str());
    assert!(micros(nap, "SizeBytes") >= micros(&cost, "Bytes"), "{nap} {cost}");
    assert!(nap["Created"].as_str().is_some_and(|at| at.starts_with("20")), "{nap}");

    let used = |engine: &Engine| {
        let usage: Value = serde_json::from_str(&engine.get("/system/df").text()).expect("JSON");
        usage["Containers"][0]["SizeRw"].as_u64().unwrap_or(0)
    };
    assert!(used(&engine) >= micros(nap, "SizeBytes"), "df counts checkpoints");
    counter.goes_on();
    engine.ok("docker stop -t 0 c1 && docker start --checkpoint nap c1");
    let woken = engine.inspect_json("c1")["Checkpoints"]["LastWake"].clone();
    assert_eq!(woken["Name"], "nap", "{woken}");
    assert!(micros(&woken, "TotalMicros") > 0);
    engine.ok("docker checkpoint rm c1 nap");
    assert!(used(&engine) < micros(nap, "SizeBytes"), "and no longer");
}

#[test]
fn without_criu_it_is_said_at_boot_and_on_use() {
    let engine = Engine::with().env("DORMOUSE_CRIU", "/nonexistent/criu").start();
    engine.ok("docker run -d --name c1 busybox sleep 1000");
    e2e::eventually("info warns", || {
        engine.run("docker info 2>&1").out().contains("scripts/install-criu").then_some(())
    });
    assert_eq!(codes(&preflight(&engine, "c1")), ["criu"]);
    let done = engine.fails("docker checkpoint create c1 nap");
    done.tells("checkpoints need CRIU 4").tells("run scripts/install-criu");
    assert_eq!(engine.inspect("c1", "{{.State.Running}}"), "true");
    assert_eq!(engine.ok("docker checkpoint ls c1 | tail -n +2"), "");
}

#[test]
fn with_a_criu_that_is_too_old_it_is_said_at_boot_and_on_use() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("make a folder");
    let old = folder.path().join("criu");
    std::fs::write(&old, "#!/bin/sh\necho Version: 3.17.1\n").expect("write a script");
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
    let engine = Engine::with().env("DORMOUSE_CRIU", &old.to_string_lossy()).start();
    let counter = Counter::run(&engine, "c1", "");
    e2e::eventually("info warns", || {
        let said = engine.run("docker info 2>&1");
        (said.out().contains("is 3.17.1") && said.out().contains("scripts/install-criu")).then_some(())
    });
    assert!(engine.log().contains("checkpoints need CRIU 4"), "{}", engine.log_tail());
    assert_eq!(codes(&preflight(&engine, "c1")), ["criu"]);
    let done = engine.fails("docker checkpoint create c1 nap");
    done.tells("checkpoints need CRIU 4").tells("is 3.17.1").tells("run scripts/install-criu");
    assert_eq!(engine.ok("docker checkpoint ls c1 | tail -n +2"), "");
    counter.goes_on();
}
