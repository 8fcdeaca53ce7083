//! Waking before the memory is there: what a program finds in it, and what becomes of it when it does not come. Needs
//! root, busybox, CRIU and a kernel with userfaultfd.

mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Container, has_criu};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// Runs inside a container only: fills so much memory with a pattern, and goes on counting while it looks at pages of it
/// here and there. Told to by a file, it looks at all of it, after having moved one half and given back a part.
#[test]
fn workload() {
    let Some(mib) = std::env::var("DORMOUSE_MIB").ok().and_then(|text| text.parse::<usize>().ok()) else { return };
    let words = mib * MIB / 8;
    let pattern = |index: usize| (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut memory: Vec<u64> = (0..words).map(pattern).collect();
    println!();
    let mut place = 1_usize;
    for n in 1_u64.. {
        let mut is_fine = true;
        for _ in 0..16 {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = (place >> 20) % memory.len();
            is_fine &= memory[index] == pattern(index);
        }
        if fs::remove_file("/tmp/verify").is_ok() {
            // Larger than it was: the kernel moves it. Then shorter: its end is unmapped.
            memory.reserve_exact(words);
            memory.truncate(words - words / 4);
            memory.shrink_to_fit();
            let whole = memory.iter().enumerate().all(|(index, word)| *word == pattern(index));
            memory.extend((memory.len()..words).map(pattern));
            println!("{}", if whole { "whole" } else { "BROKEN as a whole" });
        }
        println!("{} {n}", if is_fine { "n" } else { "BROKEN" });
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn filled(name: &str, mib: usize, lazy: Option<&str>) -> Container {
    let mut container = Container::of_test(name, "workload");
    container.config()["process"]["env"].as_array_mut().unwrap().push(json!(format!("DORMOUSE_MIB={mib}")));
    if let Some(lazy) = lazy {
        container.config()["annotations"] = json!({ "dormouse.checkpoint.lazy": lazy });
    }
    container.start();
    container.wait_past(1);
    container
}

/// How much was left for later by the last wake.
fn later_bytes(container: &Container) -> u64 {
    let text = fs::read(container.path("work/dormouse-stats.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["later_bytes"].as_u64().unwrap()
}

/// Lets it look at all of its memory.
fn verify(container: &Container) {
    let before = container.output().matches("whole").count();
    fs::write(container.path("bundle/rootfs/tmp/verify"), "").unwrap();
    wait_for("the whole of its memory", || container.output().matches("whole").count() > before);
    assert!(!container.output().contains("BROKEN"), "{}", container.output());
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The two processes of the page daemon, as long as they are there.
fn page_daemon(id: &str) -> Vec<i32> {
    let is_ours = |pid: i32| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = text.split(|byte| *byte == 0).collect();
        words.contains(&b"feed-pages".as_slice()) && words.contains(&id.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.retain(|pid| is_ours(*pid));
    pids.sort_unstable();
    pids
}

/// To a process that may have ended.
fn send(pid: i32, signal: &str) {
    let mut command = std::process::Command::new("kill");
    command.arg(format!("-{signal}")).arg(pid.to_string()).stderr(std::process::Stdio::null()).status().unwrap();
}

/// Wakes it, with a log; gives the processes of its page daemon, of which nobody knows whether they have ended by now.
fn wake(container: &mut Container, name: &str, more: &[&str]) -> Vec<i32> {
    let (log, bundle, image) = (container.path("log"), container.bundle(), container.path(name));
    let (work, id) = (container.path("work"), container.id.clone());
    let mut arguments = vec!["--log", log.to_str().unwrap(), "restore", "-d", "-b", bundle.to_str().unwrap()];
    arguments.extend(["--image-path", image.to_str().unwrap(), "--work-path", work.to_str().unwrap()]);
    arguments.extend(more);
    arguments.push(&id);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = Vec::new();
            while seen.len() < 2 && !done.load(Relaxed) {
                seen = page_daemon(&id);
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        container.with_output(&arguments);
        done.store(true, Relaxed);
        watching.join().unwrap()
    })
}

/// A container that is loading its memory at this moment, and its page daemon.
fn loading(name: &str) -> (Container, Vec<i32>) {
    let mut container = filled(name, 160, None);
    container.sleep("image");
    for _ in 0..20 {
        let pids = wake(&mut container, "image", &[]);
        pids.iter().for_each(|pid| send(*pid, "STOP"));
        // Nobody that has ended is stopped by a signal.
        if pids.len() == 2 && pids == page_daemon(&container.id) {
            return (container, pids);
        }
        container.must(&["delete", "-f", &container.id.clone()]);
    }
    panic!("the page daemon was always faster");
}

#[test]
fn memory_follows_and_is_what_it_was() {
    if !has_criu() {
        return;
    }
    let mut container = filled("lazy-whole", 96, None);
    for cycle in ["first", "second"] {
        container.cycle(cycle);
        assert!(later_bytes(&container) > 90 * MIB as u64, "{}", later_bytes(&container));
        verify(&container);
        wait_for("the end of the page daemon", || page_daemon(&container.id).is_empty());
    }
    container.wait_past(container.count() + 5);
    assert!(!container.output().contains("BROKEN"));
    let id = container.id.clone();
    container.must(&["exec", &id, "/bin/true"]);
    assert_eq!(container.status(), "running");
    assert!(!container.path("work/lazy-pages.socket").exists());
}

/// Whichever half of the page daemon is killed, the container must not go on without its memory, and must not hang.
fn without_half(name: &str, half: usize, words: &str) {
    if !has_criu() {
        return;
    }
    let (container, pids) = loading(name);
    send(pids[half], "KILL");
    pids.iter().for_each(|pid| send(*pid, "CONT"));
    wait_for("the end of the container", || container.status() == "stopped");
    wait_for("the end of the page daemon", || page_daemon(&container.id).is_empty());
    let reason = fs::read_to_string(container.path("state").join(&container.id).join("lazy-failure")).unwrap();
    assert!(reason.contains(words), "{reason}");
    let log = fs::read_to_string(container.path("log")).unwrap();
    assert!(log.contains("the container is killed") && log.contains(words), "{log}");
    assert!(!container.output().contains("BROKEN"), "{}", container.output());
    container.must(&["delete", &container.id]);
}

#[test]
fn without_the_one_who_feeds_it_it_is_ended_and_that_is_said() {
    without_half("lazy-unfed", 1, "its page daemon was killed by signal 9");
}

#[test]
fn without_the_one_who_watches_it_is_ended_and_that_is_said() {
    without_half("lazy-unwatched", 0, "the process that watches over");
}

/// A container whose memory is still coming is put to sleep only when it is there; its checkpoint may be removed meanwhile.
#[test]
fn a_checkpoint_waits_for_the_memory_and_the_one_before_may_go() {
    if !has_criu() {
        return;
    }
    let (mut container, pids) = loading("lazy-again");
    let counted = container.count();
    fs::remove_dir_all(container.path("image")).unwrap();
    let mut sleeping = container.command(&[
        "checkpoint",
        "--auto",
        "--image-path",
        container.path("second").to_str().unwrap(),
        &container.id.clone(),
    ]);
    let mut sleeping = sleeping.spawn().unwrap();
    // It cannot be over before the memory is there, and that stands still.
    std::thread::sleep(Duration::from_millis(300));
    assert!(sleeping.try_wait().unwrap().is_none());
    pids.iter().for_each(|pid| send(*pid, "CONT"));
    assert!(sleeping.wait().unwrap().success());
    container.wake("second");
    container.wait_past(counted + 2);
    verify(&container);
}

/// A container that is removed takes its page daemon with it.
#[test]
fn a_removal_ends_the_page_daemon() {
    if !has_criu() {
        return;
    }
    let (container, _) = loading("lazy-removed");
    container.must(&["delete", "-f", &container.id]);
    wait_for("the end of the page daemon", || page_daemon(&container.id).is_empty());
}

/// Small ones wait for their memory, unless told otherwise; large ones do when they are told to.
#[test]
fn the_size_and_the_label_decide() {
    if !has_criu() {
        return;
    }
    for (mib, lazy, is_lazy) in
        [(8, None, false), (8, Some("true"), true), (8, Some("4194304"), true), (72, Some("false"), false)]
    {
        let mut container = filled("lazy-choice", mib, lazy);
        container.cycle("image");
        assert_eq!(later_bytes(&container) > 0, is_lazy, "{mib} MiB with {lazy:?}");
        verify(&container);
    }
    let mut container = filled("lazy-flag", 8, None);
    container.sleep("image");
    wake(&mut container, "image", &["--lazy-pages"]);
    assert!(later_bytes(&container) > 0);
    verify(&container);
}

/// A shell that holds a large variable, and children of it that read the variable: the pages that are missing are missing
/// in each of them.
#[test]
fn children_that_are_forked_meanwhile_get_the_memory_too() {
    if !has_criu() {
        return;
    }
    let script = "x=$(cat /tmp/large); echo n 0; i=0; while true; do i=$((i+1)); \
        y=$(case $x in *[!a]*) echo bad;; *) echo ${#x};; esac); \
        if [ $y = 8388608 ]; then echo n $i; else echo BROKEN $y; fi; done";
    let mut container = Container::new("lazy-forks", script);
    container.config()["annotations"] = json!({ "dormouse.checkpoint.lazy": "true" });
    fs::write(container.path("bundle/rootfs/tmp/large"), "a".repeat(8 * MIB)).unwrap();
    container.start();
    for cycle in ["first", "second"] {
        container.wait_past(container.count() + 1);
        container.sleep(cycle);
        let asleep = container.count();
        container.wake(cycle);
        container.wait_past(asleep + 2);
        assert!(later_bytes(&container) > 8 * MIB as u64);
        assert!(!container.output().contains("BROKEN"), "{}", container.output());
    }
}

#[test]
fn a_paused_container_loads_and_stays_paused() {
    if !has_criu() {
        return;
    }
    let mut container = filled("lazy-paused", 72, None);
    let id = container.id.clone();
    container.must(&["pause", &id]);
    container.sleep("image");
    let asleep = container.count();
    container.wake("image");
    assert!(later_bytes(&container) > 0);
    assert_eq!(container.status(), "paused");
    wait_for("the end of the page daemon", || page_daemon(&container.id).is_empty());
    assert_eq!(container.count(), asleep, "it ran while it was paused");
    container.must(&["resume", &id]);
    container.wait_past(asleep);
    verify(&container);
}

#[test]
fn memory_that_was_cut_short_is_refused_before_anything_is_made() {
    if !has_criu() {
        return;
    }
    let container = filled("lazy-short", 72, None);
    container.sleep("image");
    for entry in fs::read_dir(container.path("image")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("pages-") {
            let length = entry.metadata().unwrap().len();
            fs::File::options().write(true).open(entry.path()).unwrap().set_len(length - 4096).unwrap();
        }
    }
    let (bundle, image, id) = (container.bundle(), container.path("image"), container.id.clone());
    let (bundle, image) = (bundle.to_str().unwrap(), image.to_str().unwrap());
    let error = container.must_fail(&["restore", "-d", "-b", bundle, "--image-path", image, &id]);
    assert!(error.contains("it was cut short"), "{error}");
    assert!(container.must_fail(&["state", &id]).contains("container does not exist"));
    assert!(page_daemon(&container.id).is_empty());
}

#[test]
fn memory_may_come_from_a_page_daemon_of_criu() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("lazy-criu", "i=0; while true; do i=$((i+1)); echo n $i; sleep 0.05; done");
    container.start();
    container.wait_past(2);
    container.sleep("image");
    let asleep = container.count();
    let work = container.path("work");
    fs::create_dir_all(&work).unwrap();
    let criu = criu::Program::find(None).unwrap();
    let mut daemon = std::process::Command::new(&criu.path)
        .args(["lazy-pages", "-D"])
        .arg(container.path("image"))
        .arg("-W")
        .arg(&work)
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !work.join("lazy-pages.socket").exists() {
        assert!(std::time::Instant::now() < deadline && daemon.try_wait().unwrap().is_none(), "no page daemon");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    wake(&mut container, "image", &["--lazy-pages"]);
    container.wait_past(asleep);
    assert!(daemon.wait().unwrap().success());
    assert!(!container.path("state").join(&container.id).join("lazy.json").exists(), "ours was started as well");
    // It has left its socket.
    assert!(container.call(&["delete", "-f", &container.id]).status.success());
    let asleep = container.count();
    wake(&mut container, "image", &["--lazy-pages"]);
    container.wait_past(asleep);
}
