//! `docker volume`.

use e2e::Engine;

#[test]
fn volumes_are_made_listed_looked_at_and_removed() {
    let engine = Engine::start();
    assert_eq!(engine.ok("docker volume create --label a=1 data"), "data");
    assert_eq!(engine.ok("docker volume create data"), "data");
    let volume = engine.inspect_json("--type volume data");
    assert_eq!(volume["Name"], "data");
    assert_eq!(volume["Driver"], "local");
    assert_eq!(volume["Scope"], "local");
    assert_eq!(volume["Labels"]["a"], "1");
    let point = volume["Mountpoint"].as_str().expect("a mount point").to_owned();
    assert_eq!(point, engine.data_root().join("volumes/data/_data").display().to_string());
    let anonymous = engine.ok("docker volume create");
    assert_eq!(anonymous.len(), 64, "{anonymous}");
    assert_eq!(engine.ok("docker volume ls -q --filter label=a"), "data");
    assert_eq!(engine.ok("docker volume ls -q --filter name=dat"), "data");
    assert_eq!(engine.ok("docker volume ls -q --filter driver=local | wc -l"), "2");
    engine.ok("docker create --name user -v data:/d busybox");
    assert_eq!(engine.ok("docker volume ls -q --filter dangling=false"), "data");
    assert_eq!(engine.ok("docker volume ls -q --filter dangling=true"), anonymous);
    engine.fails("docker volume rm data").says("volume is in use");
    assert_eq!(engine.ok("docker ps -a --filter volume=data --format '{{.Names}}'"), "user");
    engine.ok("docker rm user");
    assert_eq!(engine.ok("docker volume rm data"), "data");
    engine.fails("docker volume rm data").says_one_of(&["no such volume", "No such volume: data"]);
    engine.fails("docker volume inspect data").says_one_of(&["no such volume", "No such volume: data"]);
    engine.ok("docker volume rm -f data");
    engine.fails("docker volume create '../x'").says("includes invalid characters for a local volume name");
    engine.fails("docker volume create -d pigeon xx").says("create xx: error looking up volume plugin pigeon");
    engine.fails("docker volume create -o type=ext4 xx").says("create xx: missing required option: \"device\"");
    engine.fails("docker volume create -o colour=red xx").says("create xx: invalid option: \"colour\"");
    let pruned = engine.ok("docker volume prune -f");
    assert!(pruned.contains(&anonymous), "{pruned}");
    assert_eq!(engine.ok("docker volume ls -q"), "");
}

#[test]
fn named_volumes_are_only_pruned_when_asked_for() {
    let engine = Engine::start();
    engine.ok("docker volume create named && docker volume prune -f");
    // With the API before 1.42, which older clients speak, this asks for them.
    if engine.client_is_at_least(23) {
        assert_eq!(engine.ok("docker volume ls -q"), "named");
        engine.ok("docker volume prune -f -a");
    }
    assert_eq!(engine.ok("docker volume ls -q"), "");
}

#[test]
fn what_is_in_a_volume_survives_containers_and_engines() {
    let engine = Engine::start();
    engine.ok("docker run --rm -v data:/d busybox sh -c 'echo kept >/d/f'");
    engine.crash_and_restart();
    assert_eq!(engine.ok("docker run --rm -v data:/d busybox cat /d/f"), "kept");
    engine.ok("docker volume create --driver local -o type=tmpfs -o device=tmpfs -o o=size=1m mem");
    assert!(engine.ok("docker run --rm -v mem:/m busybox grep ' /m ' /proc/mounts").contains("tmpfs"));
}
