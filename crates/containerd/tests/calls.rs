//! Every call's refusals: codes and words as clients of containerd 0.2 know them.

mod common;

use std::fs;

use common::{Daemon, Oci, assert_status};
use containerd_api::types;
use tonic::Code;

const NOT_FOUND: &str = "containerd: container not found";
const NO_PROCESS: &str = "containerd: process not found for container";

with_each_runtime! {
    an_unknown_container,
    create_is_refused_in_the_known_words,
    a_runtime_that_says_nothing_and_a_shim_that_goes,
    processes_are_refused_in_the_known_words,
    pausing_and_limits_are_refused_in_the_runtimes_words,
    checkpoints_are_refused_in_the_known_words,
    a_start_that_takes_too_long_leaves_nothing,
    state_says_when_pids_cannot_be_read,
}

fn checkpoint(id: &str, name: &str, dir: &str) -> types::CreateCheckpointRequest {
    let checkpoint = types::Checkpoint { name: name.into(), ..Default::default() };
    types::CreateCheckpointRequest { id: id.into(), checkpoint: Some(checkpoint), checkpoint_dir: dir.into() }
}

async fn an_unknown_container(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    let mut c = daemon.client.clone();
    let id = || "nope".to_owned();
    assert_status(daemon.state("nope").await, Code::Unknown, NOT_FOUND);
    assert_status(daemon.signal("nope", "init", 9).await, Code::Unknown, NOT_FOUND);
    assert_status(daemon.update_status("nope", "paused").await, Code::Unknown, NOT_FOUND);
    assert_status(daemon.exec("nope", "e", &["true"]).await, Code::Unknown, NOT_FOUND);
    let process = types::UpdateProcessRequest { id: id(), pid: "init".into(), ..Default::default() };
    assert_status(c.update_process(process).await, Code::Unknown, NOT_FOUND);
    assert_status(c.stats(types::StatsRequest { id: id() }).await, Code::Unknown, NOT_FOUND);
    assert_status(c.create_checkpoint(checkpoint("nope", "cp1", "")).await, Code::Unknown, NOT_FOUND);
    let delete = types::DeleteCheckpointRequest { id: id(), name: "cp1".into(), ..Default::default() };
    assert_status(c.delete_checkpoint(delete).await, Code::Unknown, NOT_FOUND);
    let list = types::ListCheckpointRequest { id: id(), ..Default::default() };
    assert_status(c.list_checkpoint(list).await, Code::NotFound, "no such containers");
    // Without an id, everything there is: nothing.
    assert!(daemon.state("").await.unwrap().is_empty());
}

#[tokio::test]
async fn version_machine_and_health() {
    use containerd_api::health::HealthCheckRequest;
    use containerd_api::health::health_client::HealthClient;
    let daemon = Daemon::start(Oci::Runc).await;
    let version =
        daemon.client.clone().get_server_version(types::GetServerVersionRequest {}).await.unwrap().into_inner();
    assert_eq!((version.major, version.minor, version.patch), (0, 2, 3));
    let state = daemon.client.clone().state(types::StateRequest::default()).await.unwrap().into_inner();
    let machine = state.machine.unwrap();
    assert!(machine.cpus > 0 && machine.memory > 0);
    let mut health = HealthClient::new(containerd_api::connect(&daemon.socket()).await.unwrap());
    assert_eq!(health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status, 1);
    let other = health.check(HealthCheckRequest { service: "types.API".into() }).await;
    assert_status(other, Code::NotFound, "unknown service");
}

async fn create_is_refused_in_the_known_words(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    let state = daemon.state_dir();
    let state = state.display();
    let bundle = daemon.bundle("a", &["sleep", "1000"]);
    let create = |request| daemon.create(request);

    let request = types::CreateContainerRequest { id: "x".into(), ..Default::default() };
    assert_status(create(request).await, Code::Unknown, "empty bundle path");
    let text = format!("mkdir {state}: file exists");
    assert_status(create(daemon.request("", &bundle)).await, Code::AlreadyExists, &text);
    let text = format!("mkdir {state}/a/b: no such file or directory");
    assert_status(create(daemon.request("a/b", &bundle)).await, Code::NotFound, &text);
    let text = "oci runtime error: invalid id format: ../x\n";
    assert_status(create(daemon.request("../x", &bundle)).await, Code::Unknown, text);
    let empty = daemon.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    let text = format!("open {}/config.json: no such file or directory", empty.display());
    assert_status(create(daemon.request("x", &empty)).await, Code::NotFound, &text);

    let broken = daemon.bundle("broken", &["true"]);
    for config in ["{", "[]", r#"{"process": {"capabilities": 5}}"#] {
        fs::write(broken.join("config.json"), config).unwrap();
        let refused = create(daemon.request("x", &broken)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unknown, "{config}: {refused:?}");
        // The last is the runtime's to judge.
        let words = if config.len() > 2 { "oci runtime error: " } else { "config.json" };
        assert!(refused.message().contains(words), "{config}: {refused:?}");
    }

    let request = types::CreateContainerRequest { runtime: "/nope/runc".into(), ..daemon.request("x", &bundle) };
    let text = "shim error: fork/exec /nope/runc: no such file or directory";
    assert_status(create(request).await, Code::Unknown, text);
    let request = types::CreateContainerRequest { runtime: "nope-runc".into(), ..daemon.request("x", &bundle) };
    assert_status(create(request).await, Code::Unknown, "shim error: nope-runc not installed on system");
    let request = types::CreateContainerRequest { stdin: "/nope/in".into(), ..daemon.request("x", &bundle) };
    assert_status(create(request).await, Code::Unknown, "shim error: stat /nope/in: no such file or directory");
    let dir = daemon.dir.join("checkpoints");
    let request = types::CreateContainerRequest {
        checkpoint: "cp1".into(),
        checkpoint_dir: dir.to_string_lossy().into_owned(),
        ..daemon.request("x", &bundle)
    };
    let text = format!("shim error: open {}/cp1/config.json: no such file or directory", dir.display());
    assert_status(create(request.clone()).await, Code::Unknown, &text);
    let request = types::CreateContainerRequest { checkpoint: "../cp1".into(), ..request };
    assert_eq!(create(request).await.unwrap_err().code(), Code::InvalidArgument);

    let missing = daemon.bundle("missing", &["/no/such/program"]);
    let refused = create(daemon.request("x", &missing)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    assert!(refused.message().starts_with("oci runtime error: "), "{}", refused.message());
    assert!(refused.message().to_lowercase().contains("no such file or directory"), "{}", refused.message());

    // After all this the id is free, no event was told, and nothing is left.
    assert_eq!(daemon.stored().await, Vec::<String>::new());
    create(daemon.request("a", &bundle)).await.unwrap();
    let text = format!("mkdir {state}/a: file exists");
    assert_status(create(daemon.request("a", &bundle)).await, Code::AlreadyExists, &text);
    daemon.signal("a", "init", 9).await.unwrap();
    daemon.wait_event("exit a init 137").await;
    daemon.assert_clean().await;
    assert!(!daemon.log().contains("killed"), "a shim did not end by itself:\n{}", daemon.log());
}

#[tokio::test]
async fn a_missing_shim_is_named() {
    let daemon = Daemon::start_with(Oci::Runc, &["--shim", "no-such-shim"]).await;
    let bundle = daemon.bundle("a", &["true"]);
    let created = daemon.create(daemon.request("a", &bundle)).await;
    assert_status(created, Code::Unknown, "no-such-shim not installed on system");
    daemon.assert_clean().await;
}

async fn a_runtime_that_says_nothing_and_a_shim_that_goes(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    let script =
        |what: &str| format!("for a; do [ \"$a\" = {what} ] || continue; $DO\ndone\nexec {} \"$@\"", oci.name());
    let with = |id: &str, name: &str, script: &str| types::CreateContainerRequest {
        runtime: daemon.script(name, script),
        runtime_args: vec!["--root".into(), daemon.runtime_root()],
        ..daemon.request(id, &daemon.bundle(id, &["sleep", "1000"]))
    };
    let silent = script("create").replace("$DO", "exit 1");
    let text = "containerd: container not started";
    assert_status(daemon.create(with("a", "silent-runtime", &silent)).await, Code::Unknown, text);
    // The runtime's parent is the shim.
    let deadly = script("create").replace("$DO", "kill -9 $PPID; exec sleep 1000");
    let text = "containerd: shim exited before container process was started";
    assert_status(daemon.create(with("a", "deadly-runtime", &deadly)).await, Code::Unknown, text);
    assert_eq!(daemon.stored().await, Vec::<String>::new());
    daemon.assert_clean().await;
    // The same of an exec.
    let silent = script("exec").replace("$DO", "exit 1");
    daemon.create(with("a", "silent-runtime", &silent)).await.unwrap();
    let text = "containerd: container not started";
    assert_status(daemon.exec("a", "e", &["true"]).await, Code::Unknown, text);
    assert!(!daemon.state_dir().join("a/e").exists());
    daemon.signal("a", "init", 9).await.unwrap();
    daemon.wait_event("exit a init 137").await;
    daemon.assert_clean().await;
}

async fn processes_are_refused_in_the_known_words(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    let mut c = daemon.client.clone();
    daemon.run("a", &["sleep", "1000"]).await;
    assert_status(daemon.exec("", "e", &["true"]).await, Code::Unknown, "container id cannot be empty");
    assert_status(daemon.exec("a", "", &["true"]).await, Code::Unknown, "process id cannot be empty");
    let dir = daemon.state_dir().join("a");
    let text = format!("mkdir {}/init: file exists", dir.display());
    assert_status(daemon.exec("a", "init", &["true"]).await, Code::AlreadyExists, &text);
    daemon.exec("a", "e1", &["sleep", "1000"]).await.unwrap();
    let text = format!("mkdir {}/e1: file exists", dir.display());
    assert_status(daemon.exec("a", "e1", &["true"]).await, Code::AlreadyExists, &text);
    assert_eq!(daemon.exec("a", "../e", &["true"]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(daemon.exec("a", "e2", &[]).await.unwrap_err().code(), Code::InvalidArgument);
    let missing = daemon.exec("a", "e2", &["/no/such/program"]).await.unwrap_err();
    assert!(missing.message().starts_with("oci runtime error: "), "{}", missing.message());
    assert!(!dir.join("e2").exists());
    // Nobody in particular is root.
    let request = types::AddProcessRequest {
        id: "a".into(),
        pid: "e3".into(),
        args: vec!["/bin/true".into()],
        ..Default::default()
    };
    c.add_process(request).await.unwrap();
    daemon.wait_event("exit a e3 0").await;

    assert_status(daemon.signal("a", "nope", 9).await, Code::Unknown, NO_PROCESS);
    assert_status(daemon.signal("a", "", 9).await, Code::Unknown, NO_PROCESS);
    for bad in [65, 1000, u32::MAX] {
        assert_status(daemon.signal("a", "init", bad).await, Code::Unknown, "invalid argument");
    }
    // One that has ended, of which somebody else holds the output.
    let stdout = common::mkfifo(&daemon.dir.join("e4.out"));
    let reader = common::read_fifo(&stdout);
    let request = types::AddProcessRequest {
        id: "a".into(),
        pid: "e4".into(),
        args: ["/bin/sh", "-c", "sleep 1000 & exit 0"].map(String::from).to_vec(),
        stdout,
        ..Default::default()
    };
    let gone = c.add_process(request).await.unwrap().into_inner().system_pid;
    common::wait("the end of a process", || !common::is_alive(gone)).await;
    assert_status(daemon.signal("a", "e4", 9).await, Code::Unknown, "no such process");

    let process = types::UpdateProcessRequest { id: "a".into(), pid: "nope".into(), ..Default::default() };
    assert_status(c.update_process(process).await, Code::Unknown, NO_PROCESS);
    let process =
        types::UpdateProcessRequest { id: "a".into(), pid: "init".into(), width: 70_000, ..Default::default() };
    assert_eq!(c.update_process(process).await.unwrap_err().code(), Code::InvalidArgument);

    daemon.signal("a", "init", 9).await.unwrap();
    daemon.wait_event("exit a init 137").await;
    assert_eq!(reader.join().unwrap(), "");
    daemon.assert_clean().await;
}

async fn pausing_and_limits_are_refused_in_the_runtimes_words(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    // crun thaws what is not frozen, and freezes what is, without a word.
    let strict = format!(
        "for a; do case $a in pause|resume) [ \"$(cat {0} 2>/dev/null)\" != $a ] || {{ echo \"is 5%s \\\"$a\\\" already\"; exit 1; }}\n\
         echo $a > {0};; update) echo 'no % here' >&2; exit 1;; esac; done\nexec {1} \"$@\"",
        daemon.dir.join("said").display(),
        oci.name()
    );
    let request = types::CreateContainerRequest {
        runtime: daemon.script("strict-runtime", &strict),
        runtime_args: vec!["--root".into(), daemon.runtime_root()],
        ..daemon.request("strict", &daemon.bundle("strict", &["sleep", "1000"]))
    };
    daemon.create(request).await.unwrap();
    daemon.run("a", &["sleep", "1000"]).await;
    for status in ["paused", "running"] {
        let called = if status == "paused" { "pause" } else { "resume" };
        daemon.update_status("strict", status).await.unwrap();
        let text = format!("exit status 1: \"is 5%s \\\"{called}\\\" already\\n\"");
        assert_status(daemon.update_status("strict", status).await, Code::Unknown, &text);
        daemon.update_status("a", status).await.unwrap();
        // The real ones may have no objection.
        if let Err(refused) = daemon.update_status("a", status).await {
            assert_eq!(refused.code(), Code::Unknown);
            assert!(refused.message().starts_with("exit status 1: \""), "{refused:?}");
        }
    }

    let unknown = daemon.update_status("a", "sleeping").await;
    assert_status(unknown, Code::Unknown, "containerd: unknown container status ");
    daemon.update_status("a", "").await.unwrap();
    let update = |id: &str| {
        let resources = types::UpdateResource { memory_limit: 1, ..Default::default() };
        let request = types::UpdateContainerRequest { id: id.into(), resources: Some(resources), ..Default::default() };
        let mut c = daemon.client.clone();
        async move { c.update_container(request).await }
    };
    assert_status(update("strict").await, Code::Unknown, "no % here\n");
    let refused = update("a").await.unwrap_err();
    assert!(refused.code() == Code::Unknown && !refused.message().is_empty(), "{refused:?}");
    let events = daemon.events_of("strict").await;
    assert_eq!(events, ["start-container strict  0", "pause strict  0", "resume strict  0"]);
}

async fn checkpoints_are_refused_in_the_known_words(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    let mut c = daemon.client.clone();
    daemon.run("a", &["sleep", "1000"]).await;
    let dir = daemon.dir.join("cps");
    let path = dir.to_string_lossy().into_owned();

    let request = types::ListCheckpointRequest { id: "a".into(), checkpoint_dir: path.clone() };
    let text = format!("open {path}: no such file or directory");
    assert_status(c.list_checkpoint(request.clone()).await, Code::NotFound, &text);

    let request = types::CreateCheckpointRequest { id: "a".into(), ..Default::default() };
    assert_eq!(c.create_checkpoint(request).await.unwrap_err().code(), Code::InvalidArgument);
    let text = format!("mkdir {path}: file exists");
    assert_status(c.create_checkpoint(checkpoint("a", "", &path)).await, Code::AlreadyExists, &text);
    for name in ["../esc", "a/b", ".", ".hidden"] {
        let refused = c.create_checkpoint(checkpoint("a", name, &path)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
        let request =
            types::DeleteCheckpointRequest { id: "a".into(), name: name.into(), checkpoint_dir: path.clone() };
        assert_eq!(c.delete_checkpoint(request).await.unwrap_err().code(), Code::InvalidArgument, "{name}");
    }
    fs::create_dir_all(dir.join("taken")).unwrap();
    fs::write(dir.join("taken/config.json"), r#"{"name":"taken","tcp":true}"#).unwrap();
    fs::create_dir_all(dir.join("not-one")).unwrap();
    let text = format!("mkdir {path}/taken: file exists");
    assert_status(c.create_checkpoint(checkpoint("a", "taken", &path)).await, Code::AlreadyExists, &text);
    let request = types::ListCheckpointRequest { id: "a".into(), checkpoint_dir: path.clone() };
    let listed = c.list_checkpoint(request.clone()).await.unwrap().into_inner().checkpoints;
    assert_eq!(listed, [types::Checkpoint { name: "taken".into(), tcp: true, ..Default::default() }]);

    let request = types::DeleteCheckpointRequest { id: "a".into(), checkpoint_dir: path.clone(), ..Default::default() };
    assert_status(c.delete_checkpoint(request.clone()).await, Code::Unknown, "checkpoint name cannot be empty");
    for _ in 0..2 {
        let request = types::DeleteCheckpointRequest { name: "taken".into(), ..request.clone() };
        c.delete_checkpoint(request).await.unwrap();
    }
    assert!(!dir.join("taken").exists());

    // A runtime that cannot: the directory does not stay.
    let bundle = daemon.bundle("b", &["sleep", "1000"]);
    let script =
        "for a; do [ \"$a\" = checkpoint ] && { echo 'criu failed: no' >&2; exit 1; }; done\nexec RUNTIME \"$@\"";
    let request = types::CreateContainerRequest {
        runtime: daemon.script("fake-runtime", &script.replace("RUNTIME", oci.name())),
        runtime_args: vec!["--root".into(), daemon.runtime_root()],
        ..daemon.request("b", &bundle)
    };
    daemon.create(request).await.unwrap();
    let refused = c.create_checkpoint(checkpoint("b", "cp1", &path)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    assert_eq!(refused.message(), "exit status 1: \"criu failed: no\\n\"");
    assert!(!dir.join("cp1").exists());
}

#[tokio::test]
async fn events_are_refused_in_the_known_words() {
    let daemon = Daemon::start(Oci::Runc).await;
    let mut c = daemon.client.clone();
    let events = |seconds: Option<i64>, stored_only| types::EventsRequest {
        timestamp: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        stored_only,
        id: String::new(),
    };
    let text = "invalid parameter: StoredOnly cannot be specified without setting a valid Timestamp";
    for zero in [None, Some(-62_135_596_800)] {
        assert_status(c.events(events(zero, true)).await.map(drop), Code::Unknown, text);
    }
    let refused = c.events(events(Some(-62_135_596_801), false)).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    assert!(refused.message().ends_with("before 0001-01-01"), "{}", refused.message());
}

async fn a_start_that_takes_too_long_leaves_nothing(oci: Oci) {
    let daemon = Daemon::start_with(oci, &["--start-timeout", "500ms"]).await;
    let script = "for a; do [ \"$a\" = create ] && exec sleep 1000; done\nexec RUNTIME \"$@\"";
    let bundle = daemon.bundle("a", &["true"]);
    let request = types::CreateContainerRequest {
        runtime: daemon.script("slow-runtime", &script.replace("RUNTIME", oci.name())),
        runtime_args: vec!["--root".into(), daemon.runtime_root()],
        ..daemon.request("a", &bundle)
    };
    let text = "containerd: container did not start before the specified timeout";
    assert_status(daemon.create(request).await, Code::Unknown, text);
    assert_eq!(daemon.stored().await, Vec::<String>::new());
    daemon.assert_clean().await;
    daemon.run("a", &["true"]).await;
}

/// The container's pids cannot be read: something else is mounted over its group, where docker-containerd looks.
async fn state_says_when_pids_cannot_be_read(oci: Oci) {
    let daemon = Daemon::start_apart(oci).await;
    daemon.run("a", &["sleep", "1000"]).await;
    let cover = daemon.dir.join("cover");
    fs::create_dir_all(cover.join("cgroup.procs")).unwrap();
    let group = daemon.cgroups().into_iter().find(|dir| dir.starts_with("/sys/fs/cgroup/devices")).unwrap();
    let inside = |args: &[&std::ffi::OsStr]| {
        let pid = daemon.pid().to_string();
        let status = std::process::Command::new("nsenter").args(["-t", &pid, "-m"]).args(args).status().unwrap();
        assert!(status.success());
    };
    inside(&["mount".as_ref(), "--bind".as_ref(), cover.as_ref(), group.as_ref()]);
    let refused = daemon.state("a").await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused:?}");
    assert!(refused.message().starts_with("get all pids for container: "), "{refused:?}");
    inside(&["umount".as_ref(), group.as_ref()]);
    assert_eq!(daemon.state("a").await.unwrap().len(), 1);
}
