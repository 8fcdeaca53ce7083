//! Processes, their ends, and clients that come and go.
#![allow(missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::{Fixture, read_to_end, reader, text};
use shim::protocol::{Call, Origin, Reply, Stdio};

const FAKE: &str = r#"
dir=$(dirname "$0")
for word in "$@"; do last=$word; done
pid_file=
previous=
for word in "$@"; do [ "$previous" = --pid-file ] && pid_file=$word; previous=$word; done
echo "$@" >> "$dir/calls"
case " $* " in
*" create "*) sh -c 'exec sleep 1000' & printf %s $! > "$pid_file";;
*" exec "*) sh -c 'exec sleep 0.2' & printf %s $! > "$pid_file";;
*" checkpoint "*) while [ ! -e "$dir/go" ]; do sleep 0.02; done; echo done; [ ! -e "$dir/fail" ] || { echo 'criu failed: "x"' >&2; exit 1; };;
esac
"#;

#[test]
fn statuses_are_codes_and_signals() {
    for (script, status) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$; sleep 1", 137), ("nosuchthing", 127)] {
        // Not the shell itself, which as the first process of its namespace would not obey its own signal.
        let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "sh -c \"$0\"; exit $?", script]);
        let pid = client.create_and_start(Stdio::default());
        assert!(pid > 1);
        assert_eq!(client.exit("init").status, status, "{script}");
        assert_eq!(fixture.exit_status("init").unwrap(), status.to_string());
        assert_eq!(fixture.wait_for_shim(), 0);
    }
}

#[test]
fn a_signal_reaches_the_process_and_only_a_living_one() {
    let (mut fixture, mut client) = Fixture::begin(&["sleep", "1000"]);
    client.create_and_start(Stdio::default());
    let bad = client.ask(Call::Signal { process: "init".into(), signal: 4000 }).unwrap_err();
    assert_eq!((bad.origin, bad.message.as_str()), (Origin::Shim, "invalid argument"));
    let unknown = client.ask(Call::Signal { process: "nobody".into(), signal: 9 }).unwrap_err();
    assert_eq!(unknown.message, "process not found for container");
    client.ask(Call::Signal { process: "init".into(), signal: 9 }).unwrap();
    assert_eq!(client.exit("init").status, 137);
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn execs_have_their_own_streams_and_ends() {
    let (mut fixture, mut client) = Fixture::begin(&["sleep", "1000"]);
    client.create_and_start(Stdio::default());
    fixture.write_exec("e1", &["sh", "-c", "echo hello from exec; exit 7"], false);
    let stdout = fixture.fifo("e1-out");
    let out = reader(&stdout);
    let pid = client.exec("e1", Stdio { stdout, ..Stdio::default() });
    assert!(pid > 1);
    assert_eq!(text(read_to_end(out)), "hello from exec\n");
    assert_eq!(client.exit("e1").status, 7);
    assert_eq!(fixture.exit_status("e1").unwrap(), "7");

    // With a terminal.
    fixture.write_exec("e2", &["sh", "-c", "[ -t 0 ] && [ -t 2 ] && echo terminal; exit 8"], true);
    let stdout = fixture.fifo("e2-out");
    let out = reader(&stdout);
    client.exec("e2", Stdio { stdout, terminal: true, ..Stdio::default() });
    assert_eq!(client.exit("e2").status, 8);
    assert_eq!(text(read_to_end(out)), "terminal\r\n");

    // One that cannot be.
    fixture.write_exec("e3", &["/nope"], false);
    let failure = client.ask(Call::Exec { process: "e3".into(), stdio: Stdio::default() }).unwrap_err();
    assert_eq!(failure.origin, Origin::Runtime);
    assert!(failure.message.to_lowercase().contains("no such file or directory"), "{}", failure.message);

    // One that lives when the container ends is reported before it.
    fixture.write_exec("e4", &["sleep", "1000"], false);
    client.exec("e4", Stdio::default());
    let Ok(Reply::Processes { list }) = client.ask(Call::State) else { panic!("state") };
    let names: Vec<&str> = list.iter().map(|process| process.process.as_str()).collect();
    assert_eq!(names, ["init", "e4"]);
    client.ask(Call::Signal { process: "init".into(), signal: 9 }).unwrap();
    assert_eq!(client.exit("init").status, 137);
    let order: Vec<&str> = client.exits.iter().map(|exit| exit.process.as_str()).collect();
    assert_eq!(order, ["e1", "e2", "e4", "init"]);
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn a_grandchild_that_holds_the_output_does_not_hold_the_exec() {
    let (mut fixture, mut client) = Fixture::begin(&["sleep", "1000"]);
    client.create_and_start(Stdio::default());
    fixture.write_exec("e1", &["sh", "-c", "sleep 1000 & echo left"], false);
    let stdout = fixture.fifo("out");
    let out = reader(&stdout);
    let begun = Instant::now();
    client.exec("e1", Stdio { stdout, ..Stdio::default() });
    assert_eq!(client.exit("e1").status, 0);
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(15), "{waited:?}");
    assert_eq!(text(read_to_end(out)), "left\n");
    client.ask(Call::Signal { process: "init".into(), signal: 9 }).unwrap();
    client.exit("init");
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn a_shared_pid_namespace_is_killed_off_with_init() {
    let mut fixture = Fixture::new(&["sh", "-c", "sleep 1000 & echo left; exit 5"]);
    fixture.edit_config(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        // Without a namespace of its own proc cannot be mounted afresh everywhere; the host's is not needed here.
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        config["mounts"].as_array_mut().unwrap().insert(
            0,
            serde_json::json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}),
        );
        config["linux"].as_object_mut().unwrap().remove("maskedPaths");
        config["linux"].as_object_mut().unwrap().remove("readonlyPaths");
    });
    fixture.start_shim();
    let mut client = fixture.connect();
    let stdout = fixture.fifo("out");
    let out = reader(&stdout);
    let begun = Instant::now();
    client.create_and_start(Stdio { stdout, ..Stdio::default() });
    assert_eq!(client.exit("init").status, 5);
    assert!(begun.elapsed() < Duration::from_secs(8), "the grandchild was not killed");
    assert_eq!(text(read_to_end(out)), "left\n");
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn a_create_that_fails_says_why_and_ends_the_shim() {
    let (mut fixture, mut client) = Fixture::begin(&["/nope"]);
    let failure = client.ask(Call::Create { stdio: Stdio::default(), no_pivot: false, restore: None }).unwrap_err();
    assert_eq!(failure.origin, Origin::Runtime);
    assert!(failure.message.to_lowercase().contains("no such file or directory"), "{}", failure.message);
    assert_eq!(fixture.wait_for_shim(), 0);
    // The runtime has forgotten it.
    assert!(!fixture.base.path().join("runc").join(&fixture.id).exists());
}

#[test]
fn what_is_missing_is_named() {
    let create = |stdio| Call::Create { stdio, no_pivot: false, restore: None };
    let (mut fixture, mut client) = Fixture::begin(&["true"]);
    let stdio = Stdio { stdin: "/nope/in".into(), ..Stdio::default() };
    let failure = client.ask(create(stdio)).unwrap_err();
    assert_eq!((failure.origin, failure.message.as_str()), (Origin::Shim, "stat /nope/in: no such file or directory"));
    assert_eq!(fixture.wait_for_shim(), 0);
    drop(fixture);

    let (fixture, mut client) = Fixture::begin(&["true"]);
    assert_eq!(client.ask(Call::Start).unwrap_err().message, "container is not running");
    drop(fixture);

    let mut fixture = Fixture::new(&["true"]);
    fixture.runtime = "no-such-runtime".into();
    fixture.start_shim();
    let failure = fixture.connect().ask(create(Stdio::default())).unwrap_err();
    assert_eq!((failure.origin, failure.message.as_str()), (Origin::Shim, "no-such-runtime not installed on system"));
    drop(fixture);

    let mut fixture = Fixture::new(&["true"]);
    fixture.runtime = "/nope/runc".into();
    fixture.start_shim();
    let failure = fixture.connect().ask(create(Stdio::default())).unwrap_err();
    assert_eq!(failure.message, "fork/exec /nope/runc: no such file or directory");
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn it_has_a_session_of_its_own() {
    let (fixture, _client) = Fixture::begin(&["true"]);
    let pid = fixture.shim.as_ref().unwrap().id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, pid.to_string());
}

#[test]
fn a_long_checkpoint_holds_up_nothing() {
    let mut fixture = Fixture::new(&["unused"]);
    fixture.fake_runtime(FAKE);
    fixture.start_shim();
    let mut client = fixture.connect();
    client.create_and_start(Stdio::default());
    let checkpoint = client.send(Call::Checkpoint { args: vec!["--image-path".into(), "/x".into()] });
    fixture.write_exec("e1", &["ignored"], false);
    client.exec("e1", Stdio::default());
    assert_eq!(client.exit("e1").status, 0);
    client.ask(Call::Resize { process: "init".into(), width: 1, height: 1 }).unwrap();
    assert!(!client.has_answer(checkpoint, Duration::from_millis(50)));

    // The container ends under it: everything waits for the checkpoint, then goes its way.
    client.ask(Call::Signal { process: "init".into(), signal: 9 }).unwrap();
    assert!(!client.has_answer(checkpoint, Duration::from_millis(200)));
    assert!(client.exits.iter().all(|exit| exit.process != "init"));
    std::fs::write(fixture.base.path().join("go"), "").unwrap();
    assert!(matches!(client.answer(checkpoint), Ok(Reply::Output { text }) if text == "done\n"));
    assert_eq!(client.exit("init").status, 137);
    assert_eq!(fixture.wait_for_shim(), 0);

    let calls = std::fs::read_to_string(fixture.base.path().join("calls")).unwrap();
    let (dir, root) = (fixture.dir().display().to_string(), fixture.base.path().join("runc").display().to_string());
    let (bundle, id) = (fixture.bundle().display().to_string(), &fixture.id);
    let mut expected = [
        format!(
            "--log {dir}/init/log.json --log-format json --root {root} create --bundle {bundle} --pid-file {dir}/init/pid {id}"
        ),
        format!("--root {root} start {id}"),
        format!("--root {root} checkpoint --image-path /x {id}"),
        format!(
            "--log {dir}/e1/log.json --log-format json --root {root} exec -d --process {dir}/e1/process.json --pid-file {dir}/e1/pid {id}"
        ),
        format!("--root {root} kill --all {id} KILL"),
        format!("--root {root} delete {id}"),
    ];
    let mut calls: Vec<&str> = calls.lines().collect();
    // The checkpoint and the exec ran side by side.
    calls[2..4].sort_unstable();
    expected[2..4].sort_unstable();
    assert_eq!(calls, expected);
}

#[test]
fn a_failed_checkpoint_is_quoted_and_the_container_goes_on() {
    let mut fixture = Fixture::new(&["unused"]);
    fixture.fake_runtime(FAKE);
    for name in ["go", "fail"] {
        std::fs::write(fixture.base.path().join(name), "").unwrap();
    }
    fixture.start_shim();
    let mut client = fixture.connect();
    client.create_and_start(Stdio::default());
    let failure = client.ask(Call::Checkpoint { args: Vec::new() }).unwrap_err();
    assert_eq!(failure.origin, Origin::ExitStatus);
    assert_eq!(failure.message, "exit status 1: \"done\\ncriu failed: \\\"x\\\"\\n\"");
    client.ask(Call::Signal { process: "init".into(), signal: 15 }).unwrap();
    assert_eq!(client.exit("init").status, 143);
    fixture.wait_for_shim();
}

#[test]
fn clients_come_and_go() {
    let (mut fixture, mut client) = Fixture::begin(&["sleep", "1000"]);
    let pid = client.create_and_start(Stdio::default());
    drop(client);

    // One that ends while nobody is there is found in its file.
    fixture.write_exec("e1", &["sh", "-c", "exit 9"], false);
    let mut brief = fixture.connect();
    brief.send(Call::Exec { process: "e1".into(), stdio: Stdio::default() });
    drop(brief);
    let end = Instant::now() + Duration::from_secs(20);
    while fixture.exit_status("e1").as_deref() != Some("9") {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }

    // Nonsense is answered if it has a number, and ends the connection otherwise; others do not notice.
    let (mut one, mut two) = (fixture.connect(), fixture.connect());
    one.send_raw(br#"{"seq":99,"call":"dance"}"#);
    assert_eq!(one.answer(99).unwrap_err().origin, Origin::Shim);
    one.send_raw(b"\xff\xfe garbage");
    assert!(!one.receive(Duration::from_secs(5)));

    let Ok(Reply::Processes { list }) = two.ask(Call::State) else { panic!("state") };
    assert_eq!((list.len(), list[0].pid), (1, pid));
    let mut three = fixture.connect();
    two.ask(Call::Signal { process: "init".into(), signal: 9 }).unwrap();
    assert_eq!(two.exit("init").status, 137);
    assert_eq!(three.exit("init").status, 137);
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn the_container_hears_signals() {
    let (mut fixture, mut client) = Fixture::begin(&["cat", "/proc/self/status"]);
    let stdout = fixture.fifo("out");
    let out = reader(&stdout);
    client.create_and_start(Stdio { stdout, ..Stdio::default() });
    let status = text(read_to_end(out));
    for field in ["SigBlk", "SigIgn"] {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let mask = u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap();
        // 32 and 33 belong to the C library of whoever started the test.
        assert_eq!(mask & !(0b11 << 31), 0, "{field}: {mask:x}");
    }
    fixture.wait_for_shim();
}

#[test]
fn signals_do_not_end_the_shim() {
    let (mut fixture, mut client) = Fixture::begin(&["sleep", "1000"]);
    client.create_and_start(Stdio::default());
    let shim = rustix::process::Pid::from_child(fixture.shim.as_ref().unwrap());
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP] {
        rustix::process::kill_process(shim, signal).unwrap();
    }
    assert!(client.ask(Call::State).is_ok());
    // The container does not inherit that.
    client.ask(Call::Signal { process: "init".into(), signal: 9 }).unwrap();
    assert_eq!(client.exit("init").status, 137);
    fixture.wait_for_shim();
}
