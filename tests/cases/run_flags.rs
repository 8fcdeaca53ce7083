//! `docker run` and `create`: every flag does what it says, seen from inside the container.

use std::fs;

use e2e::{Engine, eventually};

#[test]
fn exit_statuses_are_the_programs() {
    let engine = Engine::start();
    assert_eq!(engine.ok("docker run --rm busybox echo hello"), "hello");
    engine.ends_with(3, "docker run --rm busybox sh -c 'exit 3'");
    engine.ends_with(127, "docker run --rm busybox no-such-program").says("executable file not found in $PATH");
    // Older clients know 126 by other words.
    let no_program = if engine.client_is_at_least(23) { 126 } else { 125 };
    engine.ends_with(no_program, "docker run --rm busybox /etc").says("is a directory");
    engine.ends_with(125, "docker run --rm --network nowhere busybox true").says("network nowhere not found");
    engine.ends_with(137, "docker run --rm busybox sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'");
    engine.ends_with(125, "docker run --name '/bad name' busybox true").says("Invalid container name");
    assert_eq!(engine.ok("docker ps -aq"), "", "--rm left a container");
}

#[test]
fn outputs_are_kept_apart_and_input_is_passed_on() {
    let engine = Engine::start();
    let done = engine.run("docker run --rm busybox sh -c 'echo out; echo err >&2'");
    assert_eq!((done.out(), done.stderr.trim()), ("out", "err"), "{}", done.report());
    let done = engine.run_with_input("docker run -i --rm busybox wc -c", &vec![b'x'; 1_000_000]);
    assert_eq!(done.out(), "1000000", "{}", done.report());
    let done = engine.run("docker run --rm busybox cat");
    assert_eq!((done.code, done.out()), (0, ""), "without -i there is no input");
    let large = engine.run("docker run --rm busybox sh -c 'yes 0123456789 | head -c 3000000' | wc -c");
    assert_eq!(large.out(), "3000000", "{}", large.report());
}

#[test]
fn detached_and_interactive() {
    let engine = Engine::start();
    let id = engine.ok("docker run -d --name back busybox sleep 100");
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(engine.inspect("back", "{{.State.Running}} {{.Id}}"), format!("true {id}"));
    engine.ok("docker run -di --name cat busybox cat");
    engine.ends_with(125, "docker run -d --name back busybox true").says("is already in use by container");
}

#[test]
fn a_terminal_is_a_terminal() {
    let engine = Engine::start();
    let script = format!("tty; {}; cat; exit 4", engine.size_command());
    let mut terminal = engine.terminal(&format!("docker run -it --rm --name term busybox sh -c '{script}'"));
    terminal.shows("/dev/pts/0");
    terminal.shows("24 80");
    terminal.types("typed\n");
    terminal.shows("typed\r\ntyped\r\n");
    terminal.types("\u{4}");
    assert_eq!(terminal.ends(), 4);
}

#[test]
fn a_terminal_follows_the_window() {
    let engine = Engine::start();
    let script = "trap \"stty size\" WINCH; echo ready; while :; do sleep 0.05; done";
    let mut terminal = engine.terminal(&format!("docker run -it --rm busybox sh -c '{script}'"));
    terminal.shows("ready");
    // The CLI begins to listen for changes a moment after it has told the first size.
    std::thread::sleep(std::time::Duration::from_millis(500));
    terminal.resize(33, 101);
    terminal.shows("33 101");
    terminal.types("\u{3}");
    terminal.ends();
}

#[test]
fn environment_directory_user_entrypoint_hostname() {
    let engine = Engine::start();
    assert_eq!(engine.ok("docker run --rm -e A=1 -e B='x y' busybox sh -c 'echo $A-$B'"), "1-x y");
    assert_eq!(engine.ok("FROM_HERE=7 docker run --rm -e FROM_HERE busybox sh -c 'echo $FROM_HERE'"), "7");
    let env = engine.ok("docker run --rm --hostname ship busybox env");
    assert!(
        env.contains("HOSTNAME=ship") && env.contains("HOME=/root") && env.contains("PATH=/usr/local/sbin"),
        "{env}"
    );
    assert_eq!(engine.ok("docker run --rm -w /made/by/w busybox pwd"), "/made/by/w");
    assert_eq!(
        engine.ok("docker run --rm -u www-data busybox id"),
        "uid=33(www-data) gid=33(www-data) groups=4(adm),33(www-data)"
    );
    assert_eq!(engine.ok("docker run --rm -u 1234:99 busybox sh -c 'id -u; id -g' | xargs"), "1234 99");
    assert_eq!(engine.ok("docker run --rm --group-add 77 busybox id -G"), "0 77");
    engine.ends_with(125, "docker run --rm -u nobodyknows busybox true").says("unable to find user nobodyknows");
    assert_eq!(engine.ok("docker run --rm --entrypoint echo busybox -n one two"), "one two");
    assert_eq!(engine.ok("docker run --rm --entrypoint '' busybox echo plain"), "plain");
    assert_eq!(engine.ok("docker run --rm --hostname ship --domainname sea.org busybox hostname"), "ship");
    let hosts = engine.ok("docker run --rm --hostname ship --add-host far:10.9.8.7 busybox cat /etc/hosts");
    assert!(hosts.contains("ship") && hosts.contains("10.9.8.7\tfar"), "{hosts}");
    let id = engine.ok("docker create busybox hostname");
    assert_eq!(engine.ok(&format!("docker start -a {id}")), &id[..12]);
}

#[test]
fn volumes_and_binds() {
    let engine = Engine::start();
    let shared = engine.home().join("shared");
    fs::create_dir(&shared).expect("create a folder");
    fs::write(shared.join("in"), "from the host").expect("write a file");
    let path = shared.display();
    assert_eq!(
        engine.ok(&format!("docker run --rm -v {path}:/s busybox sh -c 'cat /s/in; echo back >/s/out'")),
        "from the host"
    );
    assert_eq!(fs::read_to_string(shared.join("out")).expect("read a file"), "back\n");
    engine.fails(&format!("docker run --rm -v {path}:/s:ro busybox touch /s/x")).says("Read-only file system");
    assert_eq!(engine.ok(&format!("docker run --rm -v {path}/in:/one:ro busybox cat /one")), "from the host");
    engine.ok("docker run --rm -v kept:/k busybox sh -c 'echo stays >/k/f'");
    assert_eq!(engine.ok("docker run --rm --mount type=volume,src=kept,dst=/z,readonly busybox cat /z/f"), "stays");
    assert_eq!(engine.ok("docker volume ls -q"), "kept");
    // A new volume gets what the image has at that place.
    assert!(engine.ok("docker run --rm -v copied:/etc busybox ls /etc").contains("passwd"));
    assert!(engine.ok("docker run --rm -v copied:/x busybox ls /x").contains("passwd"));
    // An anonymous one goes with its container, if that is removed with its volumes.
    engine.ok("docker run --rm -v /anonymous busybox touch /anonymous/f");
    assert_eq!(engine.ok("docker volume ls -q | sort | xargs"), "copied kept");
    engine.ok(
        "docker run --name aa -v /data busybox touch /data/f && docker run --rm --volumes-from aa busybox ls /data/f",
    );
    engine.ok("docker rm -v aa");
    assert_eq!(engine.ok("docker volume ls -q | sort | xargs"), "copied kept");
    engine
        .fails(&format!("docker run --rm --mount type=bind,src={path}/none,dst=/x busybox true"))
        .says("bind source path does not exist");
    engine.ok(&format!("docker run --rm -v {path}/made:/x busybox true"));
    assert!(shared.join("made").is_dir(), "-v makes a missing source");
}

#[test]
fn tmpfs_read_only_and_init() {
    let engine = Engine::start();
    let mounts =
        engine.ok("docker run --rm --tmpfs /t:size=1m,mode=1770 busybox sh -c 'grep \" /t \" /proc/mounts; ls -ld /t'");
    assert!(mounts.contains("tmpfs") && mounts.contains("size=1024k") && mounts.contains("drwxrwx--T"), "{mounts}");
    engine.fails("docker run --rm --read-only busybox touch /x").says("Read-only file system");
    engine.ok("docker run --rm --read-only --tmpfs /w busybox touch /w/x");
    engine.ok("docker run --rm --read-only busybox touch /dev/shm/x");
    assert_eq!(
        engine.ok("docker run --rm --shm-size 1m busybox sh -c 'df -k /dev/shm | tail -1' | awk '{print $2}'"),
        "1024"
    );
    let inside = engine.ok("docker run --rm --init busybox ps -o pid,args");
    assert!(inside.lines().any(|line| line.trim_start().starts_with("1 ") && line.contains("init")), "{inside}");
    // Process 1 reaps what others leave behind.
    engine.ok("docker run -d --name reaper --init busybox sh -c '(sleep 0.1 &) ; sleep 100'");
    eventually("no zombie is left", || {
        (!engine.ok("docker exec reaper ps -o stat,args").lines().any(|line| line.starts_with('Z'))).then_some(())
    });
}

#[test]
fn limits_reach_the_control_groups() {
    let engine = Engine::start();
    let read = |flags: &str, v1: &str, v2: &str| {
        engine.ok(&format!(
            "docker run --rm {flags} busybox sh -c 'cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}'"
        ))
    };
    assert_eq!(read("-m 64m", "memory/memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read("--pids-limit 77", "pids/pids.max", "pids.max"), "77");
    let quota = read("--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    assert_eq!(read("--cpuset-cpus 0", "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    let shares = read("--cpu-shares 512", "cpu/cpu.shares", "cpu.weight");
    assert!(shares == "512" || shares == "20" || shares == "59", "{shares}");
    engine.ends_with(125, "docker run --rm -m 1k busybox true").says("Minimum memory limit allowed is 6MB");
    engine.ends_with(125, "docker run --rm --cpus 1000 busybox true").says("ange of CPUs is from");
    // Whoever takes more than there is gets killed, and that is told.
    let eater = "docker run --name eater -m 20m --memory-swap 20m busybox sh -c 'x=a; while :; do x=$x$x; done'";
    let done = engine.run(eater);
    assert_ne!(done.code, 0, "{}", done.report());
    if done.code == 137 {
        assert_eq!(engine.inspect("eater", "{{.State.OOMKilled}}"), "true");
    }
    engine.ok(
        "docker run -d --name changed -m 64m busybox sleep 100 && docker update -m 128m --memory-swap 256m changed",
    );
    assert_eq!(engine.inspect("changed", "{{.HostConfig.Memory}}"), "134217728");
    assert_eq!(
        engine.ok("docker exec changed sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'"),
        "134217728"
    );
}

#[test]
fn ulimits_sysctls_devices_labels() {
    let engine = Engine::start();
    assert_eq!(
        engine.ok("docker run --rm --ulimit nofile=100:200 busybox sh -c 'ulimit -Sn; ulimit -Hn' | xargs"),
        "100 200"
    );
    assert_eq!(engine.ok("docker run --rm --sysctl net.ipv4.ip_unprivileged_port_start=77 busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "77");
    engine.ends_with(125, "docker run --rm --sysctl kernel.panic=1 busybox true");
    let device = engine.ok("docker run --rm --device /dev/null:/dev/mine busybox ls -l /dev/mine");
    assert!(device.starts_with('c') && device.contains("1,   3"), "{device}");
    engine.fails("docker run --rm --device /dev/nonesuch busybox true").says("no such file or directory");
    engine.ok("docker create --name labelled --label a=1 --label b busybox");
    assert_eq!(engine.inspect("labelled", "{{json .Config.Labels}}"), r#"{"a":"1","b":""}"#);
    fs::write(engine.home().join("env"), "X=from a file\n").expect("write a file");
    assert_eq!(engine.ok("docker run --rm --env-file env busybox sh -c 'echo $X'"), "from a file");
    engine.ok("docker run --rm --cidfile id busybox true && test $(wc -c <id) = 64");
}

#[test]
fn stop_signals_and_timeouts() {
    let engine = Engine::start();
    let script = "trap \"echo hup; exit 5\" HUP; echo ready; while :; do sleep 0.05; done";
    engine.ok(&format!("docker run -d --name polite --stop-signal HUP busybox sh -c '{script}'"));
    eventually("it is ready", || engine.ok("docker logs polite").contains("ready").then_some(()));
    assert_eq!(engine.ok("docker stop polite"), "polite");
    assert_eq!(engine.inspect("polite", "{{.State.ExitCode}} {{.Config.StopSignal}}"), "5 HUP");
    // One that does not listen is killed when its time is up.
    engine.ok("docker run -d --name deaf busybox sleep 1000");
    let done = engine.run("docker stop -t 1 deaf");
    assert!(done.code == 0 && done.took.as_millis() >= 900 && done.took.as_secs() < 8, "{}", done.report());
    assert_eq!(engine.inspect("deaf", "{{.State.ExitCode}}"), "137");
    engine.ok("docker run -d --name given --stop-timeout 0 busybox sleep 1000");
    let done = engine.run("docker stop given");
    assert!(done.took.as_secs() < 4, "{}", done.report());
}

#[test]
fn restart_policies() {
    let engine = Engine::start();
    engine.ok("docker run -d --name thrice --restart on-failure:2 busybox sh -c 'echo x; exit 1'");
    eventually("it gives up", || {
        (engine.inspect("thrice", "{{.RestartCount}} {{.State.Status}}") == "2 exited").then_some(())
    });
    assert_eq!(engine.ok("docker logs thrice | wc -l"), "3");
    engine.ok("docker run -d --name fine --restart on-failure busybox true && docker wait fine");
    assert_eq!(engine.inspect("fine", "{{.RestartCount}} {{.State.Status}}"), "0 exited");
    engine.ok("docker run -d --name always --restart always busybox sh -c 'echo x; sleep 0.3'");
    eventually("it comes back", || {
        (engine.inspect("always", "{{.RestartCount}}").parse::<u32>().is_ok_and(|count| count >= 2)).then_some(())
    });
    engine.ok("docker stop -t 0 always");
    let count = engine.inspect("always", "{{.RestartCount}}");
    std::thread::sleep(std::time::Duration::from_millis(700)); // nothing must happen: there is nothing to wait for
    assert_eq!(engine.inspect("always", "{{.State.Status}} {{.RestartCount}}"), format!("exited {count}"));
    engine.ok("docker run -d --name kept --restart unless-stopped busybox sleep 100");
    engine.ok("docker exec kept kill -9 1 || true");
    let pid = engine.inspect("kept", "{{.State.Pid}}");
    engine.ok(&format!("kill -9 {pid}"));
    eventually("it is started again", || {
        let now = engine.inspect("kept", "{{.State.Running}} {{.State.Pid}}");
        (now.starts_with("true") && !now.ends_with(&format!(" {pid}"))).then_some(())
    });
    engine.ends_with(125, "docker run --rm --restart always busybox true");
    engine.ends_with(125, "docker run -d --restart sometimes busybox true").says("invalid restart policy");
}

#[test]
fn namespaces_can_be_shared() {
    let engine = Engine::start();
    engine.ok("docker run -d --name first busybox sleep 100");
    let pid = engine.inspect("first", "{{.State.Pid}}");
    let of =
        |flags: &str, kind: &str| engine.ok(&format!("docker run --rm {flags} busybox readlink /proc/self/ns/{kind}"));
    let host = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("read a link").display().to_string();
    let firsts = |kind: &str| engine.ok(&format!("readlink /proc/{pid}/ns/{kind}"));
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        assert_ne!(of("", kind), host(kind), "{kind} is the host's");
        assert_ne!(of("", kind), firsts(kind), "{kind} is another container's");
    }
    assert_eq!(of("--pid host", "pid"), host("pid"));
    assert_eq!(of("--ipc host", "ipc"), host("ipc"));
    assert_eq!(of("--uts host", "uts"), host("uts"));
    assert_eq!(of("--network host", "net"), host("net"));
    assert_eq!(of("--network container:first", "net"), firsts("net"));
    assert_eq!(of("--pid container:first", "pid"), firsts("pid"));
    engine.ok("docker run -d --name open --ipc shareable busybox sh -c 'echo hi >/dev/shm/f; sleep 100'");
    eventually("the file is there", || {
        let done = engine.run("docker run --rm --ipc container:open busybox cat /dev/shm/f");
        (done.out() == "hi").then_some(())
    });
}

#[test]
fn mounts_in_full() {
    let engine = Engine::start();
    let options = "volume-label=a=b,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=64k";
    let seen = engine.ok(&format!("docker run --rm --mount type=volume,src=mem,dst=/v,{options} busybox df -k /v"));
    assert!(seen.contains(" 64 "), "{seen}");
    assert_eq!(engine.ok("docker volume inspect mem -f '{{json .Labels}}'"), "{\"a\":\"b\"}");
    if engine.client_is_at_least(26) {
        engine.ok("docker run --rm -v tree:/t busybox mkdir -p /t/sub/below");
        let sub = |path: &str| {
            format!("docker run --rm --mount type=volume,src=tree,dst=/s,volume-subpath={path} busybox ls /s")
        };
        assert_eq!(engine.ok(&sub("sub")), "below");
        engine.fails(&sub("../tree")).says("subpath must be a relative path within the volume");
        engine.fails(&sub("nope")).says("cannot access path");
    }
    for (mount, words) in [
        ("type=bind,src=/tmp,dst=/x,bind-propagation=odd", "invalid propagation mode: odd"),
        ("type=volume,src=vol,dst=/x,volume-driver=pigeon", "error looking up volume plugin pigeon"),
        ("type=npipe,src=p,dst=/x", "invalid mount config for type \"npipe\": mount type unknown"),
        ("type=bind,src=/no/such/place,dst=/x", "bind source path does not exist"),
    ] {
        engine.ends_with(125, &format!("docker run --rm --mount {mount} busybox true")).says(words);
    }
    let refused = engine.ends_with(125, "docker run --rm --volumes-from nobody busybox true");
    let refused = refused.says("No such container: nobody");
    assert!(!refused.stderr.contains("Unable to find image"), "{}", refused.report());
}

#[test]
fn what_cannot_be_is_refused_or_left_out_with_a_warning() {
    let engine = Engine::start();
    for (flags, words) in [
        ("--uts host -h name", "conflicting options: hostname and the UTS mode"),
        ("--network container:nobody", "joining network namespace of container: No such container: nobody"),
        ("--gpus all", "could not select device driver \"\" with capabilities: [[gpu]]"),
        ("--log-driver pigeon", "error looking up logging plugin pigeon"),
        ("--tmpfs /t:upperdir", "invalid tmpfs option \"upperdir\""),
    ] {
        engine.ends_with(125, &format!("docker run --rm {flags} busybox true")).says(words);
    }
    // Older clients keep the address to themselves.
    if engine.client_is_at_least(25) {
        engine
            .ends_with(125, "docker run --rm --ip 10.9.8.7 busybox true")
            .says("user specified IP address is supported on user defined networks only");
    }
    engine.ends_with(125, "docker run --rm --network bridge --network host busybox true").says_one_of(&[
        "cannot connect container to host network",
        // As the API before 1.44 has it.
        "Container cannot be created with multiple network endpoints: bridge, host.",
    ]);
    engine.ok("docker run --rm --security-opt apparmor=unconfined busybox true");
    engine.ok("docker run -d --rm --name auto busybox sleep 1000");
    engine.fails("docker update --restart always auto").says("Restart policy cannot be updated because AutoRemove");
    assert!(engine.ok("docker run --rm --cgroupns host busybox cat /proc/1/cgroup").contains(":/docker/"));
}

#[test]
fn addresses_of_the_link_too() {
    let engine = Engine::start();
    engine.ok("docker network create own");
    let addresses = engine.ok("docker run --rm --network own --link-local-ip 169.254.7.8 busybox ip -4 addr show eth0");
    assert!(addresses.contains("inet 169.254.7.8/16"), "{addresses}");
    engine.ok("docker run -d --name web -p 127.0.0.1::80 --expose 90 busybox sleep 1000");
    let port = engine.ok("docker port web 80 | cut -d: -f2");
    assert_eq!(engine.ok(&format!("docker ps -q --filter publish={port} | wc -l")), "1");
    assert_eq!(engine.ok("docker ps -q --filter publish=80 | wc -l"), "0");
    assert_eq!(engine.ok("docker ps -q --filter expose=89-91/tcp | wc -l"), "1");
}
