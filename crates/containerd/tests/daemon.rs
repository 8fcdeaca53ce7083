//! The program around the service: flags, messages, debug address, metrics, dump.

mod common;

use std::process::{Command, Output};

use common::{Daemon, Oci, free_port, get, signal, wait};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_docker-containerd")).args(args).output().unwrap()
}

#[test]
fn bad_flags_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").to_string_lossy().into_owned();
    let cases = [
        ("foo", "bad listen address format foo, expected proto://address"),
        ("http://x", "invalid protocol format: \\\"http\\\""),
        ("fd://", "no sockets found via socket activation: make sure the service was started by systemd"),
        ("unix:///no/such/dir/x.sock", "can't create unix socket /no/such/dir/x.sock: "),
    ];
    for (listen, words) in cases {
        let output = run(&["-l", listen, "--state-dir", &state]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{listen}");
        assert!(text.contains("level=fatal") && text.contains(words), "{listen}: {text}");
    }
    for (flags, words) in [
        (&["--no-such-flag"][..], "flag provided but not defined: -no-such-flag"),
        (&["--start-timeout", "soon"], r#"invalid value \"soon\" for flag -start-timeout: parse error"#),
    ] {
        let output = run(flags);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{flags:?}");
        assert!(text.contains("level=fatal") && text.contains(words), "{flags:?}: {text}");
        assert!(output.stdout.starts_with(b"Incorrect Usage.\n"), "{flags:?}");
    }
    let version = run(&["-v"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("containerd version 0.2.3 commit: "));
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_address_has_metrics_and_profiles() {
    let port = free_port();
    let daemon = Daemon::start_with(Oci::Runc, &["--pprof-address", &format!("127.0.0.1:{port}")]).await;
    daemon.run("a", &["sleep", "1000"]).await;
    let metrics = get(port, "/metrics");
    assert!(metrics.contains("\ncontainerd_containers 1\n"), "{metrics}");
    assert!(metrics.contains("\ncontainerd_container_start_time_seconds_count 1\n"), "{metrics}");
    assert!(metrics.contains("\ncontainerd_event_subscribers 1\n"), "{metrics}");
    assert!(!metrics.contains("\ncontainerd_epoll_fds 0\n"), "{metrics}");
    assert!(get(port, "/").starts_with("HTTP/1.1 30"));
    let vars = get(port, "/debug/vars");
    assert!(vars.contains("\"container-start-time\""), "{vars}");
    let profile = get(port, "/debug/pprof/profile?seconds=1");
    assert!(profile.starts_with("HTTP/1.1 200"), "{profile}");
    // A profile says what it counts, with or without a sample in it.
    assert!(profile.contains("cpu") && profile.contains("nanoseconds"), "{profile:?}");
    let profile = get(port, "/debug/pprof/heap");
    assert!(profile.starts_with("HTTP/1.1 200") && profile.contains("inuse_space"), "{profile:?}");
    assert!(get(port, "/debug/pprof/mutex").starts_with("HTTP/1.1 501"));
}

#[tokio::test]
async fn usr1_dumps_and_metrics_are_printed() {
    let daemon = Daemon::start_with(Oci::Runc, &["--metrics-interval", "200ms"]).await;
    wait("metrics on standard output", || daemon.log().contains("timer container-start-time")).await;
    assert!(daemon.log().contains("[containerd] 20"));
    signal(daemon.pid(), "USR1");
    wait("the dump", || daemon.log().contains("=== END goroutine stack dump ===")).await;
    assert!(daemon.log().contains("=== BEGIN goroutine stack dump ==="));
}
