//! Lazy wake through the docker command line: it runs before its memory is there, gets all of it, and never goes on without.

use std::fs;
use std::time::Duration;

use e2e::{Engine, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Holds a large variable, counts, and looks at every letter of it now and then.
const SCRIPT: &str = "x=$(head -c 8388608 /dev/zero | tr \"\\000\" a); n=0; while :; do n=$((n+1)); echo $n; \
    if [ -e /look ]; then rm /look; case $x in *[!a]*) echo 0 >/seen;; *) echo ${#x} >/seen;; esac; fi; sleep 0.05; done";

fn large(engine: &Engine, flags: &str) {
    engine.ok(&format!("docker run -d --name c1 {flags} busybox sh -c '{SCRIPT}'"));
    counts_on(engine);
}

/// It counts on where it was: its log has every number once.
fn counts_on(engine: &Engine) {
    let logged = || -> Vec<u64> { engine.ok("docker logs c1").lines().map(|line| line.parse().unwrap()).collect() };
    let before = logged().len();
    eventually("it counts on", || (logged().len() > before + 2).then_some(()));
    let numbers = logged();
    assert!(numbers.iter().zip(1..).all(|(is, should)| *is == should), "{numbers:?}");
}

/// What its memory turns out to be when it looks at all of it.
fn looks(engine: &Engine) {
    engine.ok("docker exec c1 sh -c 'rm -f /seen; touch /look'");
    let seen = || engine.run("docker exec c1 cat /seen").out().parse::<u64>().ok();
    assert_eq!(eventually("it has looked", seen), 8 << 20);
}

/// What the last wake of this checkpoint left for later.
fn later_bytes(engine: &Engine) -> u64 {
    let id = engine.inspect("c1", "{{.Id}}");
    let work = engine.data_root().join("containers").join(id).join("checkpoints/nap/criu.work");
    let wakes = fs::read_dir(work).unwrap().flatten().map(|entry| entry.path());
    let last = wakes.filter(|path| path.join("dormouse-stats.json").exists()).max().expect("a wake was measured");
    let stats: serde_json::Value =
        serde_json::from_slice(&fs::read(last.join("dormouse-stats.json")).unwrap()).unwrap();
    stats["later_bytes"].as_u64().unwrap()
}

#[test]
fn by_label_its_memory_follows() {
    let engine = Engine::start();
    large(&engine, "--label dormouse.checkpoint.lazy=true");
    for _ in 0..2 {
        engine.ok("docker checkpoint create c1 nap");
        engine.ok("docker start --checkpoint nap c1");
        counts_on(&engine);
        assert!(later_bytes(&engine) > 8 << 20);
        looks(&engine);
        engine.ok("docker checkpoint rm c1 nap");
        counts_on(&engine);
    }
    engine.ok("docker stop -t 0 c1 && docker rm c1");
}

#[test]
fn a_small_one_waits_for_its_memory() {
    let engine = Engine::start();
    large(&engine, "");
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    counts_on(&engine);
    assert_eq!(later_bytes(&engine), 0);
    looks(&engine);
}

/// The two processes of the page daemon, as long as they are there; the one who watches first.
fn page_daemon(engine: &Engine) -> Vec<Pid> {
    let home = engine.home().to_string_lossy().into_owned();
    let is_ours = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("feed-pages") && words.contains(&home)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.retain(is_ours);
    pids.sort_unstable();
    pids.into_iter().map(Pid::from_raw).collect()
}

/// To processes that may have ended.
fn send(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill(*pid, signal);
    }
}

#[test]
fn the_end_of_its_page_daemon_is_its_end_and_that_is_told() {
    let engine = Engine::start();
    let began = engine.ok("date +%s.%N");
    let script =
        "x=$(head -c 50331648 /dev/zero | tr \"\\000\" a); n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";
    engine.ok(&format!("docker run -d --name c1 --label dormouse.checkpoint.lazy=true busybox sh -c '{script}'"));
    counts_on(&engine);
    engine.ok("docker checkpoint create c1 nap");
    // Its memory may be there before anybody has seen that it was missing.
    let daemon = (0..20).find_map(|attempt| {
        let mut start = engine.background(&format!("start{attempt}"), "docker start --checkpoint nap c1");
        let mut pids = Vec::new();
        while pids.len() < 2 && !start.has_ended() {
            pids = page_daemon(&engine);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(start.ends(), 0, "{}", engine.log_tail());
        send(&pids, Signal::SIGSTOP);
        // Nobody that has ended is stopped by a signal.
        if pids.len() == 2 && pids == page_daemon(&engine) {
            return Some(pids);
        }
        engine.ok("docker kill c1");
        engine.wait_for_state("c1", "exited");
        None
    });
    let daemon = daemon.expect("the page daemon was always faster");
    kill(daemon[1], Signal::SIGKILL).unwrap();
    send(&daemon, Signal::SIGCONT);
    engine.wait_for_state("c1", "exited");
    let why = "its page daemon was killed by signal 9 before all of its memory was loaded";
    let error = engine.inspect("c1", "{{.State.Error}}");
    assert!(error.contains(why), "{error}");
    assert_eq!(engine.inspect("c1", "{{.State.ExitCode}}"), "137");
    let told = engine.ok(&format!(
        "docker events --since {began} --until $(date +%s.%N) --filter type=container --filter event=die \
         --format '{{{{.Actor.Attributes.error}}}}' | tail -n 1"
    ));
    assert!(told.contains(why), "{told}");
    // Nothing is lost: it wakes again, and then nothing is wrong with it.
    engine.ok("docker start --checkpoint nap c1");
    assert_eq!(engine.inspect("c1", "{{.State.Error}}"), "");
    engine.ok("docker exec c1 true");
    engine.ok("docker stop -t 0 c1");
    assert_eq!(engine.inspect("c1", "{{.State.Error}}"), "");
}
