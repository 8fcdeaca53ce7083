//! A container's life: create, start, stop, kill, restart, wait, pause, rename, remove, and lists of them.

use e2e::{Engine, eventually};

#[test]
fn create_start_wait_remove() {
    let engine = Engine::start();
    let id = engine.ok("docker create --name c1 busybox sh -c 'exit 7'");
    assert_eq!(engine.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), "created 0");
    assert_eq!(engine.ok("docker start c1"), "c1");
    assert_eq!(engine.ok("docker wait c1"), "7");
    assert_eq!(engine.inspect("c1", "{{.State.Status}} {{.State.ExitCode}} {{.Id}}"), format!("exited 7 {id}"));
    assert_eq!(engine.ok("docker rm c1"), "c1");
    engine.fails("docker inspect c1").says("No such object: c1");
    engine.fails("docker start c1").says("No such container: c1");
    engine.ok("docker run -d --name late busybox sh -c 'sleep 0.5; exit 9'");
    assert_eq!(engine.ok("docker wait late"), "9");
    engine.ok("docker start -a late || test $? = 9");
}

#[test]
fn kill_and_restart() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sh -c 'trap \"exit 4\" USR1; while :; do sleep 0.05; done'");
    std::thread::sleep(std::time::Duration::from_millis(300)); // the trap cannot be seen from outside
    engine.ok("docker kill -s USR1 c1");
    assert_eq!(engine.ok("docker wait c1"), "4");
    engine.fails("docker kill c1").says("is not running");
    engine.fails("docker kill -s NOSUCH c1").says("nvalid signal: NOSUCH");
    engine.ok("docker start c1");
    let pid = engine.inspect("c1", "{{.State.Pid}}");
    assert_eq!(engine.ok("docker restart -t 0 c1"), "c1");
    assert_ne!(engine.inspect("c1", "{{.State.Pid}}"), pid);
    engine.ok("docker kill c1");
    engine.wait_for_state("c1", "exited");
    assert_eq!(engine.inspect("c1", "{{.State.ExitCode}}"), "137");
    engine.ok("docker stop c1"); // stopping what is stopped is no error
    engine.ok("docker start c1 && docker start c1");
}

#[test]
fn pause_and_unpause() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sh -c 'while :; do echo x; sleep 0.02; done'");
    assert_eq!(engine.ok("docker pause c1"), "c1");
    assert_eq!(engine.inspect("c1", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"), "paused true true");
    assert!(engine.ok("docker ps").contains("(Paused)"));
    let lines = engine.ok("docker logs c1 | wc -l");
    std::thread::sleep(std::time::Duration::from_millis(300)); // a frozen program writes nothing
    assert_eq!(engine.ok("docker logs c1 | wc -l"), lines);
    engine.fails("docker pause c1").says("is already paused");
    engine.fails("docker exec c1 true").says("is paused");
    assert_eq!(engine.ok("docker unpause c1"), "c1");
    eventually("it writes again", || (engine.ok("docker logs c1 | wc -l") != lines).then_some(()));
    engine.fails("docker unpause c1").says("is not paused");
    engine.ok("docker pause c1 && docker rm -f c1");
}

#[test]
fn rename_and_remove() {
    let engine = Engine::start();
    engine.ok("docker run -d --name one busybox sleep 100 && docker run -d --name two busybox sleep 100");
    engine.ok("docker rename one three");
    assert_eq!(engine.inspect("three", "{{.Name}}"), "/three");
    engine.fails("docker inspect one");
    engine.fails("docker rename two three").says("is already in use by container");
    engine.fails("docker rename two three/four").says("Invalid container name");
    engine.ok("docker run -d --name one busybox sleep 100");
    engine.fails("docker rm two").says("container is running");
    assert_eq!(engine.ok("docker rm -f two three one | sort | xargs"), "one three two");
    engine.fails("docker rm two").says("No such container: two");
    engine.ok("docker create --name cr busybox && docker rm cr");
}

#[test]
fn ps_filters_and_formats() {
    let engine = Engine::start();
    engine.ok("docker run -d --name up --label tier=web --label x busybox sleep 100");
    engine.ok("docker run -d --name done busybox sh -c 'exit 3' && docker wait done");
    engine.ok("docker create --name fresh --label tier=db busybox");
    let names = |flags: &str| {
        let mut names: Vec<String> =
            engine.ok(&format!("docker ps {flags} --format '{{{{.Names}}}}'")).lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(""), "up");
    assert_eq!(names("-a"), "done fresh up");
    assert_eq!(names("-n 1"), "fresh");
    assert_eq!(names("-l"), "fresh");
    assert_eq!(names("--filter status=exited"), "done");
    assert_eq!(names("--filter status=created"), "fresh");
    assert_eq!(names("-a --filter label=tier"), "fresh up");
    assert_eq!(names("-a --filter label=tier=db"), "fresh");
    assert_eq!(names("-a --filter label=tier --filter label=x"), "up");
    assert_eq!(names("-a --filter exited=3"), "done");
    assert_eq!(names("-a --filter name=^f"), "fresh");
    assert_eq!(names("-a --filter name=o"), "done");
    assert_eq!(names("-a --filter ancestor=busybox"), "done fresh up");
    assert_eq!(names("-a --filter ancestor=nope"), "");
    assert_eq!(names("-a --filter before=done"), "up");
    assert_eq!(names("-a --filter since=done"), "fresh");
    assert_eq!(names("-a --filter network=bridge"), "done fresh up");
    let id = engine.inspect("up", "{{.Id}}");
    assert_eq!(names(&format!("--filter id={}", &id[..8])), "up");
    engine.fails("docker ps --filter colour=red").says("invalid filter 'colour'");
    engine.fails("docker ps --filter status=bored").says("bored");
    assert_eq!(engine.ok("docker ps -q"), &id[..12]);
    assert_eq!(engine.ok("docker ps -q --no-trunc"), id);
    let row = engine.ok("docker ps --format '{{.Image}}|{{.Command}}|{{.State}}|{{.Labels}}|{{.Networks}}'");
    assert!(row.starts_with("busybox|\"sleep 100\"|running|") && row.ends_with("|bridge"), "{row}");
    assert!(engine.ok("docker ps -a --filter name=done").contains("Exited (3)"));
    assert!(engine.ok("docker ps --filter name=up").contains("Up "));
    assert!(engine.ok("docker ps -s --filter name=up").contains("virtual"));
    assert!(engine.ok("docker ps --format '{{json .}}'").contains("\"Names\":\"up\""));
}

#[test]
fn prune_removes_what_does_not_run() {
    let engine = Engine::start();
    engine.ok("docker run -d --name up busybox sleep 100");
    engine.ok("docker create --name aa busybox && docker create --name bb --label keep busybox");
    engine.ok("docker container prune -f --filter 'label!=keep'");
    assert_eq!(engine.ok("docker ps -a --format '{{.Names}}' | sort | xargs"), "bb up");
    engine.ok("docker container prune -f");
    assert_eq!(engine.ok("docker ps -a --format '{{.Names}}'"), "up");
}

#[test]
fn fifty_containers_live_side_by_side() {
    let engine = Engine::start();
    engine.ok("for n in $(seq 25); do docker run -d --name c$n --network none busybox sleep 1000 & \
               docker run -d --name d$n --network none busybox sleep 1000 & wait; done >/dev/null");
    assert_eq!(engine.ok("docker ps -q | wc -l"), "50");
    engine.ok("docker rm -f $(docker ps -q)");
    assert_eq!(engine.ok("docker ps -aq | wc -l"), "0");
}
