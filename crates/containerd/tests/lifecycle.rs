//! Containers from start to end, through the real programs.

mod common;

use std::fs;
use std::io::Write;
use std::time::Duration;

use common::{Daemon, Oci, assert_status, is_alive, mkfifo, read_fifo, shims_of, short, signal, wait};
use containerd_api::types;
use tonic::Code;

async fn run_to_the_end(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    let mut live = daemon.client.clone().events(types::EventsRequest::default()).await.unwrap().into_inner();
    let container = daemon.run("a", &["sh", "-c", "echo hello; exit 42"]).await;
    assert_eq!((container.id.as_str(), container.status.as_str()), ("a", "running"));
    assert_eq!(container.processes[0].pid, "init");
    assert!(container.processes[0].system_pid > 0);
    assert_eq!(container.processes[0].args, ["sh", "-c", "echo hello; exit 42"]);
    let mut told = Vec::new();
    while told.len() < 2 {
        told.push(short(&live.message().await.unwrap().unwrap()));
    }
    assert_eq!(told, ["start-container a  0", "exit a init 42"]);
    assert_eq!(daemon.output("a"), "hello\n");
    // Whoever heard of the exit may use the id at once.
    daemon.run("a", &["true"]).await;
    daemon.wait_event("exit a init 0").await;
    daemon.assert_clean().await;
}

#[tokio::test]
async fn a_container_runs_to_its_end_with_runc() {
    run_to_the_end(Oci::Runc).await;
}

#[tokio::test]
async fn a_container_runs_to_its_end_with_crun() {
    run_to_the_end(Oci::Crun).await;
}

#[tokio::test]
async fn a_container_runs_to_its_end_with_our_runtime() {
    if Oci::DockerRunc.exists() {
        run_to_the_end(Oci::DockerRunc).await;
    }
}

#[tokio::test]
async fn exec_pause_stats_update_and_signals_with_our_runtime() {
    if Oci::DockerRunc.exists() {
        exec_pause_stats(Oci::DockerRunc).await;
    }
}

async fn exec_pause_stats(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    daemon.run("a", &["sleep", "1000"]).await;
    let pid = daemon.exec("a", "e1", &["sh", "-c", "exit 7"]).await.unwrap();
    assert!(pid > 0);
    daemon.wait_event("exit a e1 7").await;
    // Its name is free again.
    daemon.exec("a", "e1", &["sleep", "500"]).await.unwrap();

    let state = daemon.state("a").await.unwrap();
    let mut names: Vec<_> = state[0].processes.iter().map(|p| p.pid.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["e1", "init"]);
    assert_eq!(state[0].pids.len(), 2);
    for process in &state[0].processes {
        assert!(state[0].pids.contains(&process.system_pid));
    }

    daemon.update_status("a", "paused").await.unwrap();
    assert_eq!(daemon.state("a").await.unwrap()[0].status, "running");
    daemon.update_status("a", "running").await.unwrap();
    // crun thaws what is not frozen without a word.
    if oci == Oci::Runc {
        let again = daemon.update_status("a", "running").await.unwrap_err();
        assert_eq!(again.code(), Code::Unknown);
        assert!(again.message().starts_with("exit status 1: \""), "{}", again.message());
    }

    let stats = daemon.client.clone().stats(types::StatsRequest { id: "a".into() }).await.unwrap().into_inner();
    let cgroup = stats.cgroup_stats.unwrap();
    assert!(cgroup.cpu_stats.unwrap().system_usage > 0);
    assert!(cgroup.memory_stats.unwrap().usage.unwrap().usage > 0);
    assert_eq!(cgroup.pids_stats.unwrap().current, 2);
    assert!(stats.timestamp.is_some());

    let resources = types::UpdateResource { memory_limit: 64 << 20, cpu_shares: 512, ..Default::default() };
    let request = types::UpdateContainerRequest {
        id: "a".into(),
        pid: "init".into(),
        status: String::new(),
        resources: Some(resources),
    };
    daemon.client.clone().update_container(request).await.unwrap();
    let stats = daemon.client.clone().stats(types::StatsRequest { id: "a".into() }).await.unwrap().into_inner();
    assert_eq!(stats.cgroup_stats.unwrap().memory_stats.unwrap().usage.unwrap().limit, 64 << 20);

    daemon.signal("a", "e1", 15).await.unwrap();
    daemon.wait_event("exit a e1 143").await;
    daemon.exec("a", "e2", &["sleep", "500"]).await.unwrap();
    daemon.signal("a", "init", 9).await.unwrap();
    daemon.wait_event("exit a init 137").await;
    let events = daemon.events_of("a").await;
    assert_eq!(
        events,
        [
            "start-container a  0",
            "start-process a e1 0",
            "exit a e1 7",
            "start-process a e1 0",
            "pause a  0",
            "resume a  0",
            "exit a e1 143",
            "start-process a e2 0",
            "exit a e2 137",
            "exit a init 137"
        ]
    );
    daemon.assert_clean().await;
}

#[tokio::test]
async fn exec_pause_stats_update_and_signals_with_runc() {
    exec_pause_stats(Oci::Runc).await;
}

#[tokio::test]
async fn exec_pause_stats_update_and_signals_with_crun() {
    exec_pause_stats(Oci::Crun).await;
}

#[tokio::test]
async fn real_time_signals_arrive() {
    let daemon = Daemon::start(Oci::Runc).await;
    daemon.run("a", &["sh", "-c", "trap 'echo got; exit 3' 37; echo ready; while :; do sleep 0.1; done"]).await;
    daemon.wait_output("a", "ready").await;
    daemon.signal("a", "init", 37).await.unwrap();
    daemon.wait_event("exit a init 3").await;
    assert_eq!(daemon.output("a"), "ready\ngot\n");
}

#[tokio::test]
async fn stdio_through_fifos_and_close_stdin() {
    let daemon = Daemon::start(Oci::Runc).await;
    let bundle = daemon.bundle("a", &["cat"]);
    let stdin = mkfifo(&bundle.join("in"));
    let stdout = mkfifo(&bundle.join("out"));
    let reader = read_fifo(&stdout);
    let request = types::CreateContainerRequest { stdin: stdin.clone(), stdout, ..daemon.request("a", &bundle) };
    daemon.create(request).await.unwrap();
    let mut writer = fs::OpenOptions::new().write(true).open(stdin).unwrap();
    writer.write_all(b"through the pipe\n").unwrap();
    let close =
        types::UpdateProcessRequest { id: "a".into(), pid: "init".into(), close_stdin: true, ..Default::default() };
    daemon.client.clone().update_process(close).await.unwrap();
    drop(writer);
    daemon.wait_event("exit a init 0").await;
    assert_eq!(reader.join().unwrap(), "through the pipe\n");
    daemon.assert_clean().await;
}

#[tokio::test]
async fn a_terminal_and_its_size() {
    let daemon = Daemon::start(Oci::Runc).await;
    let bundle = daemon.bundle_with(
        "a",
        &["sh", "-c", "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.1; done"],
        |spec| {
            spec["process"]["terminal"] = true.into();
        },
    );
    let stdin = mkfifo(&bundle.join("in"));
    let stdout = mkfifo(&bundle.join("out"));
    let reader = read_fifo(&stdout);
    let request = types::CreateContainerRequest { stdin, stdout, ..daemon.request("a", &bundle) };
    let container = daemon.create(request).await.unwrap();
    assert!(container.processes[0].terminal);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let resize =
        types::UpdateProcessRequest { id: "a".into(), pid: "init".into(), width: 91, height: 17, ..Default::default() };
    daemon.client.clone().update_process(resize).await.unwrap();
    daemon.wait_event("exit a init 5").await;
    assert_eq!(reader.join().unwrap(), "ready\r\n17 91\r\n");
}

#[tokio::test]
async fn out_of_memory_is_told_before_the_exit() {
    let daemon = Daemon::start(Oci::Runc).await;
    let bundle = daemon.bundle_with("a", &["sh", "-c", "x=a; while :; do x=$x$x$x$x; done"], |spec| {
        spec["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 8 << 20, "swap": 8 << 20 });
    });
    daemon.create(daemon.request("a", &bundle)).await.unwrap();
    daemon.wait_event("exit a init 137").await;
    let events = daemon.events_of("a").await;
    assert_eq!(events.first().unwrap(), "start-container a  0");
    assert!(events.contains(&"oom a  0".to_owned()), "{events:?}");
    assert_eq!(events.last().unwrap(), "exit a init 137");
}

#[tokio::test]
async fn a_killed_shim_ends_the_container_once() {
    for paused in [false, true] {
        let daemon = Daemon::start(Oci::Runc).await;
        let container = daemon.run("a", &["sleep", "1000"]).await;
        let init = container.processes[0].system_pid;
        daemon.exec("a", "e1", &["sleep", "1000"]).await.unwrap();
        if paused {
            daemon.update_status("a", "paused").await.unwrap();
        }
        let shims = shims_of(&daemon.dir.to_string_lossy());
        assert_eq!(shims.len(), 1);
        signal(shims[0], "KILL");
        daemon.wait_event("exit a init 137").await;
        assert!(!is_alive(init));
        let exits: Vec<_> = daemon.events_of("a").await.into_iter().filter(|e| e.starts_with("exit")).collect();
        assert_eq!(exits, ["exit a e1 137", "exit a init 137"], "paused: {paused}");
        daemon.assert_clean().await;
    }
}

#[tokio::test]
async fn a_restart_finds_everything_again() {
    let mut daemon = Daemon::start(Oci::Runc).await;
    daemon.run("stays", &["sleep", "1000"]).await;
    daemon.exec("stays", "e1", &["sleep", "1000"]).await.unwrap();
    let leaves = daemon.run("leaves", &["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"]).await;
    let e2 = daemon.exec("stays", "e2", &["sleep", "1000"]).await.unwrap();
    let orphan = daemon.run("orphan", &["sleep", "1000"]).await;
    let before = daemon.state("stays").await.unwrap();

    daemon.kill();
    signal(leaves.processes[0].system_pid, "TERM");
    signal(e2, "KILL");
    let orphan_pid = orphan.processes[0].system_pid;
    let orphans_shim = shims_of(&daemon.state_dir().join("orphan").to_string_lossy());
    signal(orphans_shim[0], "KILL");
    let status_file = daemon.state_dir().join("leaves/init/exitStatus");
    wait("the exit status", || status_file.exists()).await;
    daemon.again().await;

    daemon.wait_event("exit leaves init 9").await;
    daemon.wait_event("exit stays e2 137").await;
    daemon.wait_event("exit orphan init 137").await;
    assert!(!is_alive(orphan_pid));
    let after = daemon.state("stays").await.unwrap();
    let shown = |c: &types::Container| {
        let mut list: Vec<_> =
            c.processes.iter().filter(|p| p.pid != "e2").map(|p| (p.pid.clone(), p.system_pid)).collect();
        list.sort();
        list
    };
    assert_eq!(shown(&before[0]), shown(&after[0]));
    assert_status(daemon.state("leaves").await, Code::Unknown, "containerd: container not found");
    // What is found again is as good as new.
    daemon.exec("stays", "e3", &["sh", "-c", "exit 4"]).await.unwrap();
    daemon.wait_event("exit stays e3 4").await;

    daemon.kill();
    daemon.again().await;
    daemon.signal("stays", "e1", 9).await.unwrap();
    daemon.wait_event("exit stays e1 137").await;
    daemon.signal("stays", "init", 9).await.unwrap();
    daemon.wait_event("exit stays init 137").await;
    let exits = daemon.stored().await.into_iter().filter(|e| e.starts_with("exit")).count();
    assert_eq!(exits, 6, "{:?}", daemon.stored().await);
    daemon.assert_clean().await;
}

#[tokio::test]
async fn terminate_leaves_containers_running() {
    let mut daemon = Daemon::start(Oci::Runc).await;
    let container = daemon.run("a", &["sleep", "1000"]).await;
    let stream = daemon.client.clone().events(types::EventsRequest::default()).await.unwrap();
    assert_eq!(daemon.terminate(), Some(0));
    drop(stream);
    assert!(!daemon.socket().exists());
    assert!(daemon.log().contains("stopping containerd after receiving terminated"), "{}", daemon.log());
    assert!(is_alive(container.processes[0].system_pid));
    daemon.again().await;
    daemon.signal("a", "init", 9).await.unwrap();
    daemon.wait_event("exit a init 137").await;
}

/// The configuration as dockerd 17.03 writes it.
fn make_rc2(spec: &mut serde_json::Value) {
    use serde_json::json;
    let no_limit = 18_446_744_073_709_551_615_u64;
    spec["ociVersion"] = "1.0.0-rc2-dev".into();
    spec["platform"] = json!({"os": "linux", "arch": "amd64"});
    spec["process"]["consoleSize"] = json!({"height": 0, "width": 0});
    spec["process"]["capabilities"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    spec["linux"]["resources"]["disableOOMKiller"] = false.into();
    spec["linux"]["resources"]["memory"] = json!({"limit": 32 << 20, "swappiness": no_limit});
    spec["linux"]["resources"]["oomScoreAdj"] = 10.into();
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ERRNO", "args": []},
                     {"name": "mkdirat", "action": "SCMP_ACT_ERRNO", "args": null}]
    });
}

#[tokio::test]
async fn a_bundle_of_dockerd_17_runs_on_a_runtime_of_today() {
    for oci in [Oci::Runc, Oci::Crun] {
        let daemon = Daemon::start(oci).await;
        let script = "cat /proc/self/oom_score_adj; grep CapBnd /proc/self/status; busybox mkdir /tmp/x && echo made";
        let script = script.replace("grep", "busybox grep");
        let bundle = daemon.bundle_with("a", &["sh", "-c", &script], make_rc2);
        let config = std::fs::read(bundle.join("config.json")).unwrap();
        let container = daemon.create(daemon.request_with_output("a", &bundle)).await.unwrap();
        assert_eq!(container.processes[0].capabilities, ["CAP_KILL", "CAP_CHOWN"]);
        daemon.wait_event("exit a init 1").await;
        let output = daemon.output("a");
        assert!(output.starts_with("10\nCapBnd:\t0000000000000021\n"), "{output}");
        assert!(output.contains("mkdir: can't create directory '/tmp/x': Operation not permitted"), "{output}");
        // dockerd reads its own configuration again for every exec.
        assert_eq!(std::fs::read(bundle.join("config.json")).unwrap(), config);
        assert_eq!(container.bundle_path, bundle.to_string_lossy());
    }
}
