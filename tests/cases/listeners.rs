//! Where the engine listens, who may talk to it, and that it keeps those waiting who come too early.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use e2e::{Engine, eventually, free_port, request, request_over_tcp};

#[test]
fn tcp_and_several_sockets_at_once() {
    let port = free_port();
    let engine = Engine::with().flags(&format!("-H tcp://127.0.0.1:{port} -H unix://{{home}}/second.sock")).start();
    assert_eq!(request_over_tcp(&format!("127.0.0.1:{port}"), "GET", "/_ping").text(), "OK");
    assert_eq!(request(&engine.home().join("second.sock"), "GET", "/_ping", &[], b"").text(), "OK");
    assert_eq!(engine.ok(&format!("docker -H tcp://127.0.0.1:{port} run --rm busybox echo far")), "far");
}

#[test]
fn the_socket_is_for_its_group_only() {
    use std::os::unix::fs::PermissionsExt;
    let engine = Engine::start();
    let mode = fs::metadata(engine.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

fn certificates(engine: &Engine) {
    engine.ok(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca-key.pem -out ca.pem -subj /CN=test-ca 2>/dev/null
         for who in server client stranger; do
             openssl req -newkey rsa:2048 -nodes -keyout $who-key.pem -out $who.csr -subj /CN=$who 2>/dev/null
             printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >ext
             if [ $who = stranger ]; then
                 openssl x509 -req -in $who.csr -signkey $who-key.pem -days 2 -out $who.pem -extfile ext 2>/dev/null
             else
                 openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out $who.pem -extfile ext 2>/dev/null
             fi
         done",
    );
}

#[test]
fn tls_lets_in_who_shows_a_certificate() {
    let port = free_port();
    let engine = Engine::with()
        .flags(&format!("-H tcp://127.0.0.1:{port} --tlsverify --tlscacert {{home}}/ca.pem"))
        .flags("--tlscert {home}/server.pem --tlskey {home}/server-key.pem")
        .prepare();
    certificates(&engine);
    engine.boot();
    let with = |who: &str| {
        format!(
            "docker -H tcp://127.0.0.1:{port} --tlsverify --tlscacert ca.pem --tlscert {who}.pem --tlskey {who}-key.pem version"
        )
    };
    engine.ok(&with("client"));
    engine.fails(&with("stranger"));
    engine.fails(&format!("docker -H tcp://127.0.0.1:{port} --tls version"));
    engine.fails(&format!("docker -H tcp://127.0.0.1:{port} version"));
    engine.ok("docker version"); // the unix socket needs none
}

#[test]
fn tls_without_client_certificates() {
    let port = free_port();
    let engine = Engine::with()
        .flags(&format!(
            "-H tcp://127.0.0.1:{port} --tls --tlsverify=false --tlscert {{home}}/server.pem --tlskey {{home}}/server-key.pem"
        ))
        .prepare();
    certificates(&engine);
    engine.ok("cp ca.pem config/"); // where the client looks for it
    engine.boot();
    engine.ok(&format!("docker -H tcp://127.0.0.1:{port} --tls version"));
    engine.fails(&format!("docker -H tcp://127.0.0.1:{port} version"));
}

#[test]
fn tls_flags_that_make_no_sense_are_refused() {
    let engine = Engine::with().flags("--tlsverify --tlscacert {home}/none.pem -H tcp://127.0.0.1:0").prepare();
    engine.boot_without_waiting();
    assert_ne!(engine.ends_by_itself(), 0);
    assert!(engine.log().contains("pem"), "{}", engine.log());
}

#[test]
fn who_comes_during_boot_is_served_afterwards() {
    let engine = Engine::start();
    for _ in 0..10 {
        engine.ok("docker run -d busybox sleep 1000");
    }
    engine.kill_dockerd();
    let _ = fs::remove_file(engine.socket());
    engine.boot_without_waiting();
    // The first moment at which one can connect at all is long before the engine is ready.
    let mut early = eventually("the socket is bound", || UnixStream::connect(engine.socket()).ok());
    early.write_all(b"GET /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").expect("send");
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(answer.matches("\"Id\":").count(), 10, "the list was complete: {answer}");
}

#[test]
fn systemds_sockets_are_taken_over() {
    // What systemd does, done by a shell: descriptor 3, LISTEN_FDS, LISTEN_PID of the process itself.
    let engine = Engine::start();
    let script = format!(
        "python3 - <<'END'
import os, socket
path = '{home}/fd.sock'
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(path)
listener.listen(16)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
pid = os.fork()
if pid == 0:
    os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
    log = os.open('{home}/fd.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1); os.dup2(log, 2)
    os.execvp('dockerd', ['dockerd', '-H', 'fd://', '--data-root', '{home}/fd-data', '--exec-root', '{home}/fd-run',
        '--pidfile', '{home}/fd.pid', '--bridge', 'none'])
print(pid)
END",
        home = engine.home().display()
    );
    let pid = engine.ok(&script);
    let done = engine
        .run(&format!("docker -H unix://{}/fd.sock version --format '{{{{.Server.Os}}}}'", engine.home().display()));
    engine.ok(&format!(
        "kill {pid}; timeout 10 tail --pid={pid} -f /dev/null; nft delete table ip dormouse_none || true"
    ));
    assert_eq!(done.out(), "linux", "{}\n{}", done.report(), engine.ok("cat fd.log"));
}

#[test]
fn debug_routes_only_with_debug() {
    let engine = Engine::with().without_image().start();
    assert_eq!(engine.get("/debug/vars").status, 404);
    assert_eq!(engine.get("/debug/pprof/").status, 404);
    drop(engine);
    let engine = Engine::with().flags("--debug").without_image().start();
    assert_eq!(engine.get("/debug/vars").status, 200);
    assert_eq!(engine.get("/debug/pprof/").status, 200);
}

#[test]
fn a_slow_client_holds_nobody_up() {
    let engine = Engine::start();
    let mut half: Vec<UnixStream> = Vec::new();
    for _ in 0..50 {
        let mut stream = UnixStream::connect(engine.socket()).expect("connect");
        stream.write_all(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 100\r\n\r\n{").expect("send");
        half.push(stream);
    }
    let done = engine.run("docker ps");
    assert!(done.code == 0 && done.took.as_secs() < 3, "{}", done.report());
}
