//! docker-containerd and shims killed at random moments under a load of starts, execs, checkpoints and exits. Afterwards:
//! every exit and event exactly once, no container lost or left behind, nothing leaked. Ten minutes with `DORMOUSE_LONG`, on
//! the runtime that `DORMOUSE_RUNTIME` names (`runc`, `docker-runc`).

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Client, Daemon, Oci, connect, entries, mkfifo, shims_of, short, signal, wait};
use containerd_api::types;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

const WORKERS: u64 = 3;
const LAST_WORDS: &str = "last words";

/// What a client was told of one container.
#[derive(Debug, Default, Clone)]
struct Told {
    /// The status it must have ended with, unless its shim was killed.
    status: u32,
    processes: Vec<(String, u32)>,
    /// A checkpoint that was answered for.
    checkpoint: bool,
    /// Its last words did not arrive.
    silent: bool,
}

type Book = Arc<Mutex<HashMap<String, Told>>>;

fn length() -> Duration {
    let long = std::env::var_os("DORMOUSE_LONG").is_some();
    Duration::from_secs(if long { 600 } else { 20 })
}

/// One client: what it needs to make containers.
struct Worker {
    dir: PathBuf,
    /// By whether it ends by itself.
    configs: [serde_json::Value; 2],
    book: Book,
}

impl Worker {
    fn request(&self, id: &str, brief: bool) -> types::CreateContainerRequest {
        let bundle = self.dir.join("bundles").join(id);
        fs::create_dir_all(&bundle).unwrap();
        let mut config = self.configs[usize::from(brief)].clone();
        let group = self.dir.file_name().unwrap().to_string_lossy();
        config["linux"]["cgroupsPath"] = format!("/{group}/{id}").into();
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        // A FIFO; half of them are never read.
        let stdout = if brief { mkfifo(&bundle.join("stdout")) } else { String::new() };
        types::CreateContainerRequest {
            id: id.to_owned(),
            bundle_path: bundle.to_string_lossy().into_owned(),
            stdout,
            ..Default::default()
        }
    }

    async fn exec(&self, c: &mut Client, id: &str, pid: &str, status: u32) -> bool {
        let request = types::AddProcessRequest {
            id: id.to_owned(),
            pid: pid.to_owned(),
            args: vec!["/bin/sh".into(), "-c".into(), format!("exit {status}")],
            user: Some(types::User::default()),
            ..Default::default()
        };
        c.add_process(request).await.is_ok()
    }

    async fn checkpoint(&self, c: &mut Client, id: &str, exit: bool) -> bool {
        let checkpoint = types::Checkpoint { name: "cp".into(), exit, ..Default::default() };
        let checkpoint_dir = self.dir.join("cps").join(id).to_string_lossy().into_owned();
        let request =
            types::CreateCheckpointRequest { id: id.to_owned(), checkpoint: Some(checkpoint), checkpoint_dir };
        c.create_checkpoint(request).await.is_ok()
    }

    async fn one(&self, c: &mut Client, id: &str, random: &mut StdRng) {
        let brief = random.random_bool(0.5);
        let request = self.request(id, brief);
        let open = |path: &str| pipe::OpenOptions::new().open_receiver(path).unwrap();
        let output = (brief && random.random_bool(0.5)).then(|| open(&request.stdout));
        if c.create_container(request).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return;
        }
        let mut told = Told { status: if brief { 7 } else { 137 }, ..Told::default() };
        if let Some(output) = output {
            told.silent = !says(output).await;
        }
        if !brief {
            for exec in 0..random.random_range(0..3) {
                let pid = format!("e{exec}");
                if self.exec(c, id, &pid, exec + 3).await {
                    told.processes.push((pid, exec + 3));
                }
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
            if random.random_bool(0.3) {
                told.checkpoint = self.checkpoint(c, id, random.random_bool(0.5)).await;
            }
            if random.random_bool(0.7) {
                let request = types::SignalRequest { id: id.to_owned(), pid: "init".into(), signal: 9 };
                let _ = c.signal(request).await;
            }
        }
        self.book.lock().unwrap().insert(id.to_owned(), told);
    }

    async fn work(self, number: u64, end: Instant) {
        let mut random = StdRng::seed_from_u64(number);
        let mut client: Option<Client> = None;
        let mut count = 0;
        while Instant::now() < end {
            let mut c = match client.take() {
                Some(client) => client,
                None => connect(&self.dir).await,
            };
            count += 1;
            self.one(&mut c, &format!("w{number}-{count}"), &mut random).await;
            if c.get_server_version(types::GetServerVersionRequest {}).await.is_ok() {
                client = Some(c);
            }
        }
    }
}

/// Whether the last words of a container arrive.
async fn says(mut output: pipe::Receiver) -> bool {
    let end = Instant::now() + Duration::from_secs(30);
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(LAST_WORDS) {
        if Instant::now() > end {
            return false;
        }
        // An end: there is no writer yet, or none any more.
        if !matches!(output.read_buf(&mut text).await, Ok(count) if count > 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    true
}

/// Listens across restarts, each time from the last event heard.
async fn listen(dir: PathBuf, heard: Arc<Mutex<Vec<String>>>) {
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

/// Kills, until the end. Gives how often the daemon was killed, and the containers whose shims were.
async fn kill_at_random(daemon: &mut Daemon, end: Instant) -> (u32, HashSet<String>) {
    let mut random = StdRng::seed_from_u64(99);
    let (mut daemons, mut orphaned) = (0, HashSet::new());
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
        if random.random_bool(0.7) {
            daemon.kill();
            daemons += 1;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
            if random.random_bool(0.3) {
                orphaned.extend(kill_a_shim(daemon, &mut random));
            }
            daemon.again().await;
        } else {
            orphaned.extend(kill_a_shim(daemon, &mut random));
        }
    }
    (daemons, orphaned)
}

fn kill_a_shim(daemon: &Daemon, random: &mut StdRng) -> Option<String> {
    let shims = shims_of(&daemon.dir.to_string_lossy());
    let shim = *shims.get(random.random_range(0..shims.len().max(1)))?;
    let dir = fs::read_link(format!("/proc/{shim}/cwd")).ok()?;
    signal(shim, "KILL");
    Some(dir.file_name()?.to_string_lossy().into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_everything_is_told_once() {
    let mut daemon = Daemon::start_with(Oci::asked_for(), &["--retain-count", "0"]).await;
    let config = |name: &str, args: &[&str]| {
        let bundle = daemon.bundle(name, args);
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap()
    };
    let say = format!("echo {LAST_WORDS}; exit 7");
    let configs: [serde_json::Value; 2] = [config("long", &["sleep", "1000"]), config("brief", &["sh", "-c", &say])];
    let mounts_before = mounts(&daemon.dir);
    let book: Book = Arc::default();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let end = Instant::now() + length();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let worker = Worker { dir: daemon.dir.clone(), configs: configs.clone(), book: Arc::clone(&book) };
            tokio::spawn(worker.work(number, end))
        })
        .collect();
    let listener = tokio::spawn(listen(daemon.dir.clone(), Arc::clone(&heard)));
    let (killed_daemons, orphaned) = kill_at_random(&mut daemon, end).await;
    for worker in workers {
        worker.await.unwrap();
    }
    // Once more from the beginning, so that nothing is known that is not on disk.
    daemon.kill();
    daemon.again().await;
    for container in daemon.state("").await.unwrap() {
        let _ = daemon.signal(&container.id, "init", 9).await;
    }
    let stop = Instant::now() + Duration::from_secs(60);
    while !daemon.state("").await.unwrap().is_empty() {
        assert!(Instant::now() < stop, "containers that do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A copy of a shim may stay for a while with output that nobody reads.
    let fifos = daemon.dir.join("bundles");
    for name in entries(&fifos) {
        let _ = fs::remove_file(fifos.join(name).join("stdout"));
    }
    let dir = daemon.dir.clone();
    let others = || users_of(&dir).into_iter().filter(|pid| *pid != daemon.pid()).collect::<Vec<_>>();
    wait("the end of every process", || others().is_empty()).await;
    daemon.assert_clean().await;

    let stored = daemon.stored().await;
    wait("the listener to hear everything", || heard.lock().unwrap().len() >= stored.len()).await;
    listener.abort();
    assert_eq!(*heard.lock().unwrap(), stored, "the listener heard something else than was stored");
    let book = book.lock().unwrap().clone();
    check(&stored, &book, &orphaned);
    let checkpoints = check_checkpoints(&daemon.dir.join("cps"), &book);
    // What our own runtime knows of the machine is for all containers.
    let is_cache = |name: &String| name.ends_with(".kdat") || name.starts_with(".seccomp-");
    let runtime: Vec<_> = entries(Path::new(&daemon.runtime_root())).into_iter().filter(|n| !is_cache(n)).collect();
    assert_eq!(runtime, Vec::<String>::new(), "containers left in the runtime");
    assert_eq!(mounts(&daemon.dir), mounts_before, "mounts left behind");
    let open = entries(Path::new(&format!("/proc/{}/fd", daemon.pid()))).len();
    assert!(open < 40, "{open} descriptors open in an idle daemon");
    println!(
        "{} containers, {} events, {checkpoints} checkpoints; {killed_daemons} daemons and {} shims killed",
        book.len(),
        stored.len(),
        orphaned.len()
    );
}

fn mounts(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().filter(|line| line.contains(&*dir.to_string_lossy())).map(str::to_owned).collect()
}

/// The processes that have to do with this folder: by their arguments, their working directory or an open file.
fn users_of(dir: &Path) -> Vec<u32> {
    let name = dir.to_string_lossy().into_owned();
    let me = std::process::id();
    let pids = entries(Path::new("/proc")).into_iter().filter_map(|pid| pid.parse::<u32>().ok());
    pids.filter(|pid| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let uses = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.to_string_lossy().contains(&name));
        let line = fs::read(proc.join("cmdline")).unwrap_or_default();
        let files = entries(&proc.join("fd")).into_iter().any(|fd| uses(proc.join("fd").join(fd)));
        *pid != me && (files || uses(proc.join("cwd")) || String::from_utf8_lossy(&line).contains(&name))
    })
    .collect()
}

/// Whole or not at all; every one that was answered for is there. Gives their number.
fn check_checkpoints(dir: &Path, book: &HashMap<String, Told>) -> usize {
    let mut whole = HashSet::new();
    for id in entries(dir) {
        if dir.join(&id).join("cp").exists() {
            let files = entries(&dir.join(&id).join("cp"));
            assert!(files.iter().any(|name| name == "config.json"), "half a checkpoint of {id}: {files:?}");
            assert!(files.iter().any(|name| name == "inventory.img"), "an empty checkpoint of {id}: {files:?}");
            whole.insert(id);
        }
    }
    for (id, _) in book.iter().filter(|(_, told)| told.checkpoint) {
        assert!(whole.contains(id), "the checkpoint of {id} is gone");
    }
    whole.len()
}

fn check(stored: &[String], book: &HashMap<String, Told>, orphaned: &HashSet<String>) {
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
    let status_of = |event: &str| event.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    for (id, told) in book {
        let events = by_id.get(id.as_str()).unwrap_or_else(|| panic!("{id} was started and nothing was told of it"));
        // A killed shim takes its container along: 137, or 255 for what had ended before and was not noted any more.
        let orphan = orphaned.contains(id);
        let actual = status_of(events.last().unwrap());
        assert!(actual == told.status || (orphan && matches!(actual, 137 | 255)), "{events:?}");
        assert!(orphan || !told.silent, "the output of {id} was lost: {events:?}");
        for (pid, status) in &told.processes {
            let exit = events.iter().find(|e| e.starts_with(&format!("exit {id} {pid} "))).unwrap();
            // An exec may have been killed with its container.
            let actual = status_of(exit);
            assert!(actual == *status || actual == 137 || (orphan && actual == 255), "{events:?}");
        }
    }
}

/// A shim that is stopped, or starved, does not answer.
#[tokio::test]
async fn a_shim_that_does_not_answer_holds_nobody_else_up() {
    let mut daemon = Daemon::start(Oci::Runc).await;
    daemon.run("a", &["sleep", "300"]).await;
    daemon.run("b", &["sleep", "300"]).await;
    let shims = common::shims_of(&daemon.dir.to_string_lossy());
    let of_a = shims.into_iter().find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"a")
    });
    let of_a = of_a.expect("the shim of a");
    common::signal(of_a, "STOP");
    daemon.kill();
    daemon.again().await;
    assert_eq!(daemon.state("b").await.unwrap().len(), 1);
    daemon.signal("b", "init", 9).await.unwrap();
    daemon.wait_event("exit b init 137").await;
    common::signal(of_a, "CONT");
    daemon.signal("a", "init", 9).await.unwrap();
    daemon.wait_event("exit a init 137").await;
    daemon.assert_clean().await;
}
