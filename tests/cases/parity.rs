//! What Docker's clients see in small things: fields of inspect, the order of events, words of errors, legacy links, and
//! attaching by websocket. What is expected here was read off Docker 28.5.2.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use e2e::{Engine, eventually_seen};

#[test]
fn inspect_shows_what_docker_shows() {
    let engine = Engine::start();
    engine.ok("docker create --name made -m 64m --memory-swappiness -1 -v data1:/data busybox sleep 100");
    let made = engine.inspect_json("made");
    assert_eq!(made["HostConfig"]["MemorySwap"], 128 << 20, "twice the memory");
    assert!(made["HostConfig"]["MemorySwappiness"].is_null(), "{made}");
    assert_eq!(made["GraphDriver"]["Data"]["ID"], made["Id"]);
    assert_eq!(made["LogPath"], "", "it has none before it runs");
    assert_eq!(made["NetworkSettings"]["Networks"]["bridge"]["NetworkID"], "");
    assert_eq!(made["Mounts"][0]["Mode"], "z");
    engine.ok("docker start made");
    let running = engine.inspect_json("made");
    assert!(running["LogPath"].as_str().is_some_and(|path| path.ends_with("-json.log")), "{running}");
    let network = engine.ok("docker network inspect -f '{{.Id}}' bridge");
    assert_eq!(running["NetworkSettings"]["Networks"]["bridge"]["NetworkID"], network.as_str());
    engine.ok("docker network create net1");
    let options = engine.ok("docker network inspect -f '{{json .IPAM.Options}}' net1 bridge");
    assert_eq!(options, "{}\nnull");
    let config = engine.get("/v1.50/images/busybox/json").json()["Config"].to_string();
    for field in ["\"Entrypoint\":null", "\"Labels\":null", "\"User\":\"\"", "\"WorkingDir\":\"\""] {
        assert!(config.contains(field), "{field} in {config}");
    }
}

#[test]
fn events_come_in_dockers_order() {
    let engine = Engine::start();
    engine.ok("docker network create net1");
    engine.ok("docker run -d --name c1 --network net1 -v data1:/data busybox sleep 1000");
    engine.ok("docker exec c1 true");
    engine.ok("docker stop -t 0 c1");
    engine.ok("docker rm c1");
    let events = engine
        .ok("docker events --since 0 --until $(date +%s.%N) --filter type=container --filter type=network \
         --filter type=volume --format '{{.Type}} {{.Action}} {{.Actor.Attributes.signal}}'");
    let seen: Vec<&str> = events.lines().map(|line| line.trim_end_matches(" <no value>").trim_end()).collect();
    let position = |event: &str| {
        seen.iter().position(|line| *line == event).unwrap_or_else(|| panic!("{event:?} is missing in {seen:#?}"))
    };
    assert!(position("network connect") < position("container start"), "{seen:#?}");
    assert!(position("volume mount") < position("container start"), "{seen:#?}");
    assert!(position("container exec_create: true") < position("container exec_start: true"), "{seen:#?}");
    assert!(position("container kill 15") < position("container kill 9"), "{seen:#?}");
    assert!(position("container kill 9") < position("network disconnect"), "{seen:#?}");
    assert!(position("volume unmount") < position("container die"), "{seen:#?}");
    assert!(position("container die") < position("container destroy"), "{seen:#?}");
    // A filter that nothing has filters nothing.
    engine.ok("docker events --since 0 --until $(date +%s.%N) --filter nonsense=x");
}

#[test]
fn errors_have_dockers_words() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 -v data1:/ro:ro busybox sleep 1000");
    engine.ok("docker create --name c2 busybox");
    engine.ok("touch file");
    for (command, words) in [
        ("docker kill -s FOO nope", "cannot kill container: nope: invalid signal: FOO"),
        ("docker kill -s 99 c1", "cannot kill container: c1: the linux daemon does not support signal 99"),
        ("docker rename c2 'b/c'", "Error when allocating new name: Invalid container name (/b/c), only"),
        ("docker update -m 5m nope", "Minimum memory limit allowed is 6MB"),
        ("docker create --cap-add FOO busybox", "invalid CapAdd: unknown capability: \"CAP_FOO\""),
        ("docker create --cpuset-cpus 4095 busybox", "Requested CPUs are not available - requested 4095, available:"),
        ("docker create --memory-reservation 1m busybox", "Minimum memory reservation allowed is 6MB"),
        ("docker create --isolation foo busybox", "invalid isolation (foo): linux only supports 'default'"),
        ("docker ps --filter status=foo", "invalid filter 'status=foo': invalid value for state (foo): must be one of"),
        ("docker cp file c1:/ro/", "mounted volume is marked read-only"),
        ("docker exec -u nosuch c1 id", "unable to find user nosuch: no matching entries in passwd file"),
        ("docker network create --subnet foo n1", "invalid subnet foo: invalid CIDR block notation"),
        ("docker plugin install x", "not implemented"),
    ] {
        engine.fails(command).says(words);
    }
    let bad_bind = engine.post("/v1.50/containers/create", r#"{"Image":"busybox","HostConfig":{"Binds":["x:y"]}}"#);
    assert_eq!(
        bad_bind.message(),
        "invalid volume specification: 'x:y': invalid mount config for type \"volume\": invalid mount path: 'y' mount path \
         must be absolute"
    );
    let not_running = engine.fails("docker kill c2");
    assert_eq!(not_running.stderr.matches("cannot kill container").count(), 1, "{}", not_running.report());
    // A user that is not there is told in the answer, not on the stream of a process that never was.
    engine.ends_with(1, "docker exec -u nosuch c1 id");
    engine.ends_with(127, "docker exec c1 nosuch");
    engine.ends_with(127, "docker exec -w /nosuch c1 true");
    let top = engine.fails("docker top c1 xyz");
    assert_eq!(top.stderr.trim().lines().count(), 1, "only what is wrong, not how to do better: {}", top.report());
}

#[test]
fn volumes_with_options_outlive_a_prune() {
    let engine = Engine::start();
    engine.ok("docker volume create -o type=tmpfs -o device=tmpfs mounted1");
    engine.ok("docker volume create plain1");
    // A client before 23 removes named volumes without being told so.
    engine.ok(if engine.client_is_at_least(23) { "docker volume prune -af" } else { "docker volume prune -f" });
    assert_eq!(engine.ok("docker volume ls -q"), "mounted1");
}

#[test]
fn links_give_names_addresses_and_variables() {
    let engine = Engine::start();
    engine.ok("docker run -d --name db --expose 80 --expose 81 --expose 53/udp -e FOO=bar busybox sleep 1000");
    engine.ok("docker run -d --name web --link db:the-db --link db busybox sleep 1000");
    let address = engine.inspect("db", "{{.NetworkSettings.IPAddress}}");
    let id = engine.inspect("db", "{{.Id}}");
    let env = engine.ok("docker exec web env");
    for variable in [
        format!("THE_DB_PORT=tcp://{address}:80"),
        format!("THE_DB_PORT_81_TCP=tcp://{address}:81"),
        format!("THE_DB_PORT_80_TCP_ADDR={address}"),
        "THE_DB_PORT_80_TCP_PORT_END=81".to_owned(),
        "THE_DB_PORT_53_UDP_PROTO=udp".to_owned(),
        "THE_DB_NAME=/web/the-db".to_owned(),
        "THE_DB_ENV_FOO=bar".to_owned(),
        "DB_NAME=/web/db".to_owned(),
    ] {
        assert!(env.lines().any(|line| line == variable), "{variable} in\n{env}");
    }
    let hosts = engine.ok("docker exec web cat /etc/hosts");
    assert!(hosts.contains(&format!("{address}\tthe-db {} db\n", &id[..12])), "{hosts}");
    assert_eq!(engine.inspect("web", "{{json .HostConfig.Links}}"), r#"["/db:/web/the-db","/db:/web/db"]"#);
    assert_eq!(engine.inspect("web/the-db", "{{.Name}}"), "/db");
    assert!(engine.ok("docker ps --no-trunc --format '{{.Names}}'").contains("web/the-db"));

    engine.fails("docker rm --link db").says("Conflict, cannot remove the default link name of the container");
    engine.ok("docker rm --link web/the-db");
    assert_eq!(engine.inspect("web", "{{json .HostConfig.Links}}"), r#"["/db:/web/db"]"#);
    assert!(!engine.ok("docker exec web cat /etc/hosts").contains("the-db"));

    engine.ok("docker rename db db2");
    assert_eq!(engine.inspect("web", "{{json .HostConfig.Links}}"), r#"["/db2:/web/db"]"#);
    engine.ok("docker stop -t 0 web db2");
    engine.fails("docker start web").says("Cannot link to a non running container: /db2 AS /web/db");
    engine.fails("docker create --link nope busybox").says("could not get container for nope: No such container: nope");
    engine.fails("docker create --net host --link db2 busybox").says_one_of(&[
        "host type networking can't be used with links",
        // A client before 23 does not ask.
        "links are only supported for user-defined networks",
    ]);
}

#[test]
fn a_websocket_attaches() {
    let engine = Engine::start();
    let id = engine.ok("docker create -i busybox cat");
    engine.ok(&format!("docker start {id}"));
    let mut socket = UnixStream::connect(engine.socket()).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
    let request = format!(
        "GET /v1.50/containers/{id}/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).expect("send the handshake");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("read the handshake's answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");

    // A final binary frame of six bytes, masked with zeros.
    socket.write_all(b"\x82\x86\0\0\0\0hello\n").expect("send a message");
    let mut frame = [0; 8];
    socket.read_exact(&mut frame).expect("read a message");
    assert_eq!(&frame, b"\x82\x06hello\n");
    // A close ends the input, and with it `cat`.
    socket.write_all(b"\x88\x80\0\0\0\0").expect("send a close");
    eventually_seen("cat ends", || engine.inspect(&id, "{{.State.Status}}"), |state| state == "exited");
    assert_eq!(engine.get(&format!("/containers/{id}/attach/ws?stream=1&stdout=1")).status, 400);
}

#[test]
fn long_operations_are_jobs() {
    let engine = Engine::start();
    engine.ok("docker container prune -f");
    let log = engine.log();
    assert!(log.contains("+job prune(containers)") && log.contains("-job prune(containers) = OK (0)"), "{log}");
}
