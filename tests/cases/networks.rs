//! Networks: the three that are always there, created ones, published ports, names.

use std::net::UdpSocket;
use std::time::Duration;

use e2e::{Engine, eventually, free_port};

/// Serves its own name on port 80.
const SERVE: &str = "sh -c 'mkdir /www; hostname >/www/index.html; httpd -f -h /www'";

/// A request for the page from inside a container. Not by wget: that of a static busybox needs the C library's plug-ins.
fn fetch(container: &str, host: &str) -> String {
    format!("docker exec {container} sh -c \"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {host} 80 | tail -n 1\"")
}

fn answers(engine: &Engine, url: &str) -> String {
    let mut answer = String::new();
    eventually(format!("{url} answers"), || {
        let done = engine.run(&format!("curl -sf -m 2 {url}"));
        answer = done.out().to_owned();
        (done.code == 0).then_some(())
    });
    answer
}

#[test]
fn the_predefined_networks_are_there() {
    let engine = Engine::start();
    assert_eq!(
        engine.ok("docker network ls --format '{{.Name}} {{.Driver}} {{.Scope}}' | sort | xargs"),
        "bridge bridge local host host local none null local"
    );
    let bridge = engine.inspect_json("--type network bridge");
    assert_eq!(bridge["IPAM"]["Config"][0]["Subnet"], format!("{}0/24", engine.bridge_prefix()));
    assert_eq!(bridge["IPAM"]["Config"][0]["Gateway"], format!("{}1", engine.bridge_prefix()));
    assert_eq!(bridge["Options"]["com.docker.network.bridge.name"], engine.bridge());
    for name in ["bridge", "host", "none"] {
        engine.fails(&format!("docker network rm {name}"));
    }
}

#[test]
fn bridge_none_and_host() {
    let engine = Engine::start();
    let address = engine.ok("docker run --rm busybox sh -c 'ip -4 -o addr show eth0' | awk '{print $4}'");
    assert!(address.starts_with(&engine.bridge_prefix()) && address.ends_with("/24"), "{address}");
    assert_eq!(
        engine.ok("docker run --rm busybox ip route | head -n 1 | awk '{print $1, $3}'"),
        format!("default {}1", engine.bridge_prefix())
    );
    engine.ok("docker run -d --name aa busybox sleep 1000 && docker run -d --name bb busybox sleep 1000");
    let of_b = engine.inspect("bb", "{{.NetworkSettings.IPAddress}}");
    engine.ok(&format!("docker exec aa ping -c 1 -W 2 {of_b}"));
    engine.ok(&format!("docker exec aa ping -c 1 -W 2 {}1", engine.bridge_prefix()));
    assert_eq!(engine.ok("docker run --rm --network none busybox sh -c 'ls /sys/class/net'"), "lo");
    assert!(engine.ok("docker run --rm --network host busybox ls /sys/class/net").contains(&engine.bridge()));
    assert_eq!(
        engine.ok("docker run --rm --network container:aa busybox hostname -i | xargs -n 1 | head -n 1"),
        engine.inspect("aa", "{{.NetworkSettings.IPAddress}}")
    );
    let resolver = engine
        .ok("docker run --rm --dns 9.9.9.9 --dns-search example.org --dns-option ndots:3 busybox cat /etc/resolv.conf");
    assert!(
        resolver.contains("nameserver 9.9.9.9")
            && resolver.contains("search example.org")
            && resolver.contains("ndots:3"),
        "{resolver}"
    );
    let mac = engine.ok("docker run --rm --mac-address 02:42:11:22:33:44 busybox cat /sys/class/net/eth0/address");
    assert_eq!(mac, "02:42:11:22:33:44");
}

#[test]
fn published_ports_answer() {
    let engine = Engine::start();
    let port = free_port();
    engine.ok(&format!("docker run -d --name web --hostname web -p {port}:80 busybox {SERVE}"));
    assert_eq!(answers(&engine, &format!("http://127.0.0.1:{port}/")), "web");
    assert_eq!(answers(&engine, &format!("http://{}1:{port}/", engine.bridge_prefix())), "web");
    // From another container, by way of the host.
    engine.ok("docker run -d --name other busybox sleep 1000");
    let gateway = format!("{}1 {port}", engine.bridge_prefix());
    assert_eq!(
        engine.ok(&format!(
            "docker exec other sh -c \"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 3 {gateway} | tail -n 1\""
        )),
        "web"
    );
    engine
        .ends_with(125, &format!("docker run -d --name second -p {port}:80 busybox {SERVE}"))
        .says("port is already allocated");
    engine.ok("docker rm -f second || true");
    engine.ok("docker stop -t 0 web");
    engine.fails(&format!("curl -sf -m 1 http://127.0.0.1:{port}/"));
    engine.ok("docker start web");
    assert_eq!(answers(&engine, &format!("http://127.0.0.1:{port}/")), "web");
    engine.ok("docker rm -f web");
    engine.ok(&format!("docker run -d --name again --hostname again -p 127.0.0.1:{port}:80 busybox {SERVE}"));
    assert_eq!(answers(&engine, &format!("http://127.0.0.1:{port}/")), "again");
    // One that somebody else holds.
    let taken = std::net::TcpListener::bind(("0.0.0.0", 0)).expect("bind a port");
    let number = taken.local_addr().expect("an address").port();
    engine.ends_with(125, &format!("docker run -d -p {number}:80 busybox {SERVE}")).says("address already in use");
}

#[test]
fn ports_are_chosen_when_none_is_named() {
    let engine = Engine::start();
    engine.ok(&format!("docker run -d --name any --hostname any -p 80 busybox {SERVE}"));
    let published = engine.ok("docker port any 80 | head -n 1");
    assert!(published.starts_with("0.0.0.0:"), "{published}");
    assert_eq!(answers(&engine, &format!("http://{}/", published.replace("0.0.0.0", "127.0.0.1"))), "any");
    engine.ok(&format!("docker run -d --name all --hostname all -P --expose 80 --expose 90/udp busybox {SERVE}"));
    let ports = engine.ok("docker port all");
    assert!(ports.contains("80/tcp -> ") && ports.contains("90/udp -> "), "{ports}");
    let web = engine.ok("docker port all 80/tcp | head -n 1").replace("0.0.0.0", "127.0.0.1");
    assert_eq!(answers(&engine, &format!("http://{web}/")), "all");
    assert!(engine.ok("docker ps --filter name=all --format '{{.Ports}}'").contains("->80/tcp"));
    engine.ok("docker run -d --name range -p 42000-42002:80-82 busybox sleep 100");
    assert_eq!(engine.ok("docker port range | grep -c 0.0.0.0"), "3");
}

#[test]
fn udp_ports_pass_datagrams() {
    let engine = Engine::start();
    let port = free_port();
    engine.ok(&format!("docker run -d --name udp -p 127.0.0.1:{port}:9/udp busybox sleep 1000"));
    // Debian's busybox has no server for datagrams, so one of the host's goes into the container's network.
    let pid = engine.inspect("udp", "{{.State.Pid}}");
    let server = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind((\"0.0.0.0\", 9))\n\
                  while True:\n    data, peer = s.recvfrom(100)\n    s.sendto(b\"<\" + data + b\">\", peer)";
    let _server = engine.background("server", &format!("nsenter -t {pid} -n python3 -c '{server}'"));
    let client = UdpSocket::bind(("127.0.0.1", 0)).expect("bind a port");
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("set a timeout");
    client.connect(("127.0.0.1", port)).expect("name a peer");
    eventually("a datagram comes back", || {
        let mut answer = [0; 100];
        let _ = client.send(b"datagram");
        let length = client.recv(&mut answer).ok()?;
        (&answer[..length] == b"<datagram>").then_some(())
    });
}

#[test]
fn created_networks_have_names() {
    let engine = Engine::start();
    let id = engine.ok("docker network create --label a=1 sea");
    assert_eq!(id.len(), 64, "{id}");
    engine.fails("docker network create sea").says("already exists");
    engine.ok(&format!("docker run -d --name ship --hostname hull --network sea --network-alias boat busybox {SERVE}"));
    engine.ok("docker run -d --name diver --network sea busybox sleep 1000");
    for name in ["ship", "boat", &engine.inspect("ship", "{{slice .Id 0 12}}")] {
        assert_eq!(engine.ok(&fetch("diver", name)), "hull", "by the name {name}");
    }
    engine.fails("docker exec diver ping -c 1 -W 1 nobody");
    let own = engine.ok("docker exec ship cat /etc/resolv.conf");
    assert!(own.contains("nameserver 127.0.0.11"), "{own}");
    assert_eq!(engine.ok("docker network ls -q --filter label=a --no-trunc"), id);
    assert_eq!(engine.ok("docker network ls --filter type=custom --format '{{.Name}}'"), "sea");
    let network = engine.inspect_json("--type network sea");
    assert_eq!(network["Containers"].as_object().map(serde_json::Map::len), Some(2), "{network}");
    engine.fails("docker network rm sea").says("has active endpoints");
    // Those of another network are not reached, by name or by address.
    let address = engine.inspect("ship", "{{.NetworkSettings.Networks.sea.IPAddress}}");
    engine.ok("docker run -d --name stranger busybox sleep 1000");
    assert_ne!(engine.run(&fetch("stranger", &address)).out(), "hull");
    // Until they are let in.
    engine.ok("docker network connect --alias visitor sea stranger");
    assert_eq!(engine.ok(&fetch("stranger", "ship")), "hull");
    engine.ok("docker exec diver ping -c 1 -W 2 visitor");
    engine.ok("docker network disconnect sea stranger");
    assert_ne!(engine.run(&fetch("stranger", "ship")).out(), "hull");
    engine.ok("docker rm -f ship diver stranger && docker network rm sea");
    engine.fails("docker network inspect sea").says_one_of(&["network sea not found", "No such network: sea"]);
}

#[test]
fn networks_with_addresses_of_ones_own() {
    let engine = Engine::start();
    let subnet = engine.bridge_prefix().replace("10.213.", "10.215.");
    engine.ok(&format!(
        "docker network create --subnet {subnet}0/24 --ip-range {subnet}128/25 --gateway {subnet}254 own"
    ));
    engine.ok("docker run -d --name aa --network own busybox sleep 1000");
    let first = engine.inspect("aa", "{{.NetworkSettings.Networks.own.IPAddress}}");
    assert!(
        first.strip_prefix(&subnet).and_then(|last| last.parse::<u8>().ok()).is_some_and(|last| last >= 128),
        "{first}"
    );
    engine.ok(&format!("docker run -d --name bb --network own --ip {subnet}7 busybox sleep 1000"));
    assert!(engine.ok("docker exec bb ip -4 addr").contains(&format!("{subnet}7/24")));
    engine.fails(&format!("docker run -d --network own --ip {subnet}7 busybox true")).says("Address already in use");
    engine.fails(&format!("docker network create --subnet {subnet}0/25 overlap")).says("Pool overlaps");
    engine.ok("docker network create --internal inner");
    engine.ok("docker run --rm --network inner busybox sh -c '! ip route | grep -q default'");
    engine.ok("docker rm -f aa bb && docker network rm own && docker network prune -f");
    assert_eq!(engine.ok("docker network ls -q --filter type=custom"), "");
}

#[test]
fn addresses_are_given_back() {
    let engine = Engine::start();
    let subnet = engine.bridge_prefix().replace("10.213.", "10.215.");
    engine.ok(&format!("docker network create --subnet {subnet}0/29 small"));
    // Five addresses besides the network's, the gateway's and the broadcast's.
    for _ in 0..3 {
        engine.ok("for n in 1 2 3 4 5; do docker run -d --name s$n --network small busybox sleep 1000; done");
        engine.fails("docker run -d --name s6 --network small busybox true");
        engine.ok("docker rm -f s1 s2 s3 s4 s5 s6");
    }
    engine.ok("docker network rm small");
}
