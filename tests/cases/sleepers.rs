//! What a container may be made of and still sleep: each way to run one that sleeping could break, and what is refused
//! before anything is touched. The program in it goes on, or its number is missing from the count.

use std::fs;

use e2e::{COUNT_SCRIPT, Counter, Engine, busybox_tar, eventually, eventually_seen, free_port};

use crate::checkpoints::sleeps_and_wakes;

#[test]
fn in_the_hosts_pid_namespace() {
    sleeps_and_wakes("--pid host");
}

#[test]
fn with_the_hosts_ipc_and_names() {
    sleeps_and_wakes("--ipc host --uts host");
}

#[test]
fn privileged() {
    sleeps_and_wakes("--privileged");
}

#[test]
fn with_less_and_with_no_protection() {
    sleeps_and_wakes("--cap-drop ALL --security-opt no-new-privileges --cgroupns private");
    sleeps_and_wakes("--security-opt seccomp=unconfined");
}

#[test]
fn with_debians_runc() {
    sleeps_and_wakes("--runtime runc");
}

#[test]
fn in_another_containers_network() {
    let engine = Engine::start();
    engine.ok("docker run -d --name owner busybox nc -ll -p 7 -e cat");
    let counter = Counter::run(&engine, "c1", "--network container:owner");
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    counter.goes_on();
    let network = "readlink /proc/self/ns/net";
    assert_eq!(engine.ok(&format!("docker exec c1 {network}")), engine.ok(&format!("docker exec owner {network}")));
}

#[test]
fn without_a_log() {
    let engine = Engine::start();
    let script = "n=0; while :; do n=$((n+1)); echo $n; echo $n >/count; sleep 0.05; done";
    engine.ok(&format!("docker run -d --name c1 --log-driver none busybox sh -c '{script}'"));
    let count = || engine.run("docker exec c1 cat /count").out().parse::<u64>().unwrap_or(0);
    let before = eventually("it counts", || Some(count()).filter(|count| *count > 10));
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    let after = eventually("it counts on", || Some(count()).filter(|count| *count > before));
    assert!(after < before + 400, "{before} before, {after} after");
    engine.fails("docker logs c1").says("does not support reading");
}

#[test]
fn a_health_check_does_not_stand_in_the_way() {
    let engine = Engine::start();
    // A probe is running nearly all the time.
    let health =
        "--health-cmd 'sleep 0.3; test ! -e /ill' --health-interval 50ms --health-retries 2 --health-timeout 5s";
    let counter = Counter::run(&engine, "c1", health);
    let health = || engine.inspect("c1", "{{.State.Health.Status}}");
    eventually_seen("it is healthy", health, |status| status == "healthy");
    for round in 0..2 {
        engine.ok(&format!("docker checkpoint create --leave-running c1 copy{round}"));
        assert_eq!(health(), "healthy", "what is known stays known");
        engine.ok(&format!("docker checkpoint create c1 nap{round} && docker start --checkpoint nap{round} c1"));
        counter.goes_on();
        eventually_seen("it is healthy again", health, |status| status == "healthy");
    }
    engine.ok("docker exec c1 touch /ill");
    eventually_seen("it is ill", health, |status| status == "unhealthy");
}

#[test]
fn one_that_is_removed_at_its_end_stays_while_it_sleeps() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "--rm");
    engine.ok("docker checkpoint create c1 nap");
    assert_eq!(engine.inspect("c1", "{{.State.Status}}"), "exited");
    engine.ok("docker start --checkpoint nap c1");
    counter.goes_on();
    engine.ok("docker stop -t 0 c1");
    eventually("it is removed at its end", || engine.ok("docker ps -aq").is_empty().then_some(()));
}

#[test]
fn an_attached_client_sees_it_fall_asleep_and_wake() {
    let engine = Engine::start();
    let mut client = engine.background("first", &format!("docker run --name c1 busybox sh -c '{COUNT_SCRIPT}'"));
    let numbers = |output: String| -> Vec<u64> { output.lines().filter_map(|line| line.trim().parse().ok()).collect() };
    let seen = |client: &e2e::Background, more_than: usize| {
        eventually("the client sees it count", || Some(numbers(client.output())).filter(|all| all.len() > more_than))
    };
    let before = seen(&client, 3).len();
    engine.ok("docker checkpoint create --leave-running c1 copy");
    let all = seen(&client, before + 5);
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>(), "nothing is lost, nothing comes twice");
    engine.ok("docker checkpoint create c1 nap");
    assert_eq!(client.ends(), 137, "it sleeps: for the client that is its end");
    let asleep = numbers(client.output());
    let client = engine.background("second", "docker start -a --checkpoint nap c1");
    let awake = seen(&client, 3);
    let logged: Vec<u64> = numbers(engine.ok("docker logs c1"));
    assert_eq!(logged, (1..=logged.len() as u64).collect::<Vec<_>>(), "the log is one");
    assert!(awake[0] > *asleep.last().expect("a number"), "{awake:?} after {asleep:?}");
}

#[test]
fn sessions_zombies_and_signal_handlers() {
    let engine = Engine::start();
    let script = "trap \"echo heard\" USR1; \
                  setsid sh -c \"sleep 1001 & sleep 1002\" & \
                  sh -c \"sleep 0.01 & exec sleep 1003\" & \
                  (sleep 1004 | cat) & \
                  n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.05; done";
    engine.ok(&format!("docker run -d --name c1 busybox sh -c '{script}'"));
    // Without what comes and goes: the counting loop's own sleep, and ps.
    let tree = || engine.ok("docker exec c1 ps -o pid,ppid,pgid,sid,stat,args | grep -v -e 0.05 -e 'ps -o'");
    let whole = |tree: &str| {
        let stat_is_zombie = |line: &str| line.split_whitespace().nth(4).is_some_and(|stat| stat.starts_with('Z'));
        (1001..=1004).all(|n| tree.contains(&format!("sleep {n}"))) && tree.lines().any(stat_is_zombie)
    };
    // Running or waiting is a matter of the moment.
    let steady = |tree: String| tree.replace(" R ", " S ");
    let before = steady(eventually_seen("all of them are there", tree, whole));
    let count = || engine.run("docker exec c1 cat /count").out().parse::<u64>().unwrap_or(0);
    for round in 0..2 {
        let counted = count();
        engine.ok(&format!("docker checkpoint create c1 nap{round} && docker start --checkpoint nap{round} c1"));
        assert_eq!(steady(tree()), before);
        eventually("it counts on", || (count() > counted).then_some(()));
        engine.ok("docker kill -s USR1 c1");
        let heard = || engine.ok("docker logs c1");
        eventually_seen("the trap is sprung", heard, |log| log.matches("heard").count() == round + 1);
    }
}

#[test]
fn connections_on_a_created_network() {
    let engine = Engine::start();
    let port = free_port();
    engine.ok("docker network create sea");
    engine.ok(&format!("docker run -d --name c1 --network sea -p 127.0.0.1:{port}:7 busybox nc -ll -p 7 -e cat"));
    let address = engine.inspect("c1", "{{.NetworkSettings.Networks.sea.IPAddress}}");
    let mut neighbour =
        engine.background("neighbour", &format!("docker run -i --name peer --network sea busybox nc {address} 7"));
    let mut outside = engine.background("outside", &format!("busybox nc 127.0.0.1 {port}"));
    let mut says = |word: &str| {
        for client in [&mut neighbour, &mut outside] {
            client.types(&format!("{word}\n"));
            client.shows(word);
        }
    };
    says("before");
    for round in 0..2 {
        engine.ok(&format!("docker checkpoint create c1 nap{round} && docker start --checkpoint nap{round} c1"));
        says(&format!("after-{round}"));
    }
    engine.ok("docker checkpoint create --leave-running c1 copy");
    says("at-last");
    // It listens, too.
    let mut newcomer = engine.background("newcomer", &format!("busybox nc 127.0.0.1 {port}"));
    newcomer.types("hello\n");
    newcomer.shows("hello");
}

#[test]
fn connections_within_the_container() {
    let engine = Engine::start();
    let script = "nc -ll -p 7 -e cat & until netstat -ltn | grep -q :7; do sleep 0.05; done; \
                  (n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done) | nc 127.0.0.1 7";
    engine.ok(&format!("docker run -d --name c1 busybox sh -c '{script}'"));
    let echoed = |more_than: usize| {
        eventually("what goes through the connection comes back", || {
            let log = engine.ok("docker logs c1");
            let numbers: Vec<u64> = log.lines().map(|line| line.trim().parse().expect("a number")).collect();
            assert!(numbers.iter().zip(1..).all(|(is, should)| *is == should), "{numbers:?}");
            (numbers.len() > more_than).then_some(numbers.len())
        })
    };
    let mut heard = echoed(3);
    for round in 0..2 {
        engine.ok(&format!("docker checkpoint create c1 nap{round} && docker start --checkpoint nap{round} c1"));
        heard = echoed(heard + 3);
    }
    engine.ok("docker checkpoint create --leave-running c1 copy");
    echoed(heard + 3);
}

#[test]
fn the_restart_policy_holds_for_one_that_woke() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "--restart on-failure:3");
    engine.ok("docker checkpoint create c1 nap && docker start --checkpoint nap c1");
    counter.goes_on();
    let pid = engine.inspect("c1", "{{.State.Pid}}");
    assert_eq!(engine.inspect("c1", "{{.RestartCount}}"), "0");
    engine.ok(&format!("kill -KILL {pid}"));
    eventually_seen(
        "it is started afresh",
        || engine.inspect("c1", "{{.RestartCount}} {{.State.Status}}"),
        |seen| seen == "1 running",
    );
    eventually("it counts from one", || {
        (engine.ok("docker logs c1").lines().filter(|line| line.trim() == "1").count() == 2).then_some(())
    });
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let engine = Engine::start();
    let naps = engine.home().join("naps");
    let source = engine.home().join("source");
    for folder in [&naps, &source] {
        fs::create_dir(folder).expect("create a folder");
    }
    let (at, bind) = (naps.display(), source.display());
    let run = format!("-v {bind}:/bound busybox sh -c '{COUNT_SCRIPT}'");
    engine.ok(&format!("docker run -d --name c1 {run}"));
    eventually("it counts", || engine.ok("docker logs c1").lines().nth(3).map(drop));
    engine.ok(&format!("docker checkpoint create --leave-running --checkpoint-dir {at} c1 nap"));
    engine.ok("docker checkpoint create c1 own");
    engine.ok(&format!("docker import -c 'CMD [\"true\"]' {} other-image", busybox_tar().display()));
    let others = [
        ("other", format!("-v {bind}:/bound other-image sh -c '{COUNT_SCRIPT}'"), "image"),
        ("terminal", format!("-t {run}"), "terminal"),
        ("unbound", format!("busybox sh -c '{COUNT_SCRIPT}'"), "/bound"),
    ];
    for (name, flags, word) in &others {
        engine.ok(&format!("docker create --name {name} {flags}"));
        engine.fails(&format!("docker start --checkpoint nap --checkpoint-dir {at} {name}")).says(word);
        let state = engine.inspect(name, "{{.State.Status}} {{.State.Pid}}");
        assert!(["created 0", "exited 0"].contains(&state.as_str()), "{name} is {state}");
        engine.ok(&format!("docker start {name}"));
        engine.wait_for_state(name, "running");
        engine.ok(&format!("docker rm -f {name}"));
    }
    // Volumes whose files are gone, and back: a start would make them anew and empty.
    engine.ok(&format!("docker run -d --name c2 -v data:/data busybox sh -c '{COUNT_SCRIPT}'"));
    engine.ok("docker checkpoint create c2 own");
    let volume = engine.data_root().join("volumes/data/_data");
    fs::remove_dir(&volume).expect("remove a folder");
    engine.fails("docker start --checkpoint own c2").says("data").says("missing");
    assert_eq!(engine.inspect("c2", "{{.State.Status}}"), "exited");
    fs::create_dir(&volume).expect("create a folder");
    engine.ok("docker start --checkpoint own c2 && docker rm -f c2");
    // A bind mount's source that is gone, and back.
    fs::remove_dir(&source).expect("remove a folder");
    engine.fails("docker start --checkpoint own c1").says("source");
    fs::create_dir(&source).expect("create a folder");
    let counted = engine.ok("docker logs c1 | wc -l");
    engine.ok("docker start --checkpoint own c1");
    eventually("it counts on", || (engine.ok("docker logs c1 | wc -l") != counted).then_some(()));
}

#[test]
fn what_it_has_on_its_networks_is_kept_for_it() {
    let engine = Engine::start();
    engine.ok("docker network create sea");
    let counter = Counter::run(&engine, "c1", "-p 127.0.0.1::80 --network sea");
    engine.ok("docker network connect bridge c1");
    let shown =
        "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}} {{end}}{{json .NetworkSettings.Ports}}";
    let before = engine.inspect("c1", shown);
    engine.ok("docker checkpoint create c1 nap");
    engine.crash_and_restart();
    for round in 0..3 {
        let run = "docker run -d -p 127.0.0.1::80 --network sea";
        engine
            .ok(&format!("{run} --name other{round} busybox sleep 1000 && docker network connect bridge other{round}"));
    }
    engine.ok("docker start --checkpoint nap c1");
    assert_eq!(engine.inspect("c1", shown), before);
    counter.goes_on();
}
