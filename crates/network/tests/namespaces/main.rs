//! The whole crate on real namespaces, bridges and rules. Needs root and busybox; every test has its own bridge and
//! address range, so that they can run side by side, and takes all of it away again.

use std::collections::HashSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use network::{Config, Error, IpamRequest, Networks, PortPublish, Protocol};

mod host;

use host::{Host, fetch, fetch_inside, free_port, named, pings, publish, run, user_network};

#[tokio::test(flavor = "multi_thread")]
async fn two_containers_reach_each_other_and_the_gateway() {
    let mut host = Host::new("dmn1", 10).await;
    let a = host.joined("aaa", "bridge", named("a")).await;
    let b = host.joined("bbb", "bridge", named("b")).await;
    assert_eq!(a.ipv4, Some(Ipv4Addr::new(10, 214, 10, 2)));
    assert_eq!(b.ipv4, Some(Ipv4Addr::new(10, 214, 10, 3)));
    assert_eq!(a.mac_text(), "02:42:0a:d6:0a:02");
    assert_eq!((a.ifname.as_str(), a.prefix_len), ("eth0", 24));
    assert!(pings(&host.netns("aaa"), "10.214.10.1"));
    assert!(pings(&host.netns("aaa"), "10.214.10.3"));
    assert!(pings(&host.netns("bbb"), "127.0.0.1"));
    let (_, routes) = run(&host.netns("bbb"), &["ip", "route"]);
    assert!(routes.contains("default via 10.214.10.1 dev eth0"), "{routes}");
    let on = host.networks.get("bridge").unwrap();
    assert_eq!(host.networks.endpoints_on(&on.id).len(), 2);
    assert!(matches!(host.networks.connect("aaa", "bridge", named("a")).await, Err(Error::AlreadyConnected { .. })));
    assert!(matches!(host.networks.connect("nosuch", "bridge", named("x")).await, Err(Error::NoSandbox(_))));
    assert_eq!(host.networks.endpoints_on(&on.id).len(), 2);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_everywhere() {
    let mut host = Host::new("dmn2", 20).await;
    let port = free_port();
    let mut request = named("web");
    request.ports = vec![publish(None, Some(port), 80)];
    let web = host.joined("web", "bridge", request.clone()).await;
    assert_eq!(web.ports.len(), 2, "IPv4 and IPv6: {:?}", web.ports);
    host.joined("other", "bridge", named("other")).await;
    host.serve("web", 80, "hello");
    let hello = Some("hello".to_owned());
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    assert_eq!(fetch(at("127.0.0.1")), hello, "loopback");
    assert_eq!(fetch(at("10.214.20.1")), hello, "the bridge's address");
    assert_eq!(fetch(at("::1")), hello, "IPv6 loopback, by proxy");
    assert_eq!(fetch_inside(&host.netns("other"), "10.214.20.1", port), hello, "another container, by the host");
    assert_eq!(fetch_inside(&host.netns("web"), "10.214.20.1", port), hello, "itself, by the host");

    let mut second = named("late");
    second.ports = vec![publish(None, Some(port), 80)];
    host.container("late").await;
    let error = host.networks.connect("late", "bridge", second.clone()).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to set up container networking: driver failed programming external"), "{error}");
    assert!(error.ends_with(&format!("Bind for 0.0.0.0:{port} failed: port is already allocated")), "{error}");
    assert!(host.networks.endpoints("late").is_empty());

    host.networks.release_all("web").await.unwrap();
    host.networks.connect("late", "bridge", second).await.unwrap();
    host.serve("late", 80, "late");
    assert_eq!(fetch(at("127.0.0.1")), Some("late".to_owned()));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_resolved_on_user_defined_networks_only_there() {
    let mut host = Host::new("dmn3", 30).await;
    host.networks.create(user_network("front")).await.unwrap();
    host.networks.create(user_network("back")).await.unwrap();
    let mut request = named("my_db");
    request.aliases = vec!["Database".to_owned()];
    let db = host.joined("0123456789abcdef", "front", request).await;
    host.joined("client", "front", named("client")).await;
    host.joined("stranger", "back", named("stranger")).await;
    let address = db.ipv4.unwrap().to_string();
    let lookup = |id: &str, name: &str| run(&host.netns(id), &["busybox", "nslookup", name, "127.0.0.11"]).1;
    for name in ["my_db", "MY_DB", "database", "0123456789ab", "my_db.front"] {
        let text = lookup("client", name);
        assert!(
            text.contains(&format!("Address: {address}")) || text.contains(&format!(": {address}\n")),
            "{name}: {text}"
        );
    }
    let text = lookup("client", &address);
    assert!(text.contains("my_db.front"), "{text}");
    let text = lookup("stranger", "my_db");
    assert!(!text.contains(&address), "{text}");
    // Port 53 is the container's own.
    let (bound, text) =
        run(&host.netns("client"), &["busybox", "timeout", "1", "busybox", "nc", "-l", "-p", "53", "-w", "1"]);
    assert!(!text.contains("in use"), "{bound} {text}");

    host.networks.rename("0123456789abcdef", "store").await.unwrap();
    let lookup = |id: &str, name: &str| run(&host.netns(id), &["busybox", "nslookup", name, "127.0.0.11"]).1;
    assert!(lookup("client", "store").contains(&address));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_are_isolated_and_a_container_may_be_on_several() {
    let mut host = Host::new("dmn4", 40).await;
    host.networks.create(user_network("one")).await.unwrap();
    let mut closed = user_network("two");
    closed.internal = true;
    host.networks.create(closed).await.unwrap();
    let a = host.joined("aaa", "one", named("a")).await;
    let b = host.joined("bbb", "two", named("b")).await;
    assert_eq!(b.gateway, None);
    assert!(!pings(&host.netns("aaa"), &b.ipv4.unwrap().to_string()));
    assert!(!pings(&host.netns("bbb"), &a.ipv4.unwrap().to_string()));
    let again = host.networks.connect("bbb", "one", named("b")).await.unwrap();
    assert_eq!(again.ifname, "eth1");
    assert!(pings(&host.netns("bbb"), &a.ipv4.unwrap().to_string()));
    let (_, routes) = run(&host.netns("bbb"), &["ip", "route"]);
    assert!(routes.contains("dev eth1") && routes.contains("default"), "{routes}");
    let error = host.networks.remove("one").await.unwrap_err().to_string();
    assert!(
        error.starts_with("error while removing network: network one has active endpoints (name:\"a\" id:"),
        "{error}"
    );
    host.networks.disconnect("bbb", "one").await.unwrap();
    assert!(!pings(&host.netns("bbb"), &a.ipv4.unwrap().to_string()));
    let (_, links) = run(&host.netns("bbb"), &["ip", "-br", "link"]);
    assert!(!links.contains("eth1"), "{links}");
    assert!(matches!(host.networks.disconnect("bbb", "one").await, Err(Error::NotConnected { .. })));
    host.networks.release_all("aaa").await.unwrap();
    host.networks.remove("one").await.unwrap();
    assert!(matches!(host.networks.get("one"), Err(Error::NotFound(_))));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_without_icc_reach_the_gateway_only() {
    let mut host = Host::new("dmn5", 50).await;
    let mut quiet = user_network("quiet");
    quiet.options.insert("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned());
    let quiet = host.networks.create(quiet).await.unwrap();
    let a = host.joined("aaa", "quiet", named("a")).await;
    host.joined("bbb", "quiet", named("b")).await;
    assert!(pings(&host.netns("bbb"), &quiet.ipam.unwrap().gateway.to_string()));
    assert!(!pings(&host.netns("bbb"), &a.ipv4.unwrap().to_string()));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_lives_on_keeps_no_place_on_the_bridge() {
    let mut host = Host::new("dmn13", 140).await;
    let endpoint = host.joined("aaa", "bridge", named("a")).await;
    let device = Path::new("/sys/class/net").join(&endpoint.host_ifname);
    assert!(device.exists());
    // As a connection does whose process has ended.
    let _held = std::fs::File::open(host.netns("aaa")).unwrap();
    host.networks.release_all("aaa").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while device.exists() {
        assert!(Instant::now() < deadline, "{} is left", device.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_gets_its_address_back_at_once() {
    let mut host = Host::new("dmn6", 60).await;
    let first = host.joined("sleeper", "bridge", named("s")).await;
    host.joined("peer", "bridge", named("p")).await;
    let ip = first.ipv4.unwrap();
    assert!(pings(&host.netns("peer"), &ip.to_string()));
    host.networks.reserve("sleeper").await.unwrap();
    for _ in 0..5 {
        host.networks.release_all("sleeper").await.unwrap();
        let mut request = named("s");
        request.ipv4 = Some(ip);
        request.mac = Some(first.mac);
        let refused = host.networks.connect("peer2", "bridge", request.clone()).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "not restoring");
        request.restoring = true;
        assert!(matches!(host.networks.connect("peer2", "bridge", request.clone()).await, Err(Error::AddressInUse)));
        host.networks.sandbox_create("sleeper").await.unwrap();
        let again = host.networks.connect("sleeper", "bridge", request).await.unwrap();
        assert_eq!((again.ipv4, again.mac), (Some(ip), first.mac));
        assert!(pings(&host.netns("peer"), &ip.to_string()), "at once, through the bridge's table");
        assert!(pings(&host.netns("sleeper"), "10.214.60.1"));
    }
    host.networks.unreserve("sleeper").await.unwrap();
    host.end().await;
}

/// A bridge's first container, too: no packet is lost to the kernel's link watch.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_packet_arrives() {
    let mut host = Host::new("dmn12", 130).await;
    for round in 0..10 {
        let net = host.networks.create(user_network(&format!("net{round}"))).await.unwrap();
        let id = format!("c{round}");
        host.joined(&id, &net.id, named(&id)).await;
        let gateway = net.ipam.unwrap().gateway.to_string();
        let began = Instant::now();
        assert!(pings(&host.netns(&id), &gateway), "round {round}: nothing after {:?}", began.elapsed());
        host.networks.release_all(&id).await.unwrap();
        host.networks.remove(&net.id).await.unwrap();
    }
    host.end().await;
}

/// Engines without a default bridge do not share a table, and have none without networks.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_default_bridge_every_engine_has_a_table_of_its_own() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut engines = Vec::new();
    for (dir, third) in dirs.iter().zip([140, 141]) {
        let mut config = Config::new(dir.path(), dir.path().join("run"), "none");
        config.address_pools = vec![(format!("10.214.{third}.0/24").parse().unwrap(), 26)];
        let networks = Networks::open(config).await.unwrap();
        let net = networks.create(user_network("net")).await.unwrap();
        engines.push((networks, net, third));
    }
    // Whose tables these are is told by their addresses.
    let tables = |third: i32| {
        let listed = Command::new("nft").args(["list", "ruleset", "ip"]).output().unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mine = text.split("\ntable ").filter(|table| table.contains(&format!("10.214.{third}.")));
        mine.map(|table| table.lines().next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let (first, second) = (tables(140), tables(141));
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} {second:?}");
    for (networks, net, third) in engines {
        networks.remove(&net.id).await.unwrap();
        assert!(tables(third).is_empty());
        networks.teardown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_engine_takes_up_where_a_killed_one_stopped() {
    let mut host = Host::new("dmn7", 70).await;
    host.networks.create(user_network("net")).await.unwrap();
    let port = free_port();
    let mut request = named("web");
    request.ports = vec![publish(None, Some(port), 80)];
    let web = host.joined("web", "net", request).await;
    host.joined("gone", "net", named("gone")).await;
    host.serve("web", 80, "still");
    let before: Vec<_> = host.networks.list();
    // The runtime of the first engine ends with all its tasks and sockets, as with SIGKILL; nothing else is told.
    let config = host.config.clone();
    let old = std::mem::replace(&mut host.networks, Networks::open(config.clone()).await.unwrap());
    drop(old);
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("::1", port)).is_ok() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    assert_eq!(fetch(v4), Some("still".to_owned()), "rules serve the port while nobody listens");
    host.networks.reconcile(&HashSet::from(["web".to_owned()])).await.unwrap();
    assert_eq!(host.networks.list(), before);
    assert_eq!(host.networks.endpoints("web"), [web]);
    assert!(host.networks.endpoints("gone").is_empty());
    assert!(!host.netns("gone").exists());
    assert_eq!(fetch(v4), Some("still".to_owned()));
    assert_eq!(fetch(SocketAddr::new("::1".parse().unwrap(), port)), Some("still".to_owned()), "proxy again");
    let (_, text) = run(&host.netns("web"), &["busybox", "nslookup", "web", "127.0.0.11"]);
    assert!(text.contains("10.214.71."), "{text}");
    let next = host.joined("next", "net", named("next")).await;
    assert!(next.ports.is_empty());
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_are_refused_in_dockers_words() {
    let mut host = Host::new("dmn8", 80).await;
    let networks = &host.networks;
    let said = |error: Error| error.to_string();
    assert_eq!(said(networks.get("nosuch").unwrap_err()), "network nosuch not found");
    assert_eq!(
        said(networks.remove("bridge").await.unwrap_err()),
        "bridge is a pre-defined network and cannot be removed"
    );
    networks.create(user_network("x")).await.unwrap();
    assert_eq!(said(networks.create(user_network("x")).await.unwrap_err()), "network with name x already exists");
    assert!(matches!(networks.create(user_network("host")).await, Err(Error::PredefinedCreate(_))));
    let mut overlapping = user_network("y");
    overlapping.ipam = vec![IpamRequest { subnet: Some("10.214.80.0/25".to_owned()), ..Default::default() }];
    assert_eq!(
        said(networks.create(overlapping).await.unwrap_err()),
        "invalid pool request: Pool overlaps with other one on this address space"
    );
    let mut macvlan = user_network("z");
    macvlan.driver = "macvlan".to_owned();
    assert!(matches!(networks.create(macvlan).await, Err(Error::NotImplemented(_))));
    let mut wanted = named("c");
    wanted.ipv4 = Some(Ipv4Addr::new(10, 214, 80, 9));
    assert!(said(networks.validate("bridge", &wanted).unwrap_err()).contains("on user defined networks only"));
    wanted.ipv4 = Some(Ipv4Addr::new(10, 214, 81, 9));
    assert!(said(networks.validate("x", &wanted).unwrap_err()).contains("user configured subnets"));
    for bad in ["../x", "", "a/b", ".hidden"] {
        assert!(networks.sandbox_create(bad).await.is_err(), "{bad:?}");
    }
    let id = networks.get("x").unwrap().id;
    assert_eq!(networks.get(&id[..8]).unwrap().name, "x");
    host.joined("h", "host", named("h")).await;
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_follow_the_network() {
    let mut host = Host::new("dmn9", 90).await;
    host.networks.create(user_network("net")).await.unwrap();
    let none = network::DnsOptions::default();
    assert!(host.networks.resolv_conf("net", &none).unwrap().contains("nameserver 127.0.0.11\nsearch example.test\n"));
    assert!(host.networks.resolv_conf("bridge", &none).unwrap().contains("nameserver 8.8.8.8\n"));
    assert!(host.networks.resolv_conf("host", &none).unwrap().starts_with("nameserver 127.0.0.1\n"));
    let db = host.joined("db", "bridge", named("db")).await;
    let web = host.joined("web", "bridge", named("web")).await;
    let links = [(db.ipv4.unwrap(), vec!["store".to_owned(), "db".to_owned()])];
    let hosts =
        host.networks.hosts("web", "", std::slice::from_ref(&web), &["gw:host-gateway".to_owned()], &links).unwrap();
    assert!(hosts.contains(&format!("{}\tstore db", db.ipv4.unwrap())), "{hosts}");
    assert!(hosts.contains(&format!("{}\tweb\n", web.ipv4.unwrap())), "{hosts}");
    assert!(hosts.contains("10.214.90.1\tgw\n"), "{hosts}");
    assert!(host.dir.path().join("dormouse.db").exists());
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_world_outside_is_reached_masqueraded_and_reaches_published_ports_only() {
    let mut host = Host::new("dmn10", 100).await;
    let outside = host.container("outside").await;
    let ip = |arguments: &str| {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ip(&format!("link add dmn10x type veth peer name eth0 netns {}", outside.display()));
    ip("addr add 10.214.102.1/30 dev dmn10x");
    ip("link set dmn10x up");
    assert!(run(&outside, &["ip", "addr", "add", "10.214.102.2/30", "dev", "eth0"]).0);
    assert!(run(&outside, &["ip", "link", "set", "eth0", "up"]).0);
    let mut closed = user_network("closed");
    closed.internal = true;
    host.networks.create(closed).await.unwrap();

    let (open_port, local_port) = (free_port(), free_port());
    let mut request = named("web");
    request.ports =
        vec![publish(None, Some(open_port), 80), publish(Some(Ipv4Addr::LOCALHOST.into()), Some(local_port), 80)];
    let web = host.joined("web", "bridge", request).await;
    host.joined("shut", "closed", named("shut")).await;
    host.serve("web", 80, "inner");
    host.serve("outside", 80, "outer");
    // Without a route back to the containers, only a masqueraded packet is answered.
    assert_eq!(fetch_inside(&host.netns("web"), "10.214.102.2", 80), Some("outer".to_owned()));
    assert!(!pings(&host.netns("shut"), "10.214.102.2"), "an internal network has no way out");
    assert_eq!(fetch_inside(&outside, "10.214.102.1", open_port), Some("inner".to_owned()));
    assert_eq!(fetch(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local_port)), Some("inner".to_owned()));
    assert!(run(&outside, &["ip", "route", "add", "default", "via", "10.214.102.1"]).0);
    assert!(!pings(&outside, &web.ipv4.unwrap().to_string()), "no way in around the published ports");
    let local = local_port.to_string();
    let (_, text) = run(&outside, &["busybox", "timeout", "1", "busybox", "nc", "-w1", "10.214.102.1", &local]);
    assert!(!text.contains("inner"), "published on loopback only");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_is_published_by_rule_and_by_proxy() {
    let mut host = Host::new("dmn11", 110).await;
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut request = named("echo");
    request.ports = vec![PortPublish { protocol: Protocol::Udp, ..publish(None, Some(port), 7) }];
    host.joined("echo", "bridge", request.clone()).await;
    echo_udp(&host.netns("echo"), 7);
    for address in ["127.0.0.1", "10.214.110.1", "::1"] {
        let from = if address == "::1" { "[::]:0" } else { "0.0.0.0:0" };
        let client = std::net::UdpSocket::bind(from).unwrap();
        client.connect((address, port)).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let answered = answers(&client);
        assert!(answered, "{address}");
    }
    // A client that goes on from the same port reaches the next container, not the address of the last.
    let client = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(answers(&client));
    host.networks.release_all("echo").await.unwrap();
    let again = host.joined("again", "bridge", request).await;
    assert_eq!(again.ipv4, Some(Ipv4Addr::new(10, 214, 110, 3)));
    echo_udp(&host.netns("again"), 7);
    assert!(answers(&client), "after a restart");
    host.end().await;
}

fn echo_udp(netns: &Path, port: u16) {
    let netns = std::fs::File::open(netns).unwrap();
    let (bound, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let socket = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
        bound.send(()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0u8; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    wait.recv().unwrap();
}

fn answers(client: &std::net::UdpSocket) -> bool {
    let mut buffer = [0u8; 64];
    (0..6).any(|_| {
        client.send(b"hello").ok();
        client.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"hello")
    })
}

/// Not a test of right or wrong: prints medians. `cargo nextest run -p network --run-ignored only --no-capture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_long_it_takes() {
    let mut host = Host::new("dmn0", 0).await;
    host.networks.create(user_network("net")).await.unwrap();
    for (what, network, published) in
        [("bridge", "bridge", false), ("bridge, a port", "bridge", true), ("user-defined", "net", false)]
    {
        let mut times: [Vec<Duration>; 4] = Default::default();
        for round in 0..40 {
            let id = format!("c{round}");
            let mut request = named(&id);
            if published {
                request.ports = vec![publish(None, None, 80)];
            }
            let start = Instant::now();
            host.networks.sandbox_create(&id).await.unwrap();
            times[0].push(start.elapsed());
            let start = Instant::now();
            let endpoint = host.networks.connect(&id, network, request).await.unwrap();
            times[1].push(start.elapsed());
            let state = format!("/sys/class/net/{}/brport/state", endpoint.host_ifname);
            while std::fs::read_to_string(&state).unwrap().trim() != "3" {
                std::thread::yield_now();
            }
            times[3].push(start.elapsed());
            let start = Instant::now();
            host.networks.release_all(&id).await.unwrap();
            times[2].push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let [create, connect, release, forwarding] = &mut times;
        let text = format!(
            "{what}: sandbox_create {:?}, connect {:?} (port open after {:?}), release_all {:?}\n",
            median(create),
            median(connect),
            median(forwarding),
            median(release)
        );
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    host.containers.clear();
    host.end().await;
}
