//! docker-runc or CRIU is killed at random moments of a checkpoint: the container runs on, or can be woken from what was
//! written. A few rounds; some hundreds with `DORMOUSE_LONG`. Needs root, busybox and CRIU.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Container, has_criu};
use rustix::process::{Pid, Signal, kill_process};

const COUNT: &str = "i=0; while true; do i=$((i+1)); echo n $i; sleep 0.05; done";
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Runtime,
    Criu,
}

/// Numbers that look random; the same seed gives the same ones.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// How many rounds, and how long at most.
fn rounds() -> (u64, Duration) {
    match std::env::var_os("DORMOUSE_LONG") {
        Some(_) => (400, Duration::MAX),
        None => (8, Duration::from_secs(20)),
    }
}

#[test]
fn a_killed_runtime_loses_no_container() {
    if has_criu() {
        torture("kill-runtime", Victim::Runtime);
    }
}

/// CRIU executes system calls *in* a task by writing them over its code. A task in which it is killed at that very moment
/// cannot be saved by anybody: only CRIU knows what was there. So a container may be lost here, but nothing else may.
#[test]
fn a_killed_criu_leaves_nothing_behind() {
    if has_criu() {
        torture("kill-criu", Victim::Criu);
    }
}

fn torture(name: &str, victim: Victim) {
    let seed = std::process::id() as u64 ^ Instant::now().elapsed().as_nanos() as u64 ^ 0x9e37_79b9;
    let mut dice = Dice(seed);
    let mut container = Container::new(name, COUNT);
    container.start();
    container.wait_past(1);
    let mut typical = time_a_checkpoint(&container);
    let (mut went_on, mut woken, mut lost) = (0, 0, 0);
    let (rounds, limit) = rounds();
    let started = Instant::now();
    for round in 0..rounds {
        if started.elapsed() > limit && went_on + woken > 0 {
            break;
        }
        let image = format!("image{round}");
        let leave_running = dice.below(2) == 0;
        let delay = Duration::from_micros(dice.below(typical.as_micros() as u64 * 6 / 5));
        let context = format!("seed {seed}, round {round}, {victim:?} killed after {delay:?}, leave {leave_running}");
        let before = container.count();
        let (killed, took) = checkpoint_and_kill(&container, &image, leave_running, victim, delay);
        if !killed {
            typical = (typical + took) / 2;
        }
        assert_nothing_is_left(&container, &context);
        match status(&container).as_deref() {
            Some("running") => went_on += 1,
            state => {
                if state.is_some() {
                    let id = container.id.clone();
                    container.must(&["delete", &id]);
                }
                if container.path(&image).join("dormouse-options.json").exists() {
                    container.wake(&image);
                    woken += 1;
                } else {
                    assert_eq!(victim, Victim::Criu, "the container is lost: {context}");
                    fs::write(container.path("output"), "").unwrap();
                    container.start();
                    container.wait_past(1);
                    lost += 1;
                    continue;
                }
            }
        }
        let after = container.wait_past(before + 1);
        assert!(after < before + 2_000, "{context}: {before} {after}");
        let _ = fs::remove_dir_all(container.path(&image));
    }
    eprintln!("{victim:?}, seed {seed}: went on {went_on}, woken {woken}, lost {lost}");
    assert!(went_on + woken > 0);
}

fn time_a_checkpoint(container: &Container) -> Duration {
    let started = Instant::now();
    let output = container.checkpoint("timed", &["--leave-running"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    started.elapsed()
}

/// Says whether anything was left to kill, and how long it took.
fn checkpoint_and_kill(
    container: &Container,
    image: &str,
    leave_running: bool,
    victim: Victim,
    delay: Duration,
) -> (bool, Duration) {
    let path = container.path(image);
    let mut arguments = vec!["checkpoint", "--auto", "--image-path", path.to_str().unwrap()];
    if leave_running {
        arguments.push("--leave-running");
    }
    arguments.push(&container.id);
    let started = Instant::now();
    let mut runtime = container.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The moment is what is tested, not what is waited for.
    std::thread::sleep(delay);
    let criu = criu_below(runtime.id() as i32);
    let target = if victim == Victim::Criu { criu } else { Some(runtime.id() as i32) };
    let killed = runtime.try_wait().unwrap().is_none()
        && target.and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
    runtime.wait().unwrap();
    let took = started.elapsed();
    // CRIU notices that nobody listens any more, and undoes what it did.
    if let Some(criu) = criu {
        until("criu to end", || !is_criu(criu));
    }
    (killed, took)
}

fn criu_below(parent: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| is_criu(*pid))
}

fn is_criu(pid: i32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == b"swrk")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `None` when there is no such container (any more).
fn status(container: &Container) -> Option<String> {
    let output = container.call(&["state", &container.id]);
    let state: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
    state.and_then(|state| state["status"].as_str().map(str::to_owned))
}

fn assert_nothing_is_left(container: &Container, context: &str) {
    let freezer = Path::new("/sys/fs/cgroup/freezer").join(&container.id).join("freezer.state");
    if let Ok(state) = fs::read_to_string(&freezer) {
        assert_eq!(state.trim(), "THAWED", "{context}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let state = container.path("state");
    assert!(!mounts.contains(state.to_str().unwrap()), "{context}: {mounts}");
    // A process of the container that is traced or stopped for good would not answer; neither may one be a zombie's child.
    let list = Command::new("ps").args(["-eo", "stat=,args="]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let image = container.path("image");
    assert!(!list.lines().any(|line| line.contains(image.to_str().unwrap())), "{context}: {list}");
}
