//! Lazy wake through the docker command line: it runs before its memory is there, gets all of it, and never goes on without.

use std::fs;

use e2e::{Engine, eventually};

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
