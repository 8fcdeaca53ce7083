//! Docker's defaults for what a container may do.

use e2e::Engine;

fn status(engine: &Engine, flags: &str, field: &str) -> String {
    engine.ok(&format!("docker run --rm {flags} busybox grep {field}: /proc/self/status | awk '{{print $2}}'"))
}

#[test]
fn capabilities_are_dockers_fourteen() {
    let engine = Engine::start();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(&engine, "", set), "00000000a80425fb", "{set}");
    }
    assert_eq!(status(&engine, "", "CapInh"), "0000000000000000");
    assert_eq!(status(&engine, "", "CapAmb"), "0000000000000000");
    assert_eq!(status(&engine, "-u 33", "CapEff"), "0000000000000000");
    assert_eq!(status(&engine, "-u 33", "CapBnd"), "00000000a80425fb");
    assert_eq!(status(&engine, "--cap-drop ALL", "CapEff"), "0000000000000000");
    assert_eq!(status(&engine, "--cap-drop ALL --cap-add CHOWN", "CapEff"), "0000000000000001");
    assert_eq!(status(&engine, "--cap-add NET_ADMIN", "CapEff"), "00000000a80435fb");
    assert_eq!(status(&engine, "--cap-drop CAP_NET_RAW", "CapEff"), "00000000a80405fb");
    engine.ends_with(125, "docker run --rm --cap-add FLY busybox true").says("CAP_FLY");
}

#[test]
fn system_calls_are_filtered() {
    let engine = Engine::start();
    assert_eq!(status(&engine, "", "Seccomp"), "2");
    assert_eq!(status(&engine, "--security-opt seccomp=unconfined", "Seccomp"), "0");
    assert_eq!(status(&engine, "--privileged", "Seccomp"), "0");
    assert_eq!(status(&engine, "", "NoNewPrivs"), "0");
    assert_eq!(status(&engine, "--security-opt no-new-privileges", "NoNewPrivs"), "1");
    engine.fails("docker run --rm busybox unshare -m true");
    engine.fails("docker run --rm busybox mount -t tmpfs x /tmp");
    std::fs::write(
        engine.home().join("profile.json"),
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .expect("write a file");
    engine
        .fails("docker run --rm --security-opt seccomp=profile.json busybox mkdir /x")
        .says("Operation not permitted");
    engine.ok("docker run --rm --security-opt seccomp=profile.json busybox touch /x");
    engine.ends_with(125, "docker run --rm --security-opt nonsense=1 busybox true").says("invalid --security-opt");
}

#[test]
fn the_kernels_files_are_masked() {
    let engine = Engine::start();
    let mounts = engine.ok("docker run --rm busybox cat /proc/mounts");
    let options = |point: &str| {
        mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|fields| fields[1] == point)
            .map(|fields| fields[3].to_owned())
            .next_back()
    };
    for point in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        if !std::path::Path::new(point).exists() {
            continue; // this kernel was built without it
        }
        assert!(options(point).is_some_and(|options| options.starts_with("ro")), "{point} is not read-only:\n{mounts}");
    }
    for file in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        assert_eq!(
            engine
                .ok(&format!("docker run --rm busybox sh -c '[ ! -e {file} ] || head -c 1 {file} | wc -c'"))
                .replace('0', ""),
            "",
            "{file}"
        );
    }
    for folder in ["/proc/acpi", "/sys/firmware"] {
        assert_eq!(
            engine.ok(&format!("docker run --rm busybox sh -c 'ls -A {folder} 2>/dev/null || true'")),
            "",
            "{folder}"
        );
    }
    assert!(options("/sys").is_some_and(|options| options.starts_with("ro")), "{mounts}");
    assert!(options("/sys/fs/cgroup").is_some_and(|options| options.starts_with("ro")), "{mounts}");
    assert!(
        options("/dev/shm").is_some_and(|options| options.contains("nosuid") && options.contains("size=65536k")),
        "{mounts}"
    );
    engine.fails("docker run --rm busybox sh -c 'echo 1 >/proc/sys/kernel/panic'");
    assert_eq!(engine.ok("docker run --rm --privileged busybox grep -c ' /proc/sys ' /proc/mounts || true"), "0");
}

#[test]
fn devices_are_few() {
    let engine = Engine::start();
    let list = engine.ok("docker run --rm busybox ls /dev | xargs");
    for name in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout",
        "stderr",
    ] {
        assert!(list.split(' ').any(|is| is == name), "{name} is not in {list}");
    }
    assert!(
        !list.contains("sda") && !list.contains("vda") && !list.contains("mem") && !list.contains("loop"),
        "{list}"
    );
    // Making a node is allowed, opening what is behind it is not.
    engine.fails("docker run --rm busybox sh -c 'mknod /d b 7 0 && head -c 1 /d'").says("Operation not permitted");
    engine.ok("docker run --rm --device /dev/zero:/dev/z:r busybox head -c 1 /dev/z");
    engine.ok("docker run --rm --device-cgroup-rule 'c 1:5 r' busybox sh -c 'mknod /z c 1 5 && head -c 1 /z'");
    assert!(
        engine.ok("docker run --rm --privileged busybox ls /dev | wc -l").parse::<u32>().is_ok_and(|count| count > 20)
    );
}

#[test]
fn the_host_is_out_of_sight() {
    let engine = Engine::start();
    assert_eq!(
        engine.ok("docker run --rm busybox sh -c 'ls /proc | grep -c ^[0-9]'").parse::<u32>().map(|count| count <= 5),
        Ok(true)
    );
    assert_ne!(engine.ok("docker run --rm busybox hostname"), engine.ok("hostname"));
    let score = engine.ok("docker run --rm --oom-score-adj 500 busybox cat /proc/self/oom_score_adj");
    assert_eq!(score, "500");
    let home = engine.home().display().to_string();
    let mounts = engine.ok("docker run --rm busybox cat /proc/self/mountinfo");
    let outside: Vec<&str> =
        mounts.lines().filter(|line| line.split(' ').nth(4).is_some_and(|point| point.starts_with(&home))).collect();
    assert!(outside.is_empty(), "mounts of the host are seen: {outside:?}");
    // No descriptor of the engine leaks in.
    assert_eq!(engine.ok("docker run --rm busybox sh -c 'ls /proc/self/fd | wc -l'"), "4");
}
