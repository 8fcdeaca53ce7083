//! What a program may have to do with when it is put to sleep, thing by thing: a C program makes them, looks at each of them
//! all the time, and counts aloud as long as all are as they should be (`things/*.c`). What CRIU cannot take along is
//! refused by name, and the program goes on.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Counter, Engine, eventually};
use serde_json::Value;

/// The program, made in the engine's folder.
fn program(engine: &Engine) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/things");
    let target = engine.home().join("things");
    let files = fs::read_dir(&sources).expect("read the folder of the sources").flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|kind| kind == "c")).collect();
    let output = Command::new("cc")
        .args(["-static", "-O1", "-pthread", "-w", "-o"])
        .arg(&target)
        .args(&files)
        .output()
        .expect("start the C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target
}

/// Starts it with some of the things.
fn run<'a>(engine: &'a Engine, flags: &str, things: &str) -> Counter<'a> {
    let program = program(engine);
    engine.ok(&format!(
        "docker run -d --name c1 --init {flags} -v {}:/things:ro busybox /things {things}",
        program.display()
    ));
    let counter = Counter::of(engine, "c1");
    counter.passes(3);
    counter
}

/// Two naps, and a copy while it runs on.
fn sleep_and_wake(flags: &str, things: &str) {
    let engine = Engine::start();
    let counter = run(&engine, flags, things);
    for round in 0..2 {
        engine.ok(&format!("docker checkpoint create c1 nap{round} && docker start --checkpoint nap{round} c1"));
        counter.passes(counter.last() + 8);
        engine.ok(&format!("docker checkpoint create --leave-running c1 copy{round}"));
        counter.passes(counter.last() + 8);
    }
    engine.ok("docker stop -t 0 c1 && docker start --checkpoint copy1 c1");
    counter.passes(counter.last() + 70);
}

#[test]
fn files_and_what_is_held_of_them() {
    sleep_and_wake("", "mapped private deleted linked gone-directory locks numbers pipes places");
}

#[test]
fn descriptors_that_are_no_files() {
    sleep_and_wake("", "epoll eventfd signalfd timerfd inotify memfd pidfd pty");
}

#[test]
fn timers_signals_children_and_rights() {
    sleep_and_wake("", "timers pending children threads settings rights");
}

#[test]
fn memory_that_is_shared_locked_and_waited_on() {
    sleep_and_wake("", "shared protected sysv shm futexes aio");
}

#[test]
fn nearly_all_the_memory_that_the_limit_allows() {
    sleep_and_wake("-m 28m", "much");
}

#[test]
fn sockets_with_what_is_on_its_way() {
    let things = "tcp tcp-full tcp-half-closed tcp6 udp unix-pairs unix-names unix-backlog rights-sent netlink raw";
    sleep_and_wake("", things);
}

#[test]
fn connections_where_there_is_only_loopback() {
    sleep_and_wake("--network none", "tcp tcp-full tcp-half-closed udp netlink");
}

#[test]
fn mounts_of_a_childs_own() {
    sleep_and_wake("--cap-add SYS_ADMIN --security-opt seccomp=unconfined", "inner-mounts");
}

#[test]
fn two_hundred_processes_a_thousand_files_and_a_hundred_connections() {
    sleep_and_wake("", "crowd thousand tcp-many");
}

/// Each is refused with words of its own and found beforehand under its code.
#[test]
fn what_cannot_be_taken_along_is_refused_by_name() {
    let engine = Engine::start();
    let program = program(&engine);
    fs::create_dir(engine.home().join("host")).expect("make a folder");
    let listener = UnixListener::bind(engine.home().join("host/socket")).expect("listen");
    let host = format!("-v {}:/host", engine.home().join("host").display());
    let free = "--privileged";
    let pings = "--sysctl net.ipv4.ping_group_range=\"0 0\"";
    let cases = [
        ("io-uring", free, "io-uring", "io_uring"),
        ("userfaultfd", free, "descriptor", "a userfaultfd"),
        ("perf", free, "descriptor", "a performance counter"),
        ("ping", pings, "socket", "a ping socket"),
        ("tcp-backlog", "", "tcp-backlog", "does not accept"),
        ("host-socket", host.as_str(), "unix-socket", "not in the container"),
        ("traced", "", "traced", "is being traced"),
        ("mqueue", "", "message-queue", "POSIX message queue"),
        ("closed-mqueue", "", "message-queue", "POSIX message queue"),
        ("packet-pipe", "", "pipe", "packet mode"),
        ("gone-watch", "", "watch", "watches a file"),
        ("user-namespace", free, "namespace", "(user)"),
        ("uts-namespace", free, "namespace", "(uts)"),
        ("ipc-namespace", free, "namespace", "(ipc)"),
        ("pid-namespace", free, "namespace", "(pid)"),
        ("vfork", "", "vfork", "waits in the kernel"),
    ];
    for (thing, flags, _, _) in cases {
        let mount = format!("-v {}:/things:ro", program.display());
        engine.ok(&format!("docker run -d --name {thing} --init {flags} {mount} busybox /things {thing}"));
    }
    let _guest = listener.accept().expect("somebody connects");
    for (thing, _, code, words) in cases {
        let counter = Counter::of(&engine, thing);
        counter.passes(3);
        let report = engine.get(&format!("/containers/{thing}/checkpoints/preflight")).text();
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let found = report["Obstacles"].as_array().expect("a list");
        assert!(found.iter().any(|found| found["Code"] == code), "{thing}: {report}");
        engine.fails(&format!("docker checkpoint create {thing} nap")).says(words);
        counter.goes_on();
        assert_eq!(engine.ok(&format!("docker checkpoint ls {thing} | tail -n +2")), "", "{thing}");
    }
    // What stood in the way is over: it can sleep.
    engine.ok("docker exec mqueue rm /dev/mqueue/thing && docker exec closed-mqueue rm /dev/mqueue/thing");
    let counter = Counter::of(&engine, "closed-mqueue");
    engine.ok("docker checkpoint create closed-mqueue nap && docker start --checkpoint nap closed-mqueue");
    counter.goes_on();
}

#[test]
fn ten_clones_in_a_row_from_one_checkpoint() {
    let engine = Engine::start();
    let naps = engine.home().join("naps");
    fs::create_dir(&naps).expect("make a folder");
    let counter = Counter::run(&engine, "c1", "");
    engine.ok(&format!("docker checkpoint create --checkpoint-dir {} c1 nap", naps.display()));
    let asleep = counter.last();
    for number in 0..10 {
        engine.ok(&format!("docker create --name clone{number} busybox sh -c '{}'", e2e::COUNT_SCRIPT));
        engine.ok(&format!("docker start --checkpoint nap --checkpoint-dir {} clone{number}", naps.display()));
    }
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..10 {
        let name = format!("clone{number}");
        let first = eventually("it counts", || Counter::of(&engine, &name).logged().first().copied());
        assert!((asleep..=asleep + 2).contains(&first), "it goes on at {first}, the first slept at {asleep}");
        Counter::of(&engine, &name).passes(first + 3);
        addresses.insert(engine.inspect(&name, "{{.NetworkSettings.IPAddress}}"));
    }
    assert_eq!(addresses.len(), 10, "each has an address of its own: {addresses:?}");
    engine.ok(&format!("docker start --checkpoint nap --checkpoint-dir {} c1", naps.display()));
    counter.goes_on();
}
