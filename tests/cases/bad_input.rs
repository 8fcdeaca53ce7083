//! What the API answers to what it cannot do: the status, and `{"message": …}` in Docker's words.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use e2e::{Engine, request};

#[track_caller]
fn refused(engine: &Engine, method: &str, path: &str, body: &str, status: u16, words: &str) {
    let headers: &[&str] = if body.is_empty() { &[] } else { &["Content-Type: application/json"] };
    let answer = request(&engine.socket(), method, path, headers, body.as_bytes());
    assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
    let message = answer.message();
    assert!(message.contains(words), "{method} {path}: {message:?} does not say {words:?}");
    let kind = answer.headers.get("content-type").map(String::as_str).unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{kind}");
}

#[test]
fn unknown_things_are_404() {
    let engine = Engine::start();
    for (method, path) in [
        ("GET", "/containers/nope/json"),
        ("POST", "/containers/nope/start"),
        ("POST", "/containers/nope/stop"),
        ("POST", "/containers/nope/kill"),
        ("POST", "/containers/nope/pause"),
        ("POST", "/containers/nope/wait"),
        ("DELETE", "/containers/nope"),
        ("GET", "/containers/nope/logs?stdout=1"),
        ("GET", "/containers/nope/top"),
        ("GET", "/containers/nope/checkpoints"),
    ] {
        refused(&engine, method, path, "", 404, "No such container: nope");
    }
    refused(&engine, "GET", "/images/nope/json", "", 404, "No such image: nope");
    refused(&engine, "GET", "/networks/nope", "", 404, "network nope not found");
    refused(&engine, "GET", "/volumes/nope", "", 404, "no such volume");
    refused(&engine, "GET", "/exec/nope/json", "", 404, "No such exec instance");
    refused(&engine, "POST", "/containers/create", r#"{"Image":"nope"}"#, 404, "No such image: nope:latest");
    refused(&engine, "GET", "/no/such/route", "", 404, "page not found");
    refused(&engine, "GET", "/v1.44/no/such/route", "", 404, "page not found");
}

#[test]
fn conflicts_are_409() {
    let engine = Engine::start();
    engine.ok("docker create --name c1 busybox");
    refused(&engine, "POST", "/containers/c1/kill", "", 409, "is not running");
    refused(&engine, "POST", "/containers/c1/pause", "", 409, "is not running");
    refused(&engine, "POST", "/containers/c1/exec", r#"{"Cmd":["true"]}"#, 409, "is not running");
    refused(&engine, "POST", "/containers/c1/checkpoints", r#"{"CheckpointID":"nap"}"#, 409, "is not running");
    refused(
        &engine,
        "POST",
        "/containers/create?name=c1",
        r#"{"Image":"busybox"}"#,
        409,
        "is already in use by container",
    );
    engine.ok("docker run -d --name up busybox sleep 100");
    refused(&engine, "DELETE", "/containers/up", "", 409, "container is running");
    refused(&engine, "POST", "/containers/up/unpause", "", 409, "is not paused");
    refused(&engine, "DELETE", "/images/busybox", "", 409, "conflict");
    assert_eq!(engine.post("/containers/up/start", "").status, 304);
    assert_eq!(engine.post("/containers/c1/stop", "").status, 304);
}

#[test]
fn nonsense_is_400() {
    let engine = Engine::start();
    engine.ok("docker create --name c1 busybox");
    refused(
        &engine,
        "POST",
        "/containers/create?name=a%2Fb",
        r#"{"Image":"busybox"}"#,
        400,
        "Invalid container name (a/b)",
    );
    refused(&engine, "POST", "/containers/create", "{", 400, "");
    refused(&engine, "POST", "/containers/create", r#"{"Image":7}"#, 400, "");
    refused(&engine, "POST", "/containers/create", r#"{"Image":"busybox"} trailing"#, 400, "");
    refused(&engine, "POST", "/containers/create", "[]", 400, "");
    refused(&engine, "GET", "/containers/json?filters=nonsense", "", 400, "invalid");
    refused(
        &engine,
        "GET",
        "/containers/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D",
        "",
        400,
        "invalid filter 'colour'",
    );
    refused(&engine, "GET", "/containers/json?limit=many", "", 400, "");
    refused(&engine, "GET", "/containers/c1/logs", "", 400, "you must choose at least one stream");
    refused(&engine, "POST", "/containers/c1/rename?name=", "", 400, "");
    refused(&engine, "POST", "/containers/c1/kill?signal=NOSUCH", "", 400, "nvalid signal: NOSUCH");
    refused(&engine, "POST", "/volumes/create", r#"{"Name":"../x"}"#, 400, "invalid characters");
    refused(&engine, "POST", "/networks/create", "{}", 400, "");
    refused(&engine, "POST", "/images/create?fromImage=UPPER", "", 400, "invalid reference format");
    let none = request(&engine.socket(), "POST", "/containers/create", &["Content-Type: text/plain"], b"{}");
    assert!(none.status == 400 || none.status == 415, "{}: {}", none.status, none.text());
}

#[test]
fn versions_out_of_range_are_400() {
    let engine = Engine::with().without_image().start();
    refused(
        &engine,
        "GET",
        "/v1.99/containers/json",
        "",
        400,
        "client version 1.99 is too new. Maximum supported API version is",
    );
    refused(
        &engine,
        "GET",
        "/v1.10/containers/json",
        "",
        400,
        "client version 1.10 is too old. Minimum supported API version is 1.24",
    );
    assert_eq!(engine.get("/v1.24/_ping").status, 200);
    let ping = engine.get("/_ping");
    assert!(ping.headers.get("api-version").is_some_and(|version| version.starts_with("1.")), "{:?}", ping.headers);
    assert_eq!(ping.headers.get("docker-experimental").map(String::as_str), Some("true"));
    assert_eq!(ping.headers.get("ostype").map(String::as_str), Some("linux"));
    assert_eq!(request(&engine.socket(), "HEAD", "/_ping", &[], b"").status, 200);
}

#[test]
fn too_much_is_413() {
    let engine = Engine::start();
    let large = format!(r#"{{"Image":"busybox","Labels":{{"a":"{}"}}}}"#, "x".repeat(20 << 20));
    refused(&engine, "POST", "/containers/create", &large, 413, "");
    // Said to be large, but never sent: the answer must not wait for it.
    let mut stream = UnixStream::connect(engine.socket()).expect("connect");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("set a timeout");
    let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("send");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[test]
fn garbage_ends_its_connection_only() {
    let engine = Engine::with().without_image().start();
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[0; 4096]] {
        let mut stream = UnixStream::connect(engine.socket()).expect("connect");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("set a timeout");
        stream.write_all(garbage).expect("send");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let refused = [&b"HTTP/1.1 4"[..], b"HTTP/1.1 505"].iter().any(|start| answer.starts_with(start));
        assert!(answer.is_empty() || refused, "{}", String::from_utf8_lossy(&answer));
    }
    let long = format!("/containers/{}/json", "x".repeat(100_000));
    let answer = request(&engine.socket(), "GET", &long, &[], b"");
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert_eq!(engine.get("/_ping").status, 200);
}

#[test]
fn names_cannot_leave_their_folders() {
    let engine = Engine::start();
    engine.ok("docker run -d --name c1 busybox sleep 1000");
    for name in ["../x", "..", "a/../../b", "/abs", ".", "a\\u0000b"] {
        let body = format!(r#"{{"CheckpointID":"{name}"}}"#);
        let answer = engine.post("/containers/c1/checkpoints", &body);
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        let body = format!(r#"{{"Name":"{name}"}}"#);
        let answer = engine.post("/volumes/create", &body);
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
    }
    let answer = engine.delete("/containers/c1/checkpoints/..%2F..%2Fx");
    assert!(answer.status == 400 || answer.status == 404, "{}: {}", answer.status, answer.text());
    let answer = engine.get("/containers/..%2F..%2Fetc/json");
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(engine.ok("docker exec c1 echo fine"), "fine");
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_broken() {
    let engine = Engine::with().without_image().prepare();
    engine.ok("mkdir data && mount -t tmpfs -o size=24m tmpfs data");
    engine.boot();
    engine.provide_image();
    engine.ok("tar -C / -cf root.tar bin/busybox && head -c 60000000 /dev/zero >zeroes && tar rf root.tar zeroes");
    engine.fails("docker import root.tar big");
    assert_eq!(engine.ok("docker images -q"), "");
    engine.crash_and_restart();
    assert_eq!(engine.ok("docker images -q"), "");
    engine.ok("tar -C /etc -cf - hostname | docker import - small");
    assert_eq!(engine.ok("docker images --format '{{.Repository}}'"), "small");
    assert_eq!(engine.stop_dockerd(), 0);
}
