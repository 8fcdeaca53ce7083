//! Checkpoint and restore with a real CRIU, where there is one that works.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Daemon, Oci};
use containerd_api::types;

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";

fn has_criu() -> bool {
    let check = Command::new("env").args(["criu", "check"]).env("PATH", common::path()).output();
    let works = check.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: no CRIU that works on this kernel");
    }
    works
}

fn last_number(text: &str) -> u64 {
    text.lines().filter_map(|line| line.parse().ok()).next_back().unwrap_or(0)
}

fn create(id: &str, name: &str, dir: &Path, exit: bool) -> types::CreateCheckpointRequest {
    let checkpoint = types::Checkpoint { name: name.into(), exit, ..Default::default() };
    let dir = dir.to_string_lossy().into_owned();
    types::CreateCheckpointRequest { id: id.into(), checkpoint: Some(checkpoint), checkpoint_dir: dir }
}

#[tokio::test]
async fn a_container_sleeps_and_wakes_as_often_as_wanted() {
    if has_criu() {
        sleep_and_wake(Oci::Runc, false).await;
    }
}

#[tokio::test]
async fn our_runtime_chooses_the_options_itself() {
    if has_criu() && Oci::DockerRunc.exists() {
        sleep_and_wake(Oci::DockerRunc, true).await;
    }
}

async fn sleep_and_wake(oci: Oci, auto: bool) {
    let mut daemon = Daemon::start(oci).await;
    let c = daemon.client.clone();
    let bundle = daemon.bundle("a", &["sh", "-c", COUNT]);
    let dir = daemon.dir.join("checkpoints");
    let stdout = common::mkfifo(&bundle.join("out"));
    let reader = common::read_fifo(&stdout);
    let request = types::CreateContainerRequest { stdout: stdout.clone(), ..daemon.request("a", &bundle) };
    daemon.create(request.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let create = |name, exit| {
        let mut request = create("a", name, &dir, exit);
        if let Some(checkpoint) = &mut request.checkpoint {
            checkpoint.auto = auto;
        }
        let mut c = c.clone();
        async move { c.create_checkpoint(request).await }
    };
    let response = create("cp1", false).await.unwrap().into_inner();
    assert_eq!(response.stats.contains("total_us"), auto, "{}", response.stats);
    assert_eq!(daemon.state("a").await.unwrap().len(), 1, "left running");
    create("cp2", true).await.unwrap();
    daemon.wait_event("exit a init 137").await;
    let last = last_number(&reader.join().unwrap());
    assert!(last > 0);
    let record: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("cp2/config.json")).unwrap()).unwrap();
    assert_eq!((record["name"].as_str(), record["exit"].as_bool()), (Some("cp2"), Some(true)));

    for round in 0..3 {
        let reader = common::read_fifo(&stdout);
        let request = types::CreateContainerRequest {
            checkpoint: "cp2".into(),
            checkpoint_dir: dir.to_string_lossy().into_owned(),
            ..request.clone()
        };
        let container = daemon.create(request).await.unwrap();
        assert!(container.processes[0].system_pid > 0);
        if round == 1 {
            // What was restored is found again like everything else.
            daemon.kill();
            daemon.again().await;
        }
        assert_eq!(daemon.exec("a", "e", &["true"]).await.map(|pid| pid > 0).ok(), Some(true));
        tokio::time::sleep(Duration::from_millis(300)).await;
        daemon.signal("a", "init", 9).await.unwrap();
        let text = reader.join().unwrap();
        let first = text.lines().find_map(|line| line.parse::<u64>().ok()).unwrap();
        assert!(first >= last && first <= last + 2, "round {round}: went on from {first}, not {last}");
        while !daemon.state("").await.unwrap().is_empty() {}
    }
    daemon.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_checkpoints_and_wakes_take_is_counted() {
    if !has_criu() || !Oci::DockerRunc.exists() {
        return;
    }
    let port = common::free_port();
    let daemon = Daemon::start_with(Oci::DockerRunc, &["--pprof-address", &format!("127.0.0.1:{port}")]).await;
    let value = |name: &str| -> f64 {
        let metrics = common::get(port, "/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("containerd_{name} ")));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {metrics}"))
    };
    let count = |timer: &str| value(&format!("{timer}_seconds_count"));
    let bundle = daemon.bundle("a", &["sh", "-c", COUNT]);
    daemon.create(daemon.request("a", &bundle)).await.unwrap();
    assert_eq!(["checkpoint_time", "checkpoint_frozen_time", "restore_time"].map(count), [0.0; 3]);
    let dir = daemon.dir.join("checkpoints");
    for (name, exit) in [("cp1", false), ("cp2", true)] {
        let mut request = create("a", name, &dir, exit);
        request.checkpoint.as_mut().unwrap().auto = true;
        daemon.client.clone().create_checkpoint(request).await.unwrap();
    }
    daemon.wait_event("exit a init 137").await;
    // One that fails takes time, too, but is none of these.
    let missing = create("nobody", "cp3", &dir, true);
    assert!(daemon.client.clone().create_checkpoint(missing).await.is_err());
    let request = types::CreateContainerRequest {
        checkpoint: "cp2".into(),
        checkpoint_dir: dir.to_string_lossy().into_owned(),
        ..daemon.request("a", &bundle)
    };
    daemon.create(request).await.unwrap();
    assert_eq!(["checkpoint_time", "checkpoint_frozen_time", "restore_time"].map(count), [2.0, 2.0, 1.0]);
    let sum = |timer: &str| value(&format!("{timer}_seconds_sum"));
    assert!(sum("checkpoint_frozen_time") > 0.0 && sum("checkpoint_frozen_time") < sum("checkpoint_time"));
    assert!(sum("restore_time") > 0.0);
    daemon.signal("a", "init", 9).await.unwrap();
    daemon.wait_event("exit a init 137").await;
}

#[tokio::test]
async fn a_checkpoint_of_one_container_holds_up_no_other() {
    let daemon = Daemon::start(Oci::Runc).await;
    let go = daemon.dir.join("go");
    let script = format!(
        "for a; do [ \"$a\" = checkpoint ] || continue; while [ ! -e {} ]; do sleep 0.02; done; exit 1; done\nexec runc \"$@\"",
        go.display()
    );
    let request = types::CreateContainerRequest {
        runtime: daemon.script("slow-runc", &script),
        runtime_args: vec!["--root".into(), daemon.runtime_root()],
        ..daemon.request("a", &daemon.bundle("a", &["sleep", "1000"]))
    };
    daemon.create(request).await.unwrap();
    daemon.run("b", &["sleep", "1000"]).await;
    let dir = daemon.dir.join("checkpoints");
    let (mut c, image) = (daemon.client.clone(), dir.join("cp1"));
    let dumping = tokio::spawn(async move { c.create_checkpoint(create("a", "cp1", &dir, false)).await });
    common::wait("the dump", || image.exists()).await;
    // None of these waits for the dump, which waits for us.
    for exec in ["e1", "e2"] {
        daemon.state("b").await.unwrap();
        daemon.exec("b", exec, &["true"]).await.unwrap();
        daemon.wait_event(&format!("exit b {exec} 0")).await;
    }
    assert_eq!(daemon.state("a").await.unwrap().len(), 1);
    daemon.update_status("b", "paused").await.unwrap();
    daemon.update_status("b", "running").await.unwrap();
    daemon.signal("b", "init", 9).await.unwrap();
    daemon.wait_event("exit b init 137").await;
    assert!(!dumping.is_finished());
    fs::write(go, "").unwrap();
    assert!(dumping.await.unwrap().is_err());
}

#[tokio::test]
async fn a_checkpoint_survives_the_end_of_docker_containerd() {
    if !has_criu() {
        return;
    }
    // Killed at different moments of the dump, the container is asleep with a checkpoint, or awake without one.
    for delay_ms in [0, 20, 60, 120, 250] {
        let mut daemon = Daemon::start(Oci::Runc).await;
        daemon.run("a", &["sh", "-c", COUNT]).await;
        let dir = daemon.dir.join("checkpoints");
        let mut c = daemon.client.clone();
        let request = create("a", "cp1", &dir, true);
        let dumping = tokio::spawn(async move { c.create_checkpoint(request).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        daemon.kill();
        let _ = dumping.await;
        daemon.again().await;
        let end = std::time::Instant::now() + common::PATIENCE;
        loop {
            let is_awake = !daemon.state("").await.unwrap().is_empty();
            let is_whole = dir.join("cp1/config.json").exists();
            let exists = dir.join("cp1").exists();
            if (!is_awake && is_whole) || (is_awake && !exists) {
                break;
            }
            assert!(
                std::time::Instant::now() < end,
                "{delay_ms} ms: awake {is_awake}, whole {is_whole}, there {exists}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Its note goes with the container's state, so what is left of it has to go before.
#[tokio::test]
async fn a_checkpoint_cut_off_with_its_shim_leaves_nothing() {
    for daemon_dies in [false, true] {
        let mut daemon = Daemon::start(Oci::Runc).await;
        // Below the runtime is one who holds the directory and writes on without it, as CRIU does.
        let script = "for a; do [ \"$a\" = checkpoint ] && dump=1; [ \"$p\" = --image-path ] && image=$a; p=$a; done\n\
            [ -z \"$dump\" ] || { (exec 3< \"$image\"; i=0; while [ $i -lt 30 ]; do i=$((i+1)); : > \"$image/$i\";\n\
            sleep 0.05; done) & echo > \"$image/pages-1.img\"; exec sleep 1000; }\nexec runc \"$@\"";
        let request = types::CreateContainerRequest {
            runtime: daemon.script("endless-runc", script),
            runtime_args: vec!["--root".into(), daemon.runtime_root()],
            ..daemon.request("a", &daemon.bundle("a", &["sleep", "1000"]))
        };
        daemon.create(request).await.unwrap();
        let dir = daemon.dir.join("checkpoints");
        let mut c = daemon.client.clone();
        let request = create("a", "cp1", &dir, true);
        let dumping = tokio::spawn(async move { c.create_checkpoint(request).await.map(drop) });
        common::wait("the dump", || dir.join("cp1/pages-1.img").exists()).await;
        if daemon_dies {
            daemon.kill();
            daemon.again().await;
        }
        let shims = common::shims_of(&daemon.dir.to_string_lossy());
        common::signal(shims[0], "KILL");
        assert!(dumping.await.unwrap().is_err());
        daemon.wait_event("exit a init 137").await;
        assert!(!dir.join("cp1").exists(), "half a checkpoint is left, daemon killed: {daemon_dies}");
        daemon.assert_clean().await;
    }
}

/// That is what dockerd's waiting until a checkpoint is settled rests on: as long as the container has not ended for good
/// it is there to be asked for.
#[tokio::test]
async fn the_checkpoints_of_an_ending_container_are_within_reach() {
    let daemon = Daemon::start(Oci::Runc).await;
    let go = daemon.dir.join("go");
    let script = format!(
        "for a; do [ \"$a\" = delete ] || continue; while [ ! -e {} ]; do sleep 0.02; done; done\nexec runc \"$@\"",
        go.display()
    );
    let request = types::CreateContainerRequest {
        runtime: daemon.script("slow-runc", &script),
        runtime_args: vec!["--root".into(), daemon.runtime_root()],
        ..daemon.request("a", &daemon.bundle("a", &["sleep", "1000"]))
    };
    daemon.create(request).await.unwrap();
    let dir = daemon.dir.join("checkpoints");
    fs::create_dir_all(dir.join("cp1")).unwrap();
    // docker-containerd itself clears up after a shim that has died.
    common::signal(common::shims_of(&daemon.dir.to_string_lossy())[0], "KILL");
    let mut c = daemon.client.clone();
    while daemon.state("a").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let request = types::DeleteCheckpointRequest {
        id: "a".into(),
        name: "cp1".into(),
        checkpoint_dir: dir.to_string_lossy().into_owned(),
    };
    c.delete_checkpoint(request.clone()).await.unwrap();
    assert!(!dir.join("cp1").exists());
    fs::write(go, "").unwrap();
    daemon.wait_event("exit a init 137").await;
    let gone = c.delete_checkpoint(request).await.unwrap_err();
    assert!(gone.message().contains("container not found"), "{gone}");
}
