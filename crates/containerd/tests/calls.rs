//! Every call's refusals: codes and words as clients of containerd 0.2 know them.

mod common;

use std::fs;

use common::{Daemon, Oci, assert_status};
use containerd_api::types;
use tonic::Code;

const NOT_FOUND: &str = "containerd: container not found";
const NO_PROCESS: &str = "containerd: process not found for container";

fn checkpoint(id: &str, name: &str, dir: &str) -> types::CreateCheckpointRequest {
    let checkpoint = types::Checkpoint { name: name.into(), ..Default::default() };
    types::CreateCheckpointRequest { id: id.into(), checkpoint: Some(checkpoint), checkpoint_dir: dir.into() }
}

#[tokio::test]
async fn an_unknown_container() {
    let daemon = Daemon::start(Oci::Runc).await;
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

#[tokio::test]
async fn create_is_refused_in_the_known_words() {
    let daemon = Daemon::start(Oci::Runc).await;
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
    assert!(refused.message().contains("no such file or directory"), "{}", refused.message());

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

#[tokio::test]
async fn processes_are_refused_in_the_known_words() {
    let daemon = Daemon::start(Oci::Runc).await;
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
    let process = types::UpdateProcessRequest { id: "a".into(), pid: "nope".into(), ..Default::default() };
    assert_status(c.update_process(process).await, Code::Unknown, NO_PROCESS);
    let process =
        types::UpdateProcessRequest { id: "a".into(), pid: "init".into(), width: 70_000, ..Default::default() };
    assert_eq!(c.update_process(process).await.unwrap_err().code(), Code::InvalidArgument);

    let unknown = daemon.update_status("a", "sleeping").await;
    assert_status(unknown, Code::Unknown, "containerd: unknown container status ");
    daemon.update_status("a", "").await.unwrap();
    let resources = types::UpdateResource { memory_limit: 1, ..Default::default() };
    let request = types::UpdateContainerRequest { id: "a".into(), resources: Some(resources), ..Default::default() };
    assert_eq!(c.update_container(request).await.unwrap_err().code(), Code::Unknown);
}

#[tokio::test]
async fn checkpoints_are_refused_in_the_known_words() {
    let daemon = Daemon::start(Oci::Runc).await;
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
    let fake = daemon.dir.join("fake-runc");
    let script = "#!/bin/sh\nfor a; do [ \"$a\" = checkpoint ] && { echo 'criu failed: no' >&2; exit 1; }; done\nexec runc \"$@\"\n";
    fs::write(&fake, script).unwrap();
    fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let request = types::CreateContainerRequest {
        runtime: fake.to_string_lossy().into_owned(),
        runtime_args: vec!["--root".into(), daemon.runtime_root()],
        ..daemon.request("b", &bundle)
    };
    daemon.create(request).await.unwrap();
    let refused = c.create_checkpoint(checkpoint("b", "cp1", &path)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown);
    assert!(refused.message().contains("criu failed: no"), "{}", refused.message());
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

#[tokio::test]
async fn a_start_that_takes_too_long_leaves_nothing() {
    let daemon = Daemon::start_with(Oci::Runc, &["--start-timeout", "500ms"]).await;
    let slow = daemon.dir.join("slow-runc");
    let script = "#!/bin/sh\nfor a; do [ \"$a\" = create ] && exec sleep 1000; done\nexec runc \"$@\"\n";
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bundle = daemon.bundle("a", &["true"]);
    let request = types::CreateContainerRequest {
        runtime: slow.to_string_lossy().into_owned(),
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
#[tokio::test]
async fn state_says_when_pids_cannot_be_read() {
    // With a mount namespace of its own.
    let daemon = Daemon::start(Oci::Crun).await;
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
