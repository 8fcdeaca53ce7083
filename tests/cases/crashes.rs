//! SIGKILL of dockerd and docker-containerd: containers run on and nothing is lost.

use e2e::{Counter, Engine, eventually};

#[test]
fn containers_do_not_notice_that_dockerd_dies() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "-p 127.0.0.1::80");
    let before = engine.inspect("c1", "{{.State.Pid}} {{.State.StartedAt}} {{.NetworkSettings.IPAddress}}");
    for _ in 0..3 {
        engine.crash_and_restart();
        assert_eq!(engine.inspect("c1", "{{.State.Pid}} {{.State.StartedAt}} {{.NetworkSettings.IPAddress}}"), before);
        counter.goes_on();
    }
    assert_eq!(engine.ok("docker exec c1 echo hi"), "hi");
    engine.ok("docker stop -t 0 c1");
    assert_eq!(engine.inspect("c1", "{{.State.ExitCode}}"), "137");
    engine.ok("docker start c1 && docker rm -f c1");
}

#[test]
fn containers_do_not_notice_that_containerd_dies() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    let before = engine.inspect("c1", "{{.State.Pid}}");
    let old = engine.containerd_pid();
    engine.kill_containerd();
    eventually("dockerd starts another one", || {
        let path = engine.exec_root().join("libcontainerd/docker-containerd.pid");
        let pid: i32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        (pid != old.as_raw() && std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    counter.goes_on();
    eventually("exec works again", || (engine.run("docker exec c1 echo hi").out() == "hi").then_some(()));
    assert_eq!(engine.inspect("c1", "{{.State.Pid}}"), before);
    engine.ok("docker run --rm busybox true && docker stop -t 0 c1");
    assert_eq!(engine.inspect("c1", "{{.State.ExitCode}}"), "137");
}

#[test]
fn an_exit_while_nobody_watched_is_told_afterwards() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sh -c 'echo first; while [ ! -e /go ]; do sleep 0.05; done; echo last; exit 42'");
    engine.ok("docker run -d --name again --restart always busybox sleep 1000");
    let pid = engine.inspect("c1", "{{.State.Pid}}");
    let other = engine.inspect("again", "{{.State.Pid}}");
    engine.kill_dockerd();
    engine.ok(&format!("touch /proc/{pid}/root/go; kill -9 {other}"));
    eventually("it has ended", || (!std::path::Path::new(&format!("/proc/{pid}/root")).exists()).then_some(()));
    engine.boot();
    eventually("its end is known", || {
        (engine.inspect("c1", "{{.State.Status}} {{.State.ExitCode}}") == "exited 42").then_some(())
    });
    assert_eq!(engine.ok("docker logs c1"), "first\nlast");
    eventually("the other one was started again", || {
        (engine.inspect("again", "{{.State.Running}}") == "true" && engine.inspect("again", "{{.State.Pid}}") != other)
            .then_some(())
    });
}

#[test]
fn an_exit_while_both_are_dead_is_told_afterwards() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sh -c 'while [ ! -e /go ]; do sleep 0.05; done; exit 42'");
    let pid = engine.inspect("c1", "{{.State.Pid}}");
    let containerd = engine.containerd_pid();
    engine.kill_dockerd();
    let _ = nix::sys::signal::kill(containerd, nix::sys::signal::Signal::SIGKILL);
    engine.ok(&format!("touch /proc/{pid}/root/go"));
    eventually("it has ended", || (!std::path::Path::new(&format!("/proc/{pid}/root")).exists()).then_some(()));
    engine.boot();
    eventually("its end is known", || {
        (engine.inspect("c1", "{{.State.Status}} {{.State.ExitCode}}") == "exited 42").then_some(())
    });
}

#[test]
fn everything_is_remembered() {
    let engine = Engine::start();
    engine.ok("docker network create --label a=1 sea && docker volume create data && docker tag busybox other:1");
    engine
        .ok("docker run -d --name up --network sea -v data:/d --label l=1 --restart unless-stopped busybox sleep 1000");
    engine.ok("docker create --name fresh busybox && docker run --name done busybox sh -c 'echo said; exit 3' || true");
    let look = || {
        [
            engine.ok("docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.State}} {{.Networks}} {{.Mounts}}'"),
            engine.ok("docker images --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' | sort"),
            engine.ok("docker network ls --no-trunc --format '{{.ID}} {{.Name}}' | sort"),
            engine.ok("docker volume ls -q"),
            engine.inspect(
                "up",
                "{{json .Config}} {{json .HostConfig}} {{json .Mounts}} {{json .NetworkSettings.Networks}}",
            ),
            engine.inspect("done", "{{json .State}}"),
            engine.ok("docker logs done"),
        ]
    };
    let before = look();
    engine.crash_and_restart();
    assert_eq!(look(), before);
    engine.kill_containerd();
    engine.crash_and_restart();
    assert_eq!(look(), before);
}

#[test]
fn a_power_cut_loses_nothing_that_was_written() {
    power_cut(false);
}

#[test]
fn a_power_cut_is_survived_where_run_is_a_disk() {
    power_cut(true);
}

fn power_cut(keeps_run: bool) {
    let engine = Engine::start();
    engine.ok("docker network create sea && docker volume create data");
    engine.ok("docker run -d --name once -v data:/d busybox sh -c 'echo kept >/d/file; echo said; sleep 1000'");
    engine.ok("docker run -d --name always --network sea --restart always -p 127.0.0.1::80 busybox sleep 1000");
    eventually("it has written", || (engine.run("docker logs once").out() == "said").then_some(()));
    let sleeper = Counter::run(&engine, "sleeper", "--restart always -p 127.0.0.1::80");
    let address = engine.inspect("sleeper", "{{.NetworkSettings.IPAddress}} {{json .NetworkSettings.Ports}}");
    engine.ok("docker checkpoint create sleeper nap");
    engine.lose_power(keeps_run);
    engine.boot();
    eventually("its end is known", || {
        let state = engine.inspect("once", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}");
        (state == "exited 255 0").then_some(())
    });
    eventually("what is always to run is started", || {
        (engine.inspect("always", "{{.State.Running}}") == "true").then_some(())
    });
    assert_eq!(engine.ok("docker start once >/dev/null && docker exec once cat /d/file"), "kept");
    assert_eq!(engine.ok("docker logs once").lines().next(), Some("said"));
    // What was put to sleep sleeps until it is woken, and goes on where it was.
    assert_eq!(engine.inspect("sleeper", "{{.State.Running}}"), "false");
    engine.ok("docker start --checkpoint nap sleeper");
    assert_eq!(engine.inspect("sleeper", "{{.NetworkSettings.IPAddress}} {{json .NetworkSettings.Ports}}"), address);
    sleeper.goes_on();
}

#[test]
fn a_stop_of_the_engine_stops_containers_and_leaves_nothing() {
    let engine = Engine::start();
    let id = engine.ok("docker run -d --name c1 -p 127.0.0.1::80 -v data:/d busybox sleep 1000");
    let gone = engine.ok("docker run -d --name gone busybox sleep 1000 && docker rm -f gone >/dev/null");
    assert_eq!(engine.stop_dockerd(), 0);
    let left = engine.leftovers(&[&id, &gone]);
    assert!(left.is_empty(), "left behind: {left:#?}");
    engine.boot();
    assert_eq!(engine.inspect("c1", "{{.State.Status}}"), "exited");
}

#[test]
fn live_restore_leaves_them_running() {
    let engine = Engine::with().flags("--live-restore").start();
    let counter = Counter::run(&engine, "c1", "");
    assert_eq!(engine.stop_dockerd(), 0);
    engine.boot();
    counter.goes_on();
}

#[test]
fn killing_at_any_moment_of_a_start_leaves_nothing_half_made() {
    let engine = Engine::start();
    let patience = |n: u64| std::time::Duration::from_millis(3 + 7 * n);
    for n in 0..12 {
        let mut start =
            engine.background("start", &format!("docker run -d --name k{n} -p 127.0.0.1::80 busybox sleep 1000"));
        std::thread::sleep(patience(n)); // the moments are the test
        if n % 2 == 0 {
            engine.kill_dockerd();
            engine.boot();
        } else {
            engine.kill_containerd();
        }
        start.ends();
    }
    eventually("the engine works", || (engine.run("docker run --rm busybox echo fine").out() == "fine").then_some(()));
    let listed = engine.ok("docker ps -aq --no-trunc");
    let running: Vec<&str> = listed.lines().collect();
    engine.ok("docker ps -aq | xargs -r docker rm -f");
    assert_eq!(engine.stop_dockerd(), 0);
    let left = engine.leftovers(&running);
    assert!(left.is_empty(), "left behind: {left:#?}");
}
