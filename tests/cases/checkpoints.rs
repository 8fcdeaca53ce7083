//! Sleep and wake. A checkpoint is good when the program goes on: its count, its port, its terminal, its files.

use std::fs;

use e2e::{Counter, Engine, eventually, eventually_seen, free_port};

pub(crate) fn sleeps_and_wakes(flags: &str) {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", flags);
    assert_eq!(engine.ok("docker checkpoint create c1 nap"), "nap");
    assert_eq!(engine.ok("docker ps -q"), "", "it sleeps");
    assert_eq!(engine.inspect("c1", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let asleep = counter.last();
    engine.ok("docker start --checkpoint nap c1");
    assert_eq!(engine.inspect("c1", "{{.State.Status}}"), "running");
    counter.passes(asleep);
    counter.goes_on();
    assert_eq!(engine.ok("docker exec c1 echo awake"), "awake");
    engine.ok("docker stop -t 0 c1 && docker rm c1");
}

#[test]
fn without_a_network() {
    sleeps_and_wakes("--network none");
}

#[test]
fn on_the_hosts_network() {
    sleeps_and_wakes("--network host");
}

#[test]
fn on_the_default_bridge() {
    sleeps_and_wakes("");
}

#[test]
fn on_a_created_network() {
    let engine = Engine::start();
    engine.ok("docker network create sea");
    let counter = Counter::run(&engine, "c1", "--network sea");
    let address = engine.inspect("c1", "{{.NetworkSettings.Networks.sea.IPAddress}}");
    engine.ok("docker run -d --name other --network sea busybox sleep 1000");
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    counter.goes_on();
    assert_eq!(engine.inspect("c1", "{{.NetworkSettings.Networks.sea.IPAddress}}"), address);
    engine.ok("docker exec other ping -c 1 -W 2 c1 && docker exec c1 ping -c 1 -W 2 other");
}

#[test]
fn with_limits_a_read_only_root_and_tmpfs() {
    sleeps_and_wakes("-m 64m --cpus 0.5 --pids-limit 50 --read-only --tmpfs /scratch");
}

#[test]
fn the_limits_hold_for_one_that_woke() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "-m 64m --cpus 0.5 --pids-limit 50");
    let limits = || {
        let pid = engine.inspect("c1", "{{.State.Pid}}");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its groups");
        let mut found = Vec::new();
        for group in groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            for (controller, files) in [
                ("memory", ["memory.limit_in_bytes", "memory.max"]),
                ("cpu,cpuacct", ["cpu.cfs_quota_us", "cpu.max"]),
                ("cpu", ["cpu.cfs_quota_us", "cpu.max"]),
                ("pids", ["pids.max", "pids.max"]),
                (".", ["memory.max", "pids.max"]),
            ] {
                let place = std::path::Path::new("/sys/fs/cgroup").join(controller).join(group.trim_start_matches('/'));
                for file in files {
                    if let Ok(value) = fs::read_to_string(place.join(file)) {
                        found.push(format!("{file} {}", value.trim()));
                    }
                }
            }
        }
        found.sort();
        found.dedup();
        found
    };
    let before = limits();
    for wanted in ["67108864", "50000", "50"] {
        assert!(before.iter().any(|limit| limit.split(' ').any(|word| word == wanted)), "{wanted} in {before:?}");
    }
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    assert_eq!(limits(), before);
    counter.goes_on();
    // And the processes: a shell that starts more than it may is told so.
    let done = engine.run("docker exec c1 sh -c 'for i in $(seq 60); do sleep 5 & done'");
    assert!(done.stderr.contains("fork") || done.code != 0, "{}", done.report());
}

#[test]
fn with_init() {
    sleeps_and_wakes("--init");
}

#[test]
fn as_another_user() {
    sleeps_and_wakes("-u 33:33");
}

#[test]
fn with_volumes_and_binds() {
    sleeps_and_wakes("-v data:/data -v /etc/hostname:/host-name:ro -v /anonymous");
}

#[test]
fn files_open_in_volumes_are_written_on() {
    let engine = Engine::start();
    let bound = engine.home().join("bound");
    fs::create_dir(&bound).expect("create a folder");
    let script = "exec 5>>/named/log 6>>/anonymous/log 7>>/bound/log; n=0; \
                  while :; do n=$((n+1)); echo $n >&5; echo $n >&6; echo $n >&7; sleep 0.05; done";
    engine.ok(&format!(
        "docker run -d --name c1 -v named:/named -v /anonymous -v {}:/bound busybox sh -c '{script}'",
        bound.display()
    ));
    let logs = || -> Vec<Vec<u64>> {
        ["named", "anonymous", "bound"]
            .iter()
            .map(|place| engine.ok(&format!("docker exec c1 cat /{place}/log")))
            .map(|log| log.lines().map(|line| line.parse().expect("a number")).collect())
            .collect()
    };
    let longer_than = |length: usize| {
        eventually("all three are written", || Some(logs()).filter(|all| all.iter().all(|log| log.len() > length)))
    };
    longer_than(3);
    for round in 0..2 {
        engine.ok(&format!("docker checkpoint create c1 nap{round}"));
        let asleep = fs::read_to_string(bound.join("log")).expect("read").lines().count();
        engine.ok(&format!("docker start --checkpoint nap{round} c1"));
        for log in longer_than(asleep + 2) {
            assert!(log.iter().zip(1..).all(|(is, should)| *is == should), "{log:?}");
        }
    }
}

#[test]
fn behind_a_published_port() {
    let engine = Engine::start();
    let port = free_port();
    let serve = "mkdir /www; httpd -h /www; n=0; while :; do n=$((n+1)); echo $n >/www/new; mv /www/new /www/n; sleep 0.05; done";
    engine.ok(&format!("docker run -d --name c1 -p {port}:80 busybox sh -c '{serve}'"));
    let asked = || engine.run(&format!("curl -sf -m 2 http://127.0.0.1:{port}/n"));
    let count = |more_than: u64| {
        eventually(format!("port {port} counts past {more_than}"), || {
            asked().out().parse::<u64>().ok().filter(|count| *count > more_than)
        })
    };
    let awake = count(5);
    let address = engine.inspect("c1", "{{.NetworkSettings.IPAddress}}");
    engine.ok("docker checkpoint create c1 nap");
    assert_ne!(asked().code, 0, "nobody answers for a sleeper");
    engine.ok("docker start --checkpoint nap c1");
    let woken = count(awake);
    assert!(woken < awake + 400, "{awake} before, {woken} after");
    assert_eq!(engine.inspect("c1", "{{.NetworkSettings.IPAddress}}"), address);
    assert_eq!(engine.ok("docker port c1 80 | head -n 1"), format!("0.0.0.0:{port}"));
}

#[test]
fn on_a_terminal() {
    let engine = Engine::start();
    engine
        .ok("docker run -dit --name c1 busybox sh -c 'n=0; while read line; do n=$((n+1)); echo \"$n: $line\"; done'");
    let mut before = engine.terminal("docker attach c1");
    before.types("first\n");
    before.shows("1: first");
    before.types("\u{10}\u{11}");
    before.ends();
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    let mut after = engine.terminal("docker attach c1");
    after.types("second\n");
    after.shows("2: second");
    after.types("\u{10}\u{11}");
    after.ends();
    assert!(engine.ok("docker logs c1").contains("1: first"), "the log has both lives");
}

#[test]
fn on_a_terminal_without_input() {
    sleeps_and_wakes("-t");
}

#[test]
fn with_open_input() {
    let engine = Engine::start();
    engine.ok("docker run -di --name c1 busybox sh -c 'n=0; while read line; do n=$((n+1)); echo \"$n: $line\"; done'");
    let mut before = engine.background("before", "docker attach c1");
    before.types("first\n");
    before.shows("1: first");
    drop(before);
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    let mut after = engine.background("after", "docker attach c1");
    eventually_seen(
        "the second line is answered",
        || {
            after.types("second\n");
            after.output()
        },
        |output| output.contains(": second"),
    );
}

#[test]
fn it_goes_on_running_if_asked() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    let pid = engine.inspect("c1", "{{.State.Pid}}");
    engine.ok("docker checkpoint create --leave-running c1 one");
    assert_eq!(engine.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    counter.goes_on();
    engine.ok("docker checkpoint create --leave-running c1 two");
    counter.goes_on();
    // As with Docker: what runs is left alone, and that is no error.
    engine.ok("docker start --checkpoint one c1");
    counter.goes_on();
    engine.ok("docker exec c1 true && docker stop -t 0 c1");
}

#[test]
fn a_checkpoint_wakes_again_and_again() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sh -c 'n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.05; done'");
    let count = || engine.run("docker exec c1 cat /count").out().parse::<u64>().unwrap_or(0);
    eventually("it counts", || (count() > 10).then_some(()));
    engine.ok("docker checkpoint create c1 nap");
    for round in 0..3 {
        engine.ok("docker start --checkpoint nap c1");
        let first = eventually("it counts on", || Some(count()).filter(|count| *count > 10));
        assert!(first < 200, "round {round} begins at {first}, which is not where the checkpoint was made");
        eventually("it counts on", || (count() > first + 5).then_some(()));
        engine.ok("docker stop -t 0 c1");
    }
    // And it can still be started afresh.
    engine.ok("docker start c1");
    eventually("it began anew", || Some(count()).filter(|count| *count > 0));
}

#[test]
fn twenty_cycles_in_a_row() {
    let rounds = 20;
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    for round in 0..rounds {
        engine.ok(&format!("docker checkpoint create c1 nap{round}"));
        engine.ok(&format!("docker start --checkpoint nap{round} c1"));
        counter.goes_on();
    }
    assert_eq!(engine.ok("docker checkpoint ls c1 | grep -c nap"), rounds.to_string());
    engine.ok("docker exec c1 true && docker stop -t 0 c1 && docker rm c1");
}

#[test]
fn they_are_listed_and_removed() {
    let engine = Engine::start();
    Counter::run(&engine, "c1", "--network none");
    assert_eq!(engine.ok("docker checkpoint ls c1 | grep -v CHECKPOINT || true"), "");
    engine.ok("docker checkpoint create --leave-running c1 one && docker checkpoint create --leave-running c1 two");
    assert_eq!(engine.ok("docker checkpoint ls c1 | tail -n +2 | sort | xargs"), "one two");
    engine.fails("docker checkpoint create --leave-running c1 one").says("already exists");
    engine.ok("docker checkpoint rm c1 one");
    assert_eq!(engine.ok("docker checkpoint ls c1 | tail -n +2"), "two");
    engine.fails("docker checkpoint rm c1 one").says("does not exist");
    engine.fails("docker checkpoint create nope x").says("No such container: nope");
    for name in ["../up", ".", "..", "a/b", "-x", "' '"] {
        let done = engine.fails(&format!("docker checkpoint create --leave-running -- c1 {name}"));
        assert!(!done.stderr.contains("500"), "{}", done.report());
    }
    engine.ok("docker stop -t 0 c1");
    engine.fails("docker checkpoint create c1 late").says("is not running");
    engine.fails("docker start --checkpoint gone c1").says("does not exist");
    engine.ok("docker start --checkpoint two c1");
    engine.ok("docker rm -f c1");
    engine.fails("docker checkpoint ls c1").says("No such container: c1");
    let containers = engine.data_root().join("containers");
    let left = fs::read_dir(&containers).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(left, 0, "docker rm removes the checkpoints");
}

#[test]
fn in_a_directory_of_ones_own() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    let folder = engine.home().join("naps");
    fs::create_dir(&folder).expect("create a folder");
    let at = folder.display();
    engine.ok(&format!("docker checkpoint create --checkpoint-dir {at} c1 nap"));
    assert!(engine.ok(&format!("docker checkpoint ls --checkpoint-dir {at} c1")).contains("nap"));
    assert_eq!(engine.ok("docker checkpoint ls c1 | tail -n +2"), "");
    engine.ok(&format!("docker start --checkpoint nap --checkpoint-dir {at} c1"));
    counter.goes_on();
    // Another container of the same image wakes from it, too, and goes on from there.
    let asleep = counter.last();
    engine.ok(&format!("docker create --name twin busybox sh -c '{}'", e2e::COUNT_SCRIPT));
    engine.ok(&format!("docker start --checkpoint nap --checkpoint-dir {at} twin"));
    let first =
        eventually("the twin counts", || engine.ok("docker logs twin").lines().next()?.trim().parse::<u64>().ok());
    assert!(first > 3 && first <= asleep, "the twin began at {first}, the other one is at {asleep}");
    engine.ok(&format!("docker checkpoint rm --checkpoint-dir {at} c1 nap"));
    assert_eq!(fs::read_dir(&folder).expect("read a folder").count(), 0);
}

#[test]
fn a_restart_of_the_engine_in_between() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    engine.ok("docker checkpoint create c1 nap");
    assert_eq!(engine.stop_dockerd(), 0);
    engine.boot();
    engine.ok("docker start --checkpoint nap c1");
    counter.goes_on();
    engine.crash_and_restart();
    counter.goes_on();
    engine.ok("docker checkpoint create c1 second");
    engine.kill_containerd();
    engine.crash_and_restart();
    engine.ok("docker start --checkpoint second c1");
    counter.goes_on();
}

#[test]
fn files_come_back_as_they_were() {
    let engine = Engine::start();
    let script = "echo root >/root-file; echo shm >/dev/shm/f; echo tmp >/scratch/f; exec 5>/deleted; echo open >&5; rm /deleted; \
                  echo ready; while :; do sleep 0.05; done";
    engine.ok(&format!("docker run -d --name c1 --tmpfs /scratch busybox sh -c '{script}'"));
    eventually("the files are there", || engine.ok("docker logs c1").contains("ready").then_some(()));
    engine.ok("docker checkpoint create --leave-running c1 nap");
    // What is changed after the checkpoint was made is not part of it.
    engine.ok("docker exec c1 sh -c 'echo later >/root-file; echo later >/dev/shm/f; echo x >/new'");
    engine.ok("docker stop -t 0 c1 && docker start --checkpoint nap c1");
    let files = engine.ok(
        "docker exec c1 sh -c 'cat /root-file /dev/shm/f /scratch/f; cat /proc/1/fd/5; ls /new 2>/dev/null' | xargs",
    );
    assert_eq!(files, "root shm tmp open");
}

#[test]
fn a_paused_one_sleeps_and_wakes_paused() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    engine.ok("docker pause c1 && docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    assert_eq!(engine.inspect("c1", "{{.State.Status}}"), "paused");
    engine.ok("docker unpause c1");
    counter.goes_on();
}

#[test]
fn the_restart_policy_lets_it_sleep() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "--restart always");
    engine.ok("docker checkpoint create c1 nap");
    std::thread::sleep(std::time::Duration::from_millis(700)); // nothing must happen: there is nothing to wait for
    assert_eq!(engine.inspect("c1", "{{.State.Status}}"), "exited");
    engine.ok("docker start --checkpoint nap c1");
    counter.goes_on();
}

#[test]
fn a_connection_from_outside_lives_on() {
    let engine = Engine::start();
    let port = free_port();
    engine.ok(&format!("docker run -d --name c1 -p 127.0.0.1:{port}:7 busybox nc -l -p 7 -e cat"));
    let mut line = None;
    eventually("the port answers", || {
        line = Some(engine.background("line", &format!("busybox nc 127.0.0.1 {port}")));
        let connected = line.as_mut()?;
        connected.types("before\n");
        std::thread::sleep(std::time::Duration::from_millis(100));
        connected.output().contains("before").then_some(())
    });
    let mut line = line.expect("a connection");
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    line.types("after\n");
    line.shows("after");
}

#[test]
fn an_exec_in_progress_is_not_lost_without_a_word() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "");
    let mut session = engine.background("session", "docker exec c1 sh -c 'sleep 2; echo over'");
    eventually("it runs", || engine.ok("docker top c1 -o pid,args").contains("sleep 2").then_some(()));
    let done = engine.run("docker checkpoint create c1 nap");
    if done.code == 0 {
        assert!(session.output().contains("over"), "the checkpoint did not wait for the exec, nor refuse");
        engine.ok("docker start --checkpoint nap c1");
    } else {
        assert!(done.stderr.contains("exec"), "{}", done.report());
        assert_eq!(session.ends(), 0);
    }
    counter.goes_on();
}

#[test]
fn a_damaged_checkpoint_is_refused_and_a_normal_start_still_works() {
    let engine = Engine::start();
    Counter::run(&engine, "c1", "");
    let folder = engine.home().join("naps");
    fs::create_dir(&folder).expect("create a folder");
    let at = folder.display();
    engine.ok(&format!("docker checkpoint create --checkpoint-dir {at} c1 nap"));
    engine.ok(&format!("f=$(find {at} -name 'pages-*.img' | head -n 1); test -n \"$f\" && truncate -s 100 $f"));
    engine.fails(&format!("docker start --checkpoint nap --checkpoint-dir {at} c1"));
    engine.ok("docker start c1");
    assert_eq!(engine.ok("docker exec c1 echo fine"), "fine");
}

#[test]
fn events_tell_of_checkpoints() {
    let engine = Engine::start();
    let began = engine.ok("date +%s.%N");
    Counter::run(&engine, "c1", "--network none");
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    // With the type, because a filter by name takes whatever has a name or an id that begins so: also a network.
    let told = engine.ok(&format!(
        "docker events --since {began} --until $(date +%s.%N) --filter type=container --filter container=c1 \
         --format '{{{{.Action}}}}' | xargs"
    ));
    assert_eq!(told, "create start checkpoint die start", "{told}");
}
