//! Getting into a running container: attach and exec.

use e2e::{Engine, eventually};
use nix::sys::signal::Signal;

#[test]
fn exec_runs_programs_beside_the_first() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 -e FROM=container --workdir /tmp busybox sleep 1000");
    assert_eq!(engine.ok("docker exec c1 echo hi"), "hi");
    let done = engine.run("docker exec c1 sh -c 'echo out; echo err >&2; exit 6'");
    assert_eq!((done.code, done.out(), done.stderr.trim()), (6, "out", "err"), "{}", done.report());
    assert_eq!(engine.ok("docker exec c1 sh -c 'echo $FROM; pwd' | xargs"), "container /tmp");
    assert_eq!(engine.ok("docker exec -e A=1 -e FROM=exec c1 sh -c 'echo $A $FROM'"), "1 exec");
    assert_eq!(engine.ok("docker exec -u www-data c1 id -un"), "www-data");
    assert_eq!(engine.ok("docker exec -u 5:6 c1 sh -c 'id -u; id -g' | xargs"), "5 6");
    assert_eq!(engine.ok("docker exec -w /etc c1 pwd"), "/etc");
    let done = engine.run_with_input("docker exec -i c1 wc -c", &vec![b'x'; 500_000]);
    assert_eq!(done.out(), "500000", "{}", done.report());
    engine.ends_with(127, "docker exec c1 no-such-program").tells("executable file not found in $PATH");
    engine.ends_with(126, "docker exec c1 /etc");
    engine.ends_with(1, "docker exec nope true").says("No such container: nope");
    engine.ok("docker exec -d c1 sh -c 'echo done >/tmp/detached'");
    eventually("the detached program has run", || {
        (engine.run("docker exec c1 cat /tmp/detached").out() == "done").then_some(())
    });
    engine.ok("docker exec --privileged c1 true");
    // It lives in the container's namespaces and groups.
    let own = engine.ok("docker exec c1 readlink /proc/1/ns/net");
    assert_eq!(engine.ok("docker exec c1 readlink /proc/self/ns/net"), own);
    assert_eq!(engine.ok("docker exec c1 cat /proc/self/cgroup"), engine.ok("docker exec c1 cat /proc/1/cgroup"));
    engine.ok("docker stop -t 0 c1");
    engine.ends_with(1, "docker exec c1 true").says("is not running");
}

#[test]
fn exec_on_a_terminal() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sleep 1000");
    let size = engine.size_command();
    let script = format!("{size}; read line; echo got $line; exit 8");
    let mut terminal = engine.terminal(&format!("docker exec -it c1 sh -c '{script}'"));
    terminal.shows("24 80");
    terminal.types("words\n");
    terminal.shows("got words");
    assert_eq!(terminal.ends(), 8);
}

#[test]
fn a_hundred_execs_leave_nothing() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sleep 1000");
    engine.ok("for n in $(seq 25); do for m in 1 2 3 4; do docker exec c1 true & done; wait; done");
    eventually("only the first program is left", || {
        (engine.ok("docker top c1 -o pid").lines().count() == 2).then_some(())
    });
    assert_eq!(engine.inspect("c1", "{{.ExecIDs}}"), "[]");
}

#[test]
fn attach_shows_what_comes_and_passes_input_on() {
    let engine = Engine::start();
    engine.ok("docker create -i -a stdin -a stdout --name c1 busybox sh -c 'while read line; do echo \"<$line>\"; done; exit 5'");
    engine.ok("docker start c1");
    let mut attached = engine.background("attached", "docker attach c1");
    attached.types("one\n");
    attached.shows("<one>");
    let second = engine.background("second", "docker attach --no-stdin c1");
    eventually("both see it", || {
        attached.types("two\n");
        second.output().contains("<two>").then_some(())
    });
    attached.closes_input();
    assert_eq!(attached.ends(), 5, "attach ends as the container does");
    assert_eq!(engine.ok("docker wait c1"), "5");
    engine.fails("docker attach c1").says("cannot attach to a stopped container");
}

#[test]
fn attach_passes_signals_on_or_detaches() {
    let engine = Engine::start();
    engine.ok(
        "docker run -d --name c1 busybox sh -c 'trap \"exit 3\" TERM; echo ready; while :; do echo x; sleep 0.05; done'",
    );
    let mut attached = engine.background("attached", "docker attach c1");
    attached.shows("x");
    attached.signal(Signal::SIGTERM);
    assert_eq!(attached.ends(), 3);
    // The keys take a person away and leave the container alone; it can be come back to.
    engine.ok("docker run -dit --name term busybox sh");
    let mut terminal = engine.terminal("docker attach term");
    terminal.types("echo one$((1+1))\n");
    terminal.shows("one2");
    terminal.types("\u{10}\u{11}");
    terminal.shows("read escape sequence");
    terminal.ends();
    assert_eq!(engine.inspect("term", "{{.State.Running}}"), "true");
    let mut again = engine.terminal("docker attach --detach-keys ctrl-x term");
    again.types("echo again$((1+1))\n");
    again.shows("again2");
    again.types("\u{18}");
    again.ends();
    engine.ok("docker exec term true");
}

#[test]
fn start_attaches() {
    let engine = Engine::start();
    engine.ok("docker create -i --name c1 busybox cat");
    let done = engine.run_with_input("docker start -ai c1", b"through and through");
    assert_eq!(done.out(), "through and through", "{}", done.report());
}

#[test]
fn a_reader_that_does_not_read_stops_nobody() {
    let engine = Engine::start();
    let mut stuck =
        engine.background("stuck", "docker run --name c1 busybox sh -c 'yes 0123456789abcdef0123456789abcdef0123456789abcdef | head -c 8000000; echo end >&2'");
    // The client's standard output is a file; it is stopped before it has read everything.
    eventually("it runs", || (engine.run("docker inspect c1").code == 0).then_some(()));
    stuck.signal(Signal::SIGSTOP);
    engine.ok("docker run --rm busybox true && docker ps -a && docker logs --tail 1 c1");
    stuck.signal(Signal::SIGCONT);
    assert_eq!(stuck.ends(), 0);
    assert_eq!(stuck.output().len(), 8_000_000);
}
