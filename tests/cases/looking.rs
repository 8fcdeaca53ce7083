//! Looking at containers: inspect, logs, top, stats, diff, cp, port, events, info, df.

use std::fs;

use e2e::{Engine, eventually};

#[test]
fn inspect_tells_what_was_asked_for_and_what_is() {
    let engine = Engine::start();
    let id = engine.ok(
        "docker run -d --name c1 -e A=1 --label l=2 -w /tmp -m 64m -p 127.0.0.1::80 --restart no busybox sleep 100",
    );
    let all = engine.inspect_json("c1");
    assert_eq!(all["Id"], id.as_str());
    assert_eq!(all["Name"], "/c1");
    assert_eq!(all["Path"], "sleep");
    assert_eq!(all["Args"][0], "100");
    assert_eq!(all["State"]["Status"], "running");
    assert!(all["State"]["Pid"].as_u64().is_some_and(|pid| fs::metadata(format!("/proc/{pid}")).is_ok()), "{all}");
    assert!(all["State"]["StartedAt"].as_str().is_some_and(|at| at.starts_with("20")), "{all}");
    assert_eq!(all["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(all["Config"]["Image"], "busybox");
    assert_eq!(all["Config"]["WorkingDir"], "/tmp");
    assert_eq!(all["Config"]["Labels"]["l"], "2");
    assert_eq!(all["Config"]["Hostname"], &id[..12]);
    assert_eq!(all["HostConfig"]["Memory"], 67_108_864);
    assert_eq!(all["HostConfig"]["NetworkMode"], "bridge");
    assert_eq!(all["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(all["HostConfig"]["LogConfig"]["Type"], "json-file");
    assert_eq!(all["Driver"], "overlay2");
    assert_eq!(all["Platform"], "linux");
    assert!(all["LogPath"].as_str().is_some_and(|path| fs::metadata(path).is_ok()), "{all}");
    let network = &all["NetworkSettings"]["Networks"]["bridge"];
    assert!(network["IPAddress"].as_str().is_some_and(|ip| ip.starts_with(&engine.bridge_prefix())), "{network}");
    assert_eq!(network["IPPrefixLen"], 24);
    assert!(network["MacAddress"].as_str().is_some_and(|mac| mac.len() == 17), "{network}");
    let port = all["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"].as_str().expect("a port").to_owned();
    assert_eq!(engine.ok("docker port c1 80"), format!("127.0.0.1:{port}"));
    assert_eq!(engine.ok("docker port c1"), format!("80/tcp -> 127.0.0.1:{port}"));
    assert!(engine.ok("docker inspect -s c1").contains("SizeRw"));
    assert_eq!(engine.inspect(&id[..10], "{{.Name}}"), "/c1");
    engine.fails("docker inspect --type container nope").says("No such container: nope");
}

#[test]
fn logs_whole_and_in_part() {
    let engine = Engine::start();
    engine.ok(
        "docker run --name c1 busybox sh -c 'for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; sleep 0.05; done'",
    );
    let done = engine.run("docker logs c1");
    assert_eq!(done.out(), "out 1\nout 2\nout 3\nout 4\nout 5");
    assert_eq!(done.stderr.trim(), "err 1\nerr 2\nerr 3\nerr 4\nerr 5");
    let tail = engine.run("docker logs --tail 2 c1");
    assert_eq!(tail.stdout.lines().count() + tail.stderr.lines().count(), 2, "{}", tail.report());
    assert_eq!(engine.ok("docker logs --tail 0 c1"), "");
    assert_eq!(engine.ok("docker logs -n all c1 | wc -l"), "5");
    let stamped = engine.ok("docker logs -t c1");
    let first = stamped.lines().next().and_then(|line| line.split(' ').next()).expect("a time").to_owned();
    assert!(first.len() == 30 && first.ends_with('Z') && first.contains('T'), "{first}");
    let third = stamped.lines().nth(2).and_then(|line| line.split(' ').next()).expect("a time").to_owned();
    assert_eq!(engine.ok(&format!("docker logs --since {third} c1")), "out 3\nout 4\nout 5");
    let until = engine.ok(&format!("docker logs --until {third} c1"));
    assert!(until.starts_with("out 1\nout 2") && !until.contains("out 4"), "{until}");
    assert_eq!(engine.ok("docker logs --since 1h c1 | wc -l"), "5");
    assert_eq!(engine.ok("docker logs --since 2030-01-01 c1"), "");
    engine.fails("docker logs nope").says("No such container: nope");
    // Long lines and bytes that are no text come back as they were.
    engine.ok(
        "docker run --name long busybox sh -c 'head -c 100000 /dev/zero | tr \"\\0\" x; echo; printf \"\\377\\n\"'",
    );
    assert_eq!(engine.ok("docker logs long | head -n 1 | wc -c"), "100001");
}

#[test]
fn logs_are_followed() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sh -c 'n=0; while [ $n -lt 20 ]; do n=$((n+1)); echo line $n; sleep 0.05; done; exit 3'");
    let mut follower = engine.background("follow", "docker logs -f c1");
    assert_eq!(follower.ends(), 0, "following ends with the container");
    assert_eq!(follower.output().lines().count(), 20, "{}", follower.output());
    let mut tail = engine.background("tail", "docker logs -f --tail 1 c1");
    assert_eq!(tail.ends(), 0);
    assert_eq!(tail.output().trim(), "line 20");
}

#[test]
fn log_drivers_and_rotation() {
    let engine = Engine::start();
    engine.ok("docker run --name silent --log-driver none busybox echo x");
    engine.fails("docker logs silent").says("configured logging driver does not support reading");
    engine.ok("docker run --name turn --log-opt max-size=20k --log-opt max-file=2 busybox seq 10000");
    let path = engine.inspect("turn", "{{.LogPath}}");
    assert!(fs::metadata(&path).is_ok_and(|data| data.len() <= 24 * 1024), "the log is cut at its size");
    assert!(fs::metadata(format!("{path}.1")).is_ok(), "one older file is kept");
    assert!(fs::metadata(format!("{path}.2")).is_err(), "no more than two files are kept");
    assert_eq!(engine.ok("docker logs --tail 1 turn"), "10000");
    // `local` keeps files of its own, which only the engine reads, and always within bounds.
    engine.ok("docker run --name own --log-driver local --log-opt max-size=20k --log-opt max-file=3 busybox seq 10000");
    assert_eq!(engine.inspect("own", "[{{.LogPath}}] {{.HostConfig.LogConfig.Type}}"), "[] local");
    let id = engine.inspect("own", "{{.Id}}");
    let folder = engine.data_root().join(format!("containers/{id}/local-logs"));
    let files = || {
        let files = fs::read_dir(&folder).expect("read a folder").flatten();
        files.map(|file| file.metadata().map_or(0, |data| data.len())).collect::<Vec<_>>()
    };
    assert!((2..=3).contains(&files().len()) && files().iter().all(|&bytes| bytes <= 24 * 1024), "{:?}", files());
    assert_eq!(engine.ok("docker logs --tail 1 own"), "10000");
    let kept = engine.ok("docker logs own | wc -l").parse::<u32>().expect("a number");
    assert!((300..10000).contains(&kept), "rotated files are read as well: {kept}");
    engine.ok("docker run -d --name grows --log-driver local busybox sh -c 'echo one; sleep 1; echo two'");
    assert_eq!(engine.ok("docker logs -f grows"), "one\ntwo");
    engine
        .ends_with(125, "docker run --log-driver local --log-opt labels=x busybox true")
        .says("unknown log opt 'labels' for log driver local");
    engine.ends_with(125, "docker run --log-driver syslog busybox true").says("log driver 'syslog' is not implemented");
    engine.ends_with(125, "docker run --log-driver pigeon busybox true").says("pigeon");
    engine.ends_with(125, "docker run --log-opt nonsense=1 busybox true").says("unknown log opt 'nonsense'");
}

#[test]
fn top_and_stats() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 -m 64m busybox sh -c 'sleep 1000 & sleep 2000'");
    let mut table = String::new();
    eventually("both programs are there", || {
        table = engine.ok("docker top c1");
        (table.contains("sleep 1000") && table.contains("sleep 2000")).then_some(())
    });
    assert!(table.starts_with("UID") && table.lines().next().is_some_and(|line| line.contains("CMD")), "{table}");
    let pids = engine.ok("docker top c1 -o pid,args");
    assert!(pids.lines().next().is_some_and(|line| line.contains("PID") && line.contains("COMMAND")), "{pids}");
    engine.ok("docker create --name still busybox");
    engine.fails("docker top still").says("is not running");
    let stats =
        engine.ok("docker stats --no-stream --format '{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.PIDs}}|{{.NetIO}}' c1");
    let fields: Vec<&str> = stats.split('|').collect();
    assert_eq!(fields[0], "c1", "{stats}");
    assert!(fields[1].ends_with('%') && fields[2].ends_with("/ 64MiB"), "{stats}");
    assert!(fields[3] == "2", "{stats}");
    let raw = engine.get("/containers/c1/stats?stream=false&one-shot=true").json();
    assert!(raw["memory_stats"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{raw}");
    assert!(raw["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().is_some_and(|time| time > 0), "{raw}");
    assert!(raw["networks"]["eth0"]["rx_bytes"].is_u64(), "{raw}");
}

#[test]
fn diff_and_cp() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sh -c 'echo x >/new; rm /etc/shadow; echo y >>/etc/group; mkdir /d; echo z >/d/f; echo ready; sleep 1000'");
    eventually("the files are there", || engine.ok("docker logs c1").contains("ready").then_some(()));
    let diff = engine.ok("docker diff c1");
    for line in ["A /new", "D /etc/shadow", "C /etc/group", "C /etc", "A /d", "A /d/f"] {
        assert!(diff.lines().any(|is| is == line), "{line} is not in\n{diff}");
    }
    assert!(!diff.contains("/bin"), "{diff}");
    engine.ok("docker cp c1:/new got && grep -q x got");
    engine.ok("docker cp c1:/d here && grep -q z here/f");
    fs::write(engine.home().join("sent"), "from outside").expect("write a file");
    engine.ok("docker cp sent c1:/tmp/ && docker cp sent c1:/renamed && docker cp here c1:/");
    assert_eq!(engine.ok("docker exec c1 cat /tmp/sent /renamed /here/f"), "from outsidefrom outsidez");
    assert_eq!(engine.ok("docker cp c1:/d/f - | tar xOf -"), "z");
    engine.ok("tar cf - sent | docker cp - c1:/d");
    assert_eq!(engine.ok("docker exec c1 cat /d/sent"), "from outside");
    engine
        .fails("docker cp c1:/nowhere .")
        .says_one_of(&["Could not find the file /nowhere in container c1", "No such container:path: c1:/nowhere"]);
    engine
        .fails("docker cp sent c1:/nowhere/at/all")
        .says_one_of(&["Could not find the file", "No such container:path: c1:/nowhere/at"]);
    engine.fails("docker cp nope:/x .").says_one_of(&["No such container: nope", "No such container:path: nope:/x"]);
    // A link inside leads inside, even when it says otherwise.
    engine.ok("docker exec c1 ln -s /etc/hostname /link && docker exec c1 ln -s ../../../../../../etc/passwd /up");
    let inside = engine.ok("docker exec c1 cat /etc/passwd");
    assert_eq!(engine.ok("docker cp -L c1:/up up && cat up"), inside);
    // Owners go along as numbers; with -a they become the container's own user.
    engine.ok("docker create --name as5 -u 5:6 busybox && touch mine && chown 9:10 mine");
    engine.ok("docker cp mine as5:/kept && docker cp -a mine as5:/given && docker commit as5 owners && docker rm as5");
    assert_eq!(engine.ok("docker run --rm owners stat -c %u:%g /kept /given"), "9:10\n5:6");
    // A stopped one has a file system, too.
    engine.ok(
        "docker stop -t 0 c1 && docker cp c1:/new again && docker cp sent c1:/late && docker diff c1 | grep -q 'A /late'",
    );
    // Volumes are part of what cp sees.
    engine.ok("docker run -d --name vv -v vol:/vol busybox sleep 1000 && docker cp sent vv:/vol/ && docker cp vv:/vol/sent volcopy");
    engine.ok("cmp sent volcopy && docker run --rm -v vol:/x busybox test -f /x/sent");
    engine.ok("docker export c1 | tar tf - | grep -qx 'bin/busybox'");
}

#[test]
fn cp_sees_what_the_container_sees() {
    let engine = Engine::start();
    fs::write(engine.home().join("one"), "bound").expect("write a file");
    fs::create_dir(engine.home().join("fixed")).expect("create a folder");
    engine.ok("echo given >given");
    let mounts = "-v vol:/srv/vol -v $PWD/one:/one -v $PWD/fixed:/fixed:ro --tmpfs /memory";
    let script = "echo deep >/srv/vol/f; ln -s /srv/vol /link; ln -s /fixed /to-fixed; echo m >/memory/m; sleep 1000";
    engine.ok(&format!("docker run -d --name cc --hostname ship {mounts} busybox sh -c '{script}'"));
    eventually("it is ready", || engine.run("docker exec cc test -e /memory/m").code.eq(&0).then_some(()));
    let out = |path: &str| engine.ok(&format!("docker cp cc:{path} - | tar -xO"));
    for state in ["running", "exited"] {
        assert_eq!(engine.inspect("cc", "{{.State.Status}}"), state);
        assert_eq!(out("/etc/hostname"), "ship", "{state}");
        assert_eq!(out("/one"), "bound", "a bound file, {state}");
        assert_eq!(out("/link/f"), "deep", "through a link into a volume, {state}");
        engine.ok("rm -rf srv && docker cp cc:/srv srv");
        assert_eq!(engine.ok("cat srv/vol/f"), "deep", "a volume below what is copied, {state}");
        engine.fails("docker cp cc:/memory/m -").says_one_of(&[
            "Could not find the file /memory/m in container cc",
            "No such container:path: cc:/memory/m",
        ]);
        engine.ok(&format!("docker cp given cc:/link/{state}"));
        engine.fails("docker cp given cc:/fixed/").says("mounted volume is marked read-only");
        engine.fails("docker cp given cc:/to-fixed/");
        if state == "running" {
            assert_eq!(engine.ok("docker exec cc cat /srv/vol/running"), "given");
            engine.ok("docker stop -t 0 cc");
        }
    }
    assert_eq!(engine.ok("docker run --rm -v vol:/v busybox cat /v/exited"), "given");
    assert_eq!(fs::read_dir(engine.home().join("fixed")).expect("read a folder").count(), 0);
    // And before its first start.
    engine.ok("docker create --name fresh -v vol:/made/here busybox true && docker cp given fresh:/made/here/fresh");
    assert_eq!(engine.ok("docker run --rm -v vol:/v busybox cat /v/fresh"), "given");
}

#[test]
fn events_are_told_and_filtered() {
    let engine = Engine::start();
    let began = engine.ok("date +%s.%N");
    let live = engine.background("events", "docker events --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'");
    eventually("somebody listens", || {
        engine.ok("docker volume create probe >/dev/null && docker volume rm probe");
        live.output().contains("volume destroy").then_some(())
    });
    engine.ok("docker run --name ee --label colour=red busybox true && docker rm ee");
    for line in [
        "container create ee",
        "network connect bridge",
        "container start ee",
        "container die ee",
        "container destroy ee",
    ] {
        live.shows(line);
    }
    let past = |filters: &str| {
        engine.ok(&format!(
            "docker events --since {began} --until $(date +%s.%N) {filters} --format '{{{{.Action}}}}' | xargs"
        ))
    };
    let life = past("--filter container=ee");
    assert!(life.starts_with("create") && life.contains("start") && life.ends_with("destroy"), "{life}");
    assert_eq!(past("--filter container=ee --filter event=die"), "die");
    assert_eq!(past("--filter type=network --filter event=connect"), "connect");
    assert!(past("--filter label=colour=red").contains("start"));
    assert_eq!(past("--filter label=colour=blue"), "");
    assert!(past("--filter type=volume").contains("create"));
    assert_eq!(past("--filter image=nope"), "");
    let json = engine.ok(&format!(
        "docker events --since {began} --until $(date +%s.%N) --filter container=ee --filter event=die --format '{{{{json .}}}}'"
    ));
    assert!(
        json.contains("\"exitCode\":\"0\"") && json.contains("\"image\":\"busybox\"") && json.contains("timeNano"),
        "{json}"
    );
}

#[test]
fn version_info_and_df() {
    let engine = Engine::start();
    let version =
        engine.ok("docker version --format '{{.Server.Os}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}'");
    let fields: Vec<&str> = version.split(' ').collect();
    assert_eq!((fields[0], fields[2]), ("linux", "1.24"), "{version}");
    assert!(fields[1].starts_with("1."), "{version}");
    engine.ok("docker run -d --name up -v vol:/v busybox sh -c 'echo x >/v/f; echo y >/f; sleep 100' && docker create busybox");
    let info = engine.ok("docker info --format '{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}} {{.Images}} {{.Driver}} {{.NCPU}} {{.DefaultRuntime}}'");
    assert!(info.starts_with("2 1 1 1 overlay2 "), "{info}");
    let root = engine.ok("docker info --format '{{.DockerRootDir}}'");
    assert_eq!(root, engine.data_root().display().to_string());
    let text = engine.ok("docker info");
    for word in ["Storage Driver: overlay2", "Cgroup Driver: cgroupfs", "Runtimes:", "seccomp"] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let usage = engine.ok("docker system df --format '{{.Type}}|{{.TotalCount}}|{{.Active}}'");
    assert!(
        usage.contains("Images|1|1") && usage.contains("Containers|2|1") && usage.contains("Local Volumes|1|1"),
        "{usage}"
    );
    assert!(engine.ok("docker system df -v").contains("vol"));
    for api in ["1.24", "1.30", "1.40", "1.44"] {
        assert_eq!(engine.ok(&format!("DOCKER_API_VERSION={api} docker ps -q | wc -l")), "1", "with API {api}");
    }
}
