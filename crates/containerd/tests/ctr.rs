//! docker-containerd-ctr against docker-containerd: every command, what it prints and how it ends.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Daemon, Oci};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

fn ctr(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docker-containerd-ctr"));
    command.arg("--address").arg(format!("unix://{}", daemon.socket().display())).args(args).stdin(Stdio::null());
    command
}

async fn run(command: Command) -> Output {
    fed(command, "").await
}

/// Runs it with this input, on a thread of its own, since the daemon's client lives on ours.
async fn fed(mut command: Command, input: &'static str) -> Output {
    let work = move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = tokio::time::timeout(Duration::from_secs(60), tokio::task::spawn_blocking(work));
    output.await.expect("ctr does not end").unwrap()
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// The command line that starts a container under the daemon's own runtime root.
fn start<'a>(root: &'a str, more: &[&'a str], id: &'a str, bundle: &'a Path) -> Vec<&'a str> {
    let mut args = vec!["containers", "start", "--runtime-args", "--root", "--runtime-args", root];
    args.extend_from_slice(more);
    args.extend_from_slice(&[id, bundle.to_str().unwrap()]);
    args
}

#[tokio::test]
async fn an_attached_container_has_our_streams_and_gives_its_status() {
    let daemon = Daemon::start(Oci::Runc).await;
    let bundle = daemon.bundle("a", &["sh", "-c", "while read x; do echo got $x; done; echo bad >&2; exit 7"]);
    let root = daemon.runtime_root();
    let output = fed(ctr(&daemon, &start(&root, &["--attach"], "a", &bundle)), "one\ntwo\n").await;
    assert_eq!(said(&output), (7, "got one\ngot two\n".into(), "bad\n".into()));
    daemon.assert_clean().await;
}

#[tokio::test]
async fn containers_are_listed_changed_and_killed() {
    let daemon = Daemon::start(Oci::Runc).await;
    let bundle = daemon.bundle("b", &["sleep", "1000"]);
    let root = daemon.runtime_root();
    assert_eq!(said(&run(ctr(&daemon, &start(&root, &[], "b", &bundle))).await), (0, String::new(), String::new()));

    let table = format!(
        "{:<20}{:width$}{:<20}PROCESSES\n{:<20}{:width$}{:<20}init\n",
        "ID",
        "PATH",
        "STATUS",
        "b",
        bundle.display(),
        "running",
        width = (bundle.as_os_str().len() + 3).max(20)
    );
    for args in [&["containers"][..], &["containers", "b"], &["containers", "list", "b"]] {
        assert_eq!(said(&run(ctr(&daemon, args)).await), (0, table.clone(), String::new()), "{args:?}");
    }
    let (status, state, _) = said(&run(ctr(&daemon, &["state", "b"])).await);
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!((status, state["containers"][0]["processes"][0]["pid"].as_str()), (0, Some("init")));
    let (status, stats, _) = said(&run(ctr(&daemon, &["containers", "stats", "b"])).await);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert!(status == 0 && stats["cgroup_stats"]["memory_stats"]["usage"]["usage"].as_u64() > Some(0), "{stats}");

    let exec = ["containers", "exec", "--id", "b", "--pid", "e1", "--cwd", "/", "-e", "PATH=/bin", "-e", "A=x", "-a"];
    let output = run(ctr(&daemon, &[&exec[..], &["sh", "-c", "echo $A; exit 5"]].concat())).await;
    assert_eq!(said(&output), (5, "x\n".into(), String::new()));

    for args in [
        &["containers", "pause", "b"][..],
        &["containers", "resume", "b"],
        &["containers", "update", "--memory-limit", "0x10000000", "b"],
        &["containers", "kill", "--signal", "9", "b"],
    ] {
        assert_eq!(said(&run(ctr(&daemon, args)).await), (0, String::new(), String::new()), "{args:?}");
    }
    daemon.wait_event("exit b init 137").await;
    daemon.assert_clean().await;
}

#[tokio::test]
async fn errors_are_said_as_the_original_says_them() {
    let daemon = Daemon::start(Oci::Runc).await;
    for (args, text) in [
        (&["containers", "kill", "nope"][..], "rpc error: code = 2 desc = containerd: container not found"),
        (&["containers", "kill"], "container id cannot be empty"),
        (&["containers", "start", "x"], "bundle path cannot be empty"),
        (&["checkpoints", "list"], "container id cannot be empty"),
        (&["checkpoints", "create"], "container id at cannot be empty"),
        (&["checkpoints", "create", "x"], "checkpoint name cannot be empty"),
        (&["containers", "update", "--cpu-quota", "1q", "x"], "strconv.ParseUint: parsing \"1q\": invalid syntax"),
    ] {
        assert_eq!(said(&run(ctr(&daemon, args)).await), (1, String::new(), format!("[ctr] {text}\n")), "{args:?}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_docker-containerd-ctr"));
    command.args(["--address", "foo", "version"]);
    let text = "[ctr] bad bind address format foo, expected proto://address\n";
    assert_eq!(said(&run(command).await), (1, String::new(), text.into()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_docker-containerd-ctr"));
    command.args(["--address", "unix:///nope/x.sock", "version"]);
    let text = "[ctr] rpc error: code = 14 desc = grpc: the connection is unavailable\n";
    assert_eq!(said(&run(command).await), (1, String::new(), text.into()));
    let (status, text, _) = said(&run(ctr(&daemon, &["version"])).await);
    assert!(status == 0 && text.starts_with("daemon version 0.2.3 commit: "), "{text}");
}

#[tokio::test]
async fn events_are_printed_as_a_table() {
    let daemon = Daemon::start(Oci::Runc).await;
    daemon.run("c", &["true"]).await;
    daemon.wait_event("exit c init 0").await;
    let mut child = ctr(&daemon, &["events", "-t", "2000-01-01T00:00:00Z"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let (mut text, mut buffer) = (String::new(), [0; 1024]);
        while text.lines().count() < 3 {
            let count = out.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        text
    });
    let text = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{:<31}{:<31}{:<31}{:<31}STATUS", "TIME", "TYPE", "ID", "PID"));
    for (line, (kind, pid)) in lines[1..].iter().zip([("start-container", ""), ("exit", "init")]) {
        assert!(line[31..].starts_with(&format!("{kind:<31}{:<31}{pid:<31}0", "c")), "{line:?}");
    }
}

#[tokio::test]
async fn an_attached_terminal_is_raw_and_has_our_size() {
    let daemon = Daemon::start(Oci::Runc).await;
    daemon.run("d", &["sleep", "1000"]).await;
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    rustix::termios::tcsetwinsize(&master, Winsize { ws_row: 31, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let before = rustix::termios::tcgetattr(&slave).unwrap();
    let script = "read x; stty size; echo got $x; exit 3";
    let exec = ["containers", "exec", "--id", "d", "--pid", "e", "--cwd", "/", "-e", "PATH=/bin", "-t", "-a"];
    let mut command = ctr(&daemon, &[&exec[..], &["sh", "-c", script]].concat());
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let mut typing = File::from(master.try_clone().unwrap());
    let mut shown = File::from(master);
    // Long enough that the first size has arrived.
    tokio::time::sleep(Duration::from_millis(500)).await;
    typing.write_all(b"word\r").unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "ctr does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(status.code(), Some(3));
    let mut buffer = [0; 4096];
    let count = shown.read(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..count]);
    assert!(text.contains("31 77\r\n") && text.contains("got word\r\n"), "{text:?}");
    // Ours is as it was.
    let after = rustix::termios::tcgetattr(&slave).unwrap();
    assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
    daemon.signal("d", "init", 9).await.unwrap();
    daemon.wait_event("exit d init 137").await;
}

#[tokio::test]
async fn checkpoints_are_made_listed_restored_and_deleted() {
    let prefix = Path::new("/opt/dormouse/criu/bin");
    if !prefix.join("criu").exists() {
        eprintln!("no CRIU here: not tested");
        return;
    }
    let daemon = Daemon::start(Oci::Runc).await;
    let bundle = daemon.bundle_with("f", &["sleep", "1000"], |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    });
    let dir = daemon.dir.join("checkpoints");
    fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    // The daemon's runtime needs to find criu as well.
    let (root, criu) = (daemon.runtime_root(), format!("{}/criu", prefix.display()));
    let more = ["--runtime-args", "--criu", "--runtime-args", &criu];
    let done = |output: Output| assert_eq!(said(&output), (0, String::new(), String::new()), "{}", daemon.log());
    done(run(ctr(&daemon, &start(&root, &more, "f", &bundle))).await);
    done(run(ctr(&daemon, &["checkpoints", "create", "--checkpoint-dir", dir, "f", "cp1"])).await);
    done(run(ctr(&daemon, &["checkpoints", "create", "--exit", "--checkpoint-dir", dir, "f", "cp2"])).await);
    daemon.wait_event("exit f init 137").await;
    let restore = ["--checkpoint", "cp2", "--checkpoint-dir", dir];
    done(run(ctr(&daemon, &start(&root, &[&more[..], &restore].concat(), "f", &bundle))).await);
    let output = run(ctr(&daemon, &["checkpoints", "list", "--checkpoint-dir", dir, "f"])).await;
    let row = |name: &str| format!("{name:<20}{:<20}{:<20}false", "false", "false");
    let header = format!("{:<20}{:<20}{:<20}SHELL", "NAME", "TCP", "UNIX SOCKETS");
    let (status, text, _) = said(&output);
    let mut lines: Vec<&str> = text.lines().collect();
    // The order is the directory's.
    lines[1..].sort_unstable();
    assert_eq!((status, lines), (0, vec![header.as_str(), &row("cp1"), &row("cp2")]));
    done(run(ctr(&daemon, &["checkpoints", "delete", "--checkpoint-dir", dir, "f", "cp1"])).await);
    assert!(!Path::new(dir).join("cp1").exists() && Path::new(dir).join("cp2").exists());
    done(run(ctr(&daemon, &["containers", "kill", "-s", "9", "f"])).await);
    daemon.assert_clean().await;
}
