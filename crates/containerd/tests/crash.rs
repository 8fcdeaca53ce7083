//! docker-containerd and shims killed at random moments under load. Afterwards: every exit and event exactly once, no
//! container lost or left behind, nothing leaked.

mod common;

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Client, Daemon, Oci, connect, entries, shims_of, short, signal, wait};
use containerd_api::types;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WORKERS: u64 = 3;

/// What a client was told of one container.
#[derive(Debug, Default, Clone)]
struct Told {
    started: bool,
    /// The status it must have ended with, if nobody killed anything.
    status: Option<u32>,
    processes: Vec<(String, u32)>,
}

type Book = Arc<Mutex<HashMap<String, Told>>>;

fn length() -> Duration {
    let long = std::env::var_os("DORMOUSE_LONG").is_some();
    Duration::from_secs(if long { 600 } else { 20 })
}

async fn work(
    number: u64,
    end: Instant,
    dir: std::path::PathBuf,
    bundles: [types::CreateContainerRequest; 2],
    book: Book,
) {
    let mut random = StdRng::seed_from_u64(number);
    let mut client: Option<Client> = None;
    let mut count = 0;
    while Instant::now() < end {
        let mut c = match client.take() {
            Some(client) => client,
            None => connect(&dir).await,
        };
        count += 1;
        let id = format!("w{number}-{count}");
        let short_lived = random.random_bool(0.5);
        let request = types::CreateContainerRequest { id: id.clone(), ..bundles[usize::from(short_lived)].clone() };
        let mut told = Told::default();
        match c.create_container(request).await {
            Ok(_) => {
                told.started = true;
                told.status = short_lived.then_some(7);
            }
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        }
        if !short_lived {
            for exec in 0..random.random_range(0..3) {
                let pid = format!("e{exec}");
                let request = types::AddProcessRequest {
                    id: id.clone(),
                    pid: pid.clone(),
                    args: vec!["/bin/sh".into(), "-c".into(), format!("exit {}", exec + 3)],
                    user: Some(types::User::default()),
                    ..Default::default()
                };
                if c.add_process(request).await.is_ok() {
                    told.processes.push((pid, exec + 3));
                }
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
            if random.random_bool(0.7) {
                let _ = c.signal(types::SignalRequest { id: id.clone(), pid: "init".into(), signal: 9 }).await;
            }
        }
        book.lock().unwrap().insert(id, told);
        if c.get_server_version(types::GetServerVersionRequest {}).await.is_ok() {
            client = Some(c);
        }
    }
}

/// Listens across restarts, each time from the last event heard.
async fn listen(dir: std::path::PathBuf, heard: Arc<Mutex<Vec<String>>>) {
    let mut last = prost_types::Timestamp { seconds: 1, nanos: 0 };
    loop {
        let mut client = connect(&dir).await;
        let request = types::EventsRequest { timestamp: Some(last), stored_only: false, id: String::new() };
        let Ok(stream) = client.events(request).await else { continue };
        let mut stream = stream.into_inner();
        while let Ok(Some(event)) = stream.message().await {
            last = event.timestamp.unwrap();
            heard.lock().unwrap().push(short(&event));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_everything_is_told_once() {
    let mut daemon = Daemon::start_with(Oci::Runc, &["--retain-count", "0"]).await;
    let long = daemon.bundle_with("long", &["sleep", "1000"], |spec| {
        drop(spec["linux"].as_object_mut().unwrap().remove("cgroupsPath"))
    });
    let brief = daemon.bundle_with("brief", &["sh", "-c", "exit 7"], |spec| {
        drop(spec["linux"].as_object_mut().unwrap().remove("cgroupsPath"))
    });
    let bundles = [daemon.request("", &long), daemon.request("", &brief)];
    let book: Book = Arc::default();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let end = Instant::now() + length();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| tokio::spawn(work(number, end, daemon.dir.clone(), bundles.clone(), Arc::clone(&book))))
        .collect();
    let listener = tokio::spawn(listen(daemon.dir.clone(), Arc::clone(&heard)));

    let mut random = StdRng::seed_from_u64(99);
    let (mut killed_daemons, mut killed_shims) = (0, 0);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
        if random.random_bool(0.7) {
            daemon.kill();
            killed_daemons += 1;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
            daemon.again().await;
        } else if let Some(shim) = shims_of(&daemon.dir.to_string_lossy()).first() {
            signal(*shim, "KILL");
            killed_shims += 1;
        }
    }
    for worker in workers {
        worker.await.unwrap();
    }
    // Once more from the beginning, so that nothing is known that is not on disk.
    daemon.kill();
    daemon.again().await;
    for container in daemon.state("").await.unwrap() {
        let _ = daemon.signal(&container.id, "init", 9).await;
    }
    let stop = Instant::now() + Duration::from_secs(20);
    while !daemon.state("").await.unwrap().is_empty() {
        assert!(Instant::now() < stop, "containers that do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.assert_clean().await;

    let stored = daemon.stored().await;
    wait("the listener to hear everything", || heard.lock().unwrap().len() >= stored.len()).await;
    listener.abort();
    assert_eq!(*heard.lock().unwrap(), stored, "the listener heard something else than was stored");
    let book = book.lock().unwrap().clone();
    check(&stored, &book);
    let runtime = entries(std::path::Path::new(&daemon.runtime_root()));
    assert_eq!(runtime, Vec::<String>::new(), "containers left in the runtime");
    let open = entries(std::path::Path::new(&format!("/proc/{}/fd", daemon.pid()))).len();
    assert!(open < 40, "{open} descriptors open in an idle daemon");
    let list = Command::new("pgrep").args(["-f", &daemon.dir.to_string_lossy()]).output().unwrap();
    let left: Vec<_> = String::from_utf8_lossy(&list.stdout).lines().map(str::to_owned).collect();
    assert_eq!(left, [daemon.pid().to_string()], "processes left behind");
    println!(
        "{} containers, {} events, {killed_daemons} daemons and {killed_shims} shims killed",
        book.len(),
        stored.len()
    );
}

fn check(stored: &[String], book: &HashMap<String, Told>) {
    let mut by_id: HashMap<&str, Vec<&str>> = HashMap::new();
    for event in stored {
        by_id.entry(event.split(' ').nth(1).unwrap()).or_default().push(event);
    }
    for (id, events) in &by_id {
        let count = |prefix: String| events.iter().filter(|e| e.starts_with(&prefix)).count();
        assert_eq!(count(format!("start-container {id} ")), 1, "{events:?}");
        assert_eq!(count(format!("exit {id} init ")), 1, "{events:?}");
        assert!(events[0].starts_with("start-container "), "{events:?}");
        assert!(events.last().unwrap().starts_with(&format!("exit {id} init ")), "{events:?}");
        for exec in ["e0", "e1", "e2"] {
            let started = count(format!("start-process {id} {exec} "));
            assert!(started <= 1, "{events:?}");
            assert_eq!(count(format!("exit {id} {exec} ")), started, "{events:?}");
        }
    }
    for (id, told) in book {
        let events = by_id.get(id.as_str()).unwrap_or_else(|| panic!("{id} was started and nothing was told of it"));
        assert!(told.started);
        for (pid, status) in &told.processes {
            let exit = events.iter().find(|e| e.starts_with(&format!("exit {id} {pid} "))).unwrap();
            let actual: u32 = exit.rsplit(' ').next().unwrap().parse().unwrap();
            // A killed shim or container takes it along.
            assert!(actual == *status || actual == 137 || actual == 255, "{events:?}");
        }
        if let Some(status) = told.status {
            let actual: u32 = events.last().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            assert!(actual == status || actual == 137 || actual == 255, "{events:?}");
        }
    }
}
