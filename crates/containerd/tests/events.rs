//! Replay, filters and retention over gRPC, across restarts.

mod common;

use common::{Daemon, Oci, short};
use containerd_api::types;

async fn ask(daemon: &Daemon, timestamp: prost_types::Timestamp, id: &str) -> Vec<types::Event> {
    let request = types::EventsRequest { timestamp: Some(timestamp), stored_only: true, id: id.into() };
    let mut stream = daemon.client.clone().events(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn replay_filters_and_any_number_of_restarts() {
    let mut daemon = Daemon::start(Oci::Runc).await;
    for id in ["a", "b"] {
        daemon.run(id, &["true"]).await;
        daemon.wait_event(&format!("exit {id} init 0")).await;
    }
    for _ in 0..3 {
        daemon.kill();
        daemon.again().await;
    }
    let epoch = prost_types::Timestamp { seconds: 1, nanos: 0 };
    let all = ask(&daemon, epoch, "").await;
    let texts: Vec<_> = all.iter().map(short).collect();
    assert_eq!(texts, ["start-container a  0", "exit a init 0", "start-container b  0", "exit b init 0"]);
    let after: Vec<_> = ask(&daemon, all[1].timestamp.unwrap(), "").await.iter().map(short).collect();
    assert_eq!(after, texts[2..]);
    let only: Vec<_> = ask(&daemon, epoch, "b").await.iter().map(short).collect();
    assert_eq!(only, texts[2..]);
    assert!(ask(&daemon, all[3].timestamp.unwrap(), "").await.is_empty());

    // Replay goes over into what happens next, without a gap.
    let request = types::EventsRequest { timestamp: all[2].timestamp, stored_only: false, id: "b".into() };
    let mut stream = daemon.client.clone().events(request).await.unwrap().into_inner();
    daemon.run("c", &["true"]).await;
    daemon.run("b", &["sh", "-c", "exit 3"]).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(short(&stream.message().await.unwrap().unwrap()));
    }
    assert_eq!(told, ["exit b init 0", "start-container b  0", "exit b init 3"]);
}

#[tokio::test]
async fn a_torn_journal_is_no_obstacle_and_retention_holds() {
    use std::io::Write;
    let mut daemon = Daemon::start_with(Oci::Runc, &["--retain-count", "2"]).await;
    for _ in 0..4 {
        daemon.run("a", &["true"]).await;
        while !daemon.state("").await.unwrap().is_empty() {}
    }
    daemon.kill();
    let journal = daemon.state_dir().join("events.log");
    let mut file = std::fs::OpenOptions::new().append(true).open(&journal).unwrap();
    file.write_all(b"{\"id\":\"a\",\"type\":\"ex").unwrap();
    drop(file);
    daemon.again().await;
    let stored = daemon.stored().await;
    assert!((2..=4).contains(&stored.len()), "{stored:?}");
    assert_eq!(stored.last().unwrap(), "exit a init 0");
}
