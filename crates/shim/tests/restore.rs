//! A container that is checkpointed through one shim and restored through another, streams and all.
//!
//! Needs a CRIU that works here: the one in `PATH`, or the one `scripts/install-criu` keeps in its own prefix. Where
//! there is none the test says so and does nothing.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Fixture, read_until, reader};
use shim::protocol::{Call, Reply, Restore, Stdio};

const PREFIX: &str = "/opt/dormouse/criu/bin";

fn criu_is_there() -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    // SAFETY: nextest runs one test a process, and this is the first thing that it does.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("PATH", format!("{PREFIX}:{path}"));
    }
    Command::new("criu").arg("--version").output().is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .next()
            .and_then(|line| line.strip_prefix("Version: "))
            .is_some_and(|version| !version.starts_with('3'))
    })
}

fn simplify(fixture: &Fixture) {
    fixture.edit_config(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    });
}

#[test]
fn a_restored_container_goes_on_with_new_streams() {
    if !criu_is_there() {
        eprintln!("no CRIU 4 here: not tested");
        return;
    }
    let script = "i=0; while read line; do i=$((i+1)); echo $i $line; echo e$i >&2; done; exit $i";
    let mut fixture = Fixture::new(&["sh", "-c", script]);
    simplify(&fixture);
    fixture.start_shim();
    let mut client = fixture.connect();
    let (stdin, stdout, stderr) = (fixture.fifo("in"), fixture.fifo("out"), fixture.fifo("err"));
    let (mut out, mut err) = (reader(&stdout), reader(&stderr));
    client.create_and_start(Stdio { stdin: stdin.clone(), stdout, stderr, ..Stdio::default() });
    fs::write(&stdin, "one\n").unwrap();
    read_until(&mut out, "1 one\n");
    read_until(&mut err, "e1\n");

    let image_path = fixture.base.path().join("images");
    let work_path = fixture.base.path().join("work");
    for dir in [&image_path, &work_path] {
        fs::create_dir(dir).unwrap();
    }
    let text = |path: &Path| path.display().to_string();
    let args = vec!["--image-path".into(), text(&image_path), "--work-path".into(), text(&work_path)];
    let answer = client.ask(Call::Checkpoint { args });
    assert!(matches!(answer, Ok(Reply::Output { .. })), "{answer:?}");
    assert_eq!(client.exit("init").status, 137);
    assert_eq!(fixture.wait_for_shim(), 0);

    // Twice from the same image: a checkpoint is not consumed.
    for round in 0..2 {
        let _ = fs::remove_dir_all(fixture.dir());
        fs::create_dir_all(fixture.dir().join("init")).unwrap();
        fixture.start_shim();
        let mut client = fixture.connect();
        let name = |stream: &str| format!("{stream}-{round}");
        let (stdin, stdout, stderr) =
            (fixture.fifo(&name("in")), fixture.fifo(&name("out")), fixture.fifo(&name("err")));
        let (mut out, mut err) = (reader(&stdout), reader(&stderr));
        let restore = Restore { image_path: image_path.clone(), work_path: work_path.clone(), args: Vec::new() };
        let stdio = Stdio { stdin: stdin.clone(), stdout, stderr, ..Stdio::default() };
        let answer = client.ask(Call::Create { stdio, no_pivot: false, restore: Some(restore) });
        let log = fs::read_to_string(work_path.join("restore.log")).unwrap_or_default();
        let Ok(Reply::Pid { pid }) = answer else { panic!("{answer:?}\n{log}") };
        assert!(pid > 1);
        fs::write(&stdin, "two\n").unwrap();
        read_until(&mut out, "2 two\n");
        read_until(&mut err, "e2\n");
        client.ask(Call::CloseStdin { process: "init".into() }).unwrap();
        assert_eq!(client.exit("init").status, 2);
        assert_eq!(fixture.wait_for_shim(), 0);
    }
}

#[test]
fn a_restored_terminal_goes_on_too() {
    if !criu_is_there() {
        eprintln!("no CRIU 4 here: not tested");
        return;
    }
    let mut fixture =
        Fixture::new(&["sh", "-c", "i=0; while read line; do i=$((i+1)); echo $i $line; stty size; done"]);
    simplify(&fixture);
    fixture.edit_config(|config| config["process"]["terminal"] = true.into());
    fixture.start_shim();
    let mut client = fixture.connect();
    let (stdin, stdout) = (fixture.fifo("in"), fixture.fifo("out"));
    let mut out = reader(&stdout);
    client.create_and_start(Stdio { stdin: stdin.clone(), stdout, terminal: true, ..Stdio::default() });
    client.ask(Call::Resize { process: "init".into(), width: 80, height: 24 }).unwrap();
    fs::write(&stdin, "one\n").unwrap();
    read_until(&mut out, "1 one\r\n24 80\r\n");

    let images = fixture.base.path().join("images");
    fs::create_dir(&images).unwrap();
    let text = images.display().to_string();
    let args = vec!["--image-path".into(), text.clone(), "--work-path".into(), text];
    let answer = client.ask(Call::Checkpoint { args });
    let log = fs::read_to_string(images.join("dump.log")).unwrap_or_default();
    assert!(matches!(answer, Ok(Reply::Output { .. })), "{answer:?}\n{log}");
    assert_eq!(client.exit("init").status, 137);
    assert_eq!(fixture.wait_for_shim(), 0);

    let _ = fs::remove_dir_all(fixture.dir());
    fs::create_dir_all(fixture.dir().join("init")).unwrap();
    fixture.start_shim();
    let mut client = fixture.connect();
    let (stdin, stdout) = (fixture.fifo("in-2"), fixture.fifo("out-2"));
    let mut out = reader(&stdout);
    let restore = Restore { image_path: images.clone(), work_path: images.clone(), args: Vec::new() };
    let stdio = Stdio { stdin: stdin.clone(), stdout, terminal: true, ..Stdio::default() };
    let answer = client.ask(Call::Create { stdio, no_pivot: false, restore: Some(restore) });
    let log = fs::read_to_string(images.join("restore.log")).unwrap_or_default();
    assert!(matches!(answer, Ok(Reply::Pid { .. })), "{answer:?}\n{log}");
    client.ask(Call::Resize { process: "init".into(), width: 100, height: 30 }).unwrap();
    fs::write(&stdin, "two\n").unwrap();
    read_until(&mut out, "2 two\r\n30 100\r\n");
    client.ask(Call::Signal { process: "init".into(), signal: 9 }).unwrap();
    assert_eq!(client.exit("init").status, 137);
    assert_eq!(fixture.wait_for_shim(), 0);
}
