//! Sleeping and waking, each checked by what the program does afterwards. Needs root, busybox and CRIU.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Container, has_criu};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

const COUNT: &str = "i=0; while true; do i=$((i+1)); echo n $i; sleep 0.05; done";

/// Runs inside a container only (see `Container::of_test`): everything that may break in a sleep, checked at every step.
#[test]
fn workload() {
    if std::env::var_os("DORMOUSE_WORKLOAD").is_none() {
        return;
    }
    println!();
    let listener = TcpListener::bind("127.0.0.1:7777").unwrap();
    let mut client = TcpStream::connect("127.0.0.1:7777").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() {
            far.write_all(&[byte[0] + 1]).unwrap();
        }
    });
    let file = std::fs::File::create("/tmp/locked").unwrap();
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let mut deleted = std::fs::File::options().read(true).write(true).create_new(true).open("/tmp/deleted").unwrap();
    deleted.write_all(b"still here").unwrap();
    std::fs::remove_file("/tmp/deleted").unwrap();
    for n in 1u64.. {
        std::thread::sleep(Duration::from_millis(50));
        client.write_all(&n.to_le_bytes()).unwrap();
        let mut got = [0; 8];
        server.read_exact(&mut got).unwrap();
        near.write_all(&[7]).unwrap();
        let mut answer = [0];
        near.read_exact(&mut answer).unwrap();
        let again = std::fs::File::open("/tmp/locked").unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut deleted).unwrap();
        deleted.read_to_string(&mut text).unwrap();
        let fine = u64::from_le_bytes(got) == n
            && answer == [8]
            && rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive).is_err()
            && text == "still here";
        println!("{} {n}", if fine { "n" } else { "BROKEN" });
    }
}

#[test]
fn a_counter_goes_on_twenty_times() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("twenty", COUNT);
    container.start();
    for cycle in 0..20 {
        container.cycle(&format!("image{cycle}"));
    }
    assert_eq!(container.status(), "running");
    let id = container.id.clone();
    let pids: Vec<i32> = serde_json::from_str(&container.must(&["ps", "-f", "json", &id])).unwrap();
    assert!(!pids.is_empty());
    container.must(&["exec", &id, "true"]);
    container.must(&["pause", &id]);
    container.must(&["resume", &id]);
}

#[test]
fn connections_locks_threads_and_deleted_files_go_on() {
    if !has_criu() {
        return;
    }
    let mut container = Container::of_test("workload", "workload");
    container.start();
    container.cycle("first");
    container.cycle("second");
    let options = std::fs::read(container.path("first/dormouse-options.json")).unwrap();
    let options: Value = serde_json::from_slice(&options).unwrap();
    assert_eq!(options["tcp"], "established");
    let stats = std::fs::read(container.path("first/dormouse-stats.json")).unwrap();
    let stats: Value = serde_json::from_slice(&stats).unwrap();
    assert!(stats["frozen_us"].as_u64().unwrap() > 0 && stats["pages"].as_u64().unwrap() > 0);
}

#[test]
fn another_user_and_a_pipeline_go_on() {
    if !has_criu() {
        return;
    }
    let script = "i=0; (while true; do i=$((i+1)); echo $i; sleep 0.05; done) | while read x; do echo n $x; done";
    let mut container = Container::new("user", script);
    container.config()["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    container.config()["process"]["noNewPrivileges"] = json!(true);
    container.start();
    container.cycle("first");
    container.cycle("second");
}

#[test]
fn the_same_checkpoint_wakes_many_times_and_limits_hold() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("again", COUNT);
    container.config()["linux"]["resources"]["pids"] = json!({ "limit": 4 });
    container.config()["root"]["readonly"] = json!(true);
    container.start();
    container.wait_past(3);
    container.sleep("image");
    let asleep = container.count();
    for _ in 0..3 {
        container.wake("image");
        let mark = format!("n {}\n", asleep + 1);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !container.output().ends_with(&mark) && !container.output().contains(&mark) {
            assert!(std::time::Instant::now() < deadline, "{}", container.output());
        }
        let id = container.id.clone();
        let limit = container.must(&["exec", &id, "cat", "/sys/fs/cgroup/pids/pids.max"]);
        assert_eq!(limit.trim(), "4");
        container.must(&["delete", "-f", &id]);
        std::fs::write(container.path("output"), "").unwrap();
    }
}

#[test]
fn a_paused_container_wakes_paused() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("paused", COUNT);
    container.start();
    container.wait_past(2);
    let id = container.id.clone();
    container.must(&["pause", &id]);
    container.sleep("image");
    container.wake("image");
    assert_eq!(container.status(), "paused");
    let still = container.count();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(container.count(), still);
    container.must(&["resume", &id]);
    container.wait_past(still);
}

#[test]
fn leave_running_leaves_it_running() {
    if !has_criu() {
        return;
    }
    // Its images go to the disk at once, or into memory first.
    for in_memory in ["false", "true"] {
        let mut container = Container::new("leave", COUNT);
        container.config()["annotations"] = json!({ "dormouse.checkpoint.in-memory": in_memory });
        container.start();
        let before = container.wait_past(2);
        let output = container.checkpoint("image", &["--leave-running"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(container.status(), "running");
        container.wait_past(before + 3);
        // It is whole: the container can begin there again.
        let id = container.id.clone();
        container.must(&["delete", "-f", &id]);
        let asleep = container.count();
        container.wake("image");
        container.wait_past(asleep);
    }
}

#[test]
fn trees_are_captured_and_a_failed_capture_changes_nothing() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("capture", &format!("echo kept > /tmp/note; {COUNT}"));
    container.start();
    let before = container.wait_past(2);
    let output = container.checkpoint("bad", &["--capture", "rootfs=/no/such/directory"]);
    assert!(!output.status.success());
    assert!(!container.path("bad").exists());
    assert_eq!(container.status(), "running");
    container.wait_past(before + 3);
    let tree = container.path("bundle/rootfs/tmp");
    let output = container.checkpoint("good", &["--capture", &format!("rootfs={}", tree.display())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = std::process::Command::new("tar").arg("-tf").arg(container.path("good/rootfs.tar")).output().unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).contains("note"));
}

#[test]
fn temporary_file_systems_and_masks_come_back_as_they_were() {
    if !has_criu() {
        return;
    }
    let script = format!(
        "echo kept > /scratch/file; mkdir /scratch/dir; chmod 700 /scratch/dir; exec 5>/scratch/gone; echo there >&5; \
         rm /scratch/gone; {COUNT}"
    );
    let mut container = Container::new("tmpfs", &script);
    container.config()["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "mode=1777", "size=4m"]
    }));
    container.start();
    container.wait_past(2);
    let id = container.id.clone();
    // Where it is mounted, with which options, and of which kind.
    let mounts = |container: &Container| {
        let text = container.must(&["exec", &id, "cat", "/proc/self/mountinfo"]);
        let fields = |line: &str| {
            let all: Vec<&str> = line.split(' ').collect();
            format!("{} {}", all[4], all[5])
        };
        let mut list: Vec<String> = text.lines().map(fields).collect();
        list.sort();
        list
    };
    let before = mounts(&container);
    for image in ["first", "second"] {
        container.cycle(image);
        let own = std::fs::read(container.path(image).join("dormouse-options.json")).unwrap();
        let own: Value = serde_json::from_slice(&own).unwrap();
        assert!(own["own_tmpfs"].as_array().unwrap().contains(&json!("/scratch")), "{own}");
        assert_eq!(container.must(&["exec", &id, "cat", "/scratch/file"]), "kept\n");
        let read_only =
            |line: &String| line.starts_with("/sys") || line.starts_with("/scratch") || line.starts_with("/dev");
        let after = mounts(&container);
        let (wanted, found): (Vec<_>, Vec<_>) =
            (before.iter().filter(|l| read_only(l)).collect(), after.iter().filter(|l| read_only(l)).collect());
        assert_eq!(wanted, found);
        let text = container.call(&["exec", &id, "sh", "-c", "echo x > /sys/firmware/x"]);
        assert!(!text.status.success(), "what is masked can be written to");
        container.must(&[
            "exec",
            &id,
            "sh",
            "-c",
            "test -c /dev/null && test ! -e /scratch/gone && test -d /scratch/dir",
        ]);
    }
}

#[test]
fn it_goes_on_where_the_mounts_of_the_host_are_shared() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("shared", COUNT);
    container.share_mounts();
    container.config()["linux"]["maskedPaths"] = json!(["/proc/acpi", "/sys/firmware", "/proc/keys"]);
    container.start();
    for image in ["one", "two"] {
        container.cycle(image);
    }
}

#[test]
fn a_running_exec_is_refused_by_name() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("refuse", COUNT);
    container.start();
    let before = container.wait_past(2);
    let id = container.id.clone();
    let null = std::process::Stdio::null;
    let status = container.command(&["exec", "-d", &id, "sleep", "30"]).stdout(null()).stderr(null()).status();
    assert!(status.unwrap().success());
    let output = container.checkpoint("image", &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("sleep 30"), "{text}");
    assert!(!container.path("image").exists());
    container.wait_past(before + 2);
}

#[test]
fn nothing_to_wake_is_an_error_that_leaves_nothing() {
    let container = Container::new("nothing", COUNT);
    let (bundle, id) = (container.bundle(), container.id.clone());
    std::fs::create_dir(container.path("empty")).unwrap();
    let text = container.must_fail(&[
        "restore",
        "-d",
        "-b",
        bundle.to_str().unwrap(),
        "--image-path",
        container.path("empty").to_str().unwrap(),
        &id,
    ]);
    assert!(text.contains("holds no checkpoint"), "{text}");
    assert!(container.must_fail(&["state", &id]).contains("container does not exist"));
}

#[test]
fn a_damaged_checkpoint_leaves_nothing_and_the_root_untouched() {
    if !has_criu() {
        return;
    }
    let mut container = Container::new("damaged", COUNT);
    container.start();
    container.wait_past(2);
    container.sleep("image");
    for entry in std::fs::read_dir(container.path("image")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("core-") {
            std::fs::write(entry.path(), b"nonsense").unwrap();
        }
    }
    let (bundle, id) = (container.bundle(), container.id.clone());
    let image = container.path("image");
    container.must_fail(&[
        "restore",
        "-d",
        "-b",
        bundle.to_str().unwrap(),
        "--image-path",
        image.to_str().unwrap(),
        &id,
    ]);
    assert!(container.must_fail(&["state", &id]).contains("container does not exist"));
    assert!(!container.path("state").join(&id).exists());
    assert!(container.path("bundle/rootfs/bin/busybox").exists());
    container.start();
    container.wait_past(1);
}
