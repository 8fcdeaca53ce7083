//! Many containers at once: ten clients start them through `types.API`; figures for starts per second and memory.
//!
//! 40 of them on runc; 200 with `DORMOUSE_LONG`, on the runtime that `DORMOUSE_RUNTIME` names (`runc`, `docker-runc`).

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use common::{Daemon, Oci, shims_of};
use containerd_api::types;

const CLIENTS: usize = 10;

fn containers() -> usize {
    if std::env::var_os("DORMOUSE_LONG").is_some() { 200 } else { 40 }
}

/// Proportional and private memory of a process, in KiB.
fn memory_kib(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    (field("Pss:"), field("Private_Clean:") + field("Private_Dirty:"))
}

#[tokio::test]
async fn ten_clients_start_many_containers_at_once() {
    let daemon = Daemon::start(Oci::asked_for()).await;
    let (idle_pss, _) = memory_kib(daemon.pid());
    let count = containers();
    let requests: Vec<_> = (0..count)
        .map(|n| {
            let id = format!("n{n}");
            daemon.request(&id, &daemon.bundle(&id, &["sleep", "1000"]))
        })
        .collect();
    let since = Instant::now();
    let requests = Arc::new(requests);
    let starting: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (requests, dir) = (Arc::clone(&requests), daemon.dir.clone());
            tokio::spawn(async move {
                let mut c = common::connect(&dir).await;
                for request in requests.iter().skip(client).step_by(CLIENTS) {
                    c.create_container(request.clone()).await.unwrap();
                }
            })
        })
        .collect();
    for client in starting {
        client.await.unwrap();
    }
    let seconds = since.elapsed().as_secs_f64();
    assert_eq!(daemon.state("").await.unwrap().len(), count);
    let since = Instant::now();
    daemon.state("").await.unwrap();
    let state = since.elapsed();
    let (pss, private) = memory_kib(daemon.pid());
    let shims = shims_of(&daemon.dir.to_string_lossy());
    assert_eq!(shims.len(), count);
    let memory: Vec<_> = shims.iter().map(|pid| memory_kib(*pid)).collect();
    let shims_pss = memory.iter().map(|(pss, _)| pss).sum::<u64>();
    let shim_private = memory.iter().map(|(_, private)| private).sum::<u64>() / count as u64;
    println!(
        "{count} containers in {seconds:.2} s: {:.1}/s; state of all in {state:?}; daemon: PSS {idle_pss} KiB idle, \
         {pss} KiB full ({private} private); shims: PSS {} KiB each, {shim_private} KiB private",
        count as f64 / seconds,
        shims_pss / count as u64,
    );
    let mut c = daemon.client.clone();
    for n in 0..count {
        c.signal(types::SignalRequest { id: format!("n{n}"), pid: "init".into(), signal: 9 }).await.unwrap();
    }
    while !daemon.state("").await.unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    daemon.assert_clean().await;
    let exits =
        daemon.stored().await.into_iter().filter(|e| e.starts_with("exit ") && e.ends_with(" init 137")).count();
    assert_eq!(exits, count);
}
