//! Statuses, versions, headers, and input that is not as it should be.

use super::client::Client;
use crate::server::Options;

#[tokio::test]
async fn ping_tells_what_clients_look_for() {
    let mut client = Client::new();
    let answer = client.get("GET /_ping").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    for (name, value) in [
        ("api-version", "1.51"),
        ("docker-experimental", "true"),
        ("ostype", "linux"),
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("content-type", "text/plain; charset=utf-8"),
    ] {
        assert_eq!(answer.headers[name], value, "{name}");
    }
    assert!(answer.headers["server"].starts_with("Dormouse/"));
    let answer = client.get("HEAD /v1.24/_ping").await;
    assert_eq!((answer.status, answer.headers["content-length"].as_str()), (200, "0"));
}

#[tokio::test]
async fn versions_out_of_range_are_refused_in_dockers_words() {
    let mut client = Client::new();
    let answer = client.get("GET /v1.52/info").await;
    assert_eq!(answer.status, 400);
    let expected = r#"{"message":"client version 1.52 is too new. Maximum supported API version is 1.51"}"#;
    assert_eq!(answer.body.trim_end(), expected);
    let answer = client.get("GET /v1.20/info").await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (400, "application/json"));
    let expected = r#"{"message":"client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}"#;
    assert_eq!(answer.body.trim_end(), expected);
    for version in ["v1.24", "v1.51"] {
        assert_eq!(client.get(&format!("GET /{version}/version")).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_page_not_found() {
    let mut client = Client::new();
    for line in [
        "GET /",
        "GET /nope",
        "GET /v1.41/nope",
        "PUT /containers/json",
        "DELETE /_ping",
        "POST /info",
        "GET /containers/",
        "POST /containers//start",
        "GET /containers/a",
        "GET /debug/vars",
        "PATCH /images/a/json",
    ] {
        let answer = client.get(line).await;
        assert_eq!((answer.status, answer.body.trim_end()), (404, r#"{"message":"page not found"}"#), "{line}");
        assert_eq!(answer.headers["api-version"], "1.51");
    }
    assert_eq!(client.get("GET /containers/%zz/json").await.status, 400);
    assert_eq!(client.get("OPTIONS /whatever").await.status, 200);
}

#[tokio::test]
async fn kinds_become_statuses() {
    let mut client = Client::new();
    for (name, status) in [
        ("fine", 200),
        ("missing", 404),
        ("bad", 400),
        ("busy", 409),
        ("already", 304),
        ("forbidden", 403),
        ("unauthorized", 401),
        ("unavailable", 503),
        ("unbuilt", 501),
        ("broken", 500),
    ] {
        let answer = client.get(&format!("GET /containers/{name}/json")).await;
        assert_eq!(answer.status, status, "{name}");
        if status >= 400 {
            assert_eq!(answer.body.trim_end(), format!(r#"{{"message":"No such container: {name}"}}"#));
        }
    }
    assert_eq!(client.get("POST /containers/a/start").await.status, 204);
    assert_eq!(client.get("POST /containers/running/start").await.status, 304);
    let answer = client.get("POST /containers/busy/kill").await;
    assert!(answer.body.contains("cannot kill container: busy: No such container: busy"));
    // A panic is a 500, and the connection lives on.
    assert_eq!(client.get("POST /containers/a/pause").await.status, 500);
    assert_eq!(client.get("GET /_ping").await.status, 200);
}

#[tokio::test]
async fn bodies_are_checked() {
    let mut client = Client::new();
    let create = "POST /v1.51/containers/create?name=web&platform=linux/amd64";
    let answer = client.json(create, r#"{"Image":"busybox","Cmd":["true"]}"#).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body.trim_end(), r#"{"Id":"abc","Warnings":[]}"#);
    assert_eq!(client.fake.last(), r#"create Some("web") Some("linux/amd64") busybox StrSlice(["true"])"#);
    for (body, message) in [
        ("", "invalid JSON: got EOF while reading request body"),
        ("{", "invalid JSON: unexpected EOF"),
        ("{}{}", "unexpected content after JSON"),
        ("nonsense", "invalid JSON: "),
        (r#"{"Image":5}"#, "invalid JSON: "),
        ("{}", "config cannot be empty in order to create a container"),
    ] {
        let answer = client.json(create, body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.contains(message), "{body}: {}", answer.body);
    }
    client
        .send("POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    let answer = client.answer(false).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("unsupported Content-Type header (text/plain): must be 'application/json'"));
    client.send("POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await;
    let answer = client.answer(false).await;
    assert!(answer.body.contains("malformed Content-Type header (): mime: no media type"));
}

#[tokio::test]
async fn bodies_are_bounded() {
    let mut client = Client::new();
    let head = "POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    client.send(format!("{head}Content-Length: 99999999\r\n\r\n")).await;
    assert_eq!(client.answer(false).await.status, 413);
    let mut client = Client::new();
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
    let chunk = format!("{:x}\r\n{}\r\n", 1024 * 1024, " ".repeat(1024 * 1024));
    for _ in 0..5 {
        // The server may have stopped reading; its answer is there all the same.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, chunk.as_bytes()).await;
    }
    let answer = client.answer(false).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("http: request body too large"));
}

#[tokio::test]
async fn names_may_have_slashes() {
    let mut client = Client::new();
    for path in ["/images/a/b:1/json", "/images/a%2Fb%3A1/json", "/v1.43/images/a/b:1/json"] {
        assert_eq!(client.get(&format!("GET {path}")).await.status, 200);
        assert_eq!(client.fake.last(), "image a/b:1");
    }
    client.get("DELETE /images/reg:5000/a/b@sha256:12?force=1&noprune=1").await;
    assert_eq!(client.fake.last(), "rmi reg:5000/a/b@sha256:12 true false");
    client.get("GET /images/a/b/history").await;
    assert_eq!(client.fake.last(), "history a/b");
    assert_eq!(client.get("DELETE /images/%20").await.status, 400);
}

#[tokio::test]
async fn parameters_arrive() {
    let mut client = Client::new();
    for (line, call) in [
        ("POST /containers/a/stop?t=5&signal=SIGINT", r#"stop a Some("SIGINT") Some(5)"#),
        ("POST /v1.41/containers/a/stop?t=-1&signal=SIGINT", "stop a None Some(-1)"),
        ("POST /containers/a/rename?name=b", "rename a b"),
        ("POST /containers/a/resize?h=24&w=80", "resize 24 80"),
        ("GET /containers/a/top?ps_args=-ef%20x", "top -ef x"),
        ("GET /containers/a/stats?stream=0&one-shot=1", "stats false true"),
        ("DELETE /containers/a?force=1&v=1", "remove a RemoveOptions { force: true, volumes: true, link: false }"),
        ("GET /containers/a/checkpoints?dir=/x", r#"checkpoints a Some("/x") false"#),
        ("GET /containers/a/checkpoints?verify=1", "checkpoints a None true"),
        ("DELETE /containers/a/checkpoints/c1", "remove checkpoint a c1 None"),
        (
            "POST /containers/a/start?checkpoint=c1&checkpoint-dir=/x",
            r#"start a StartOptions { checkpoint: Some("c1"), checkpoint_dir: Some("/x") }"#,
        ),
        ("POST /images/a/tag?repo=r&tag=t", "tag a r t"),
        ("GET /system/df?type=image&type=volume", r#"df ["image", "volume"]"#),
        ("GET /images/get?names=a&names=b", r#"save ["a", "b"]"#),
    ] {
        let answer = client.get(line).await;
        assert!(answer.status < 300, "{line}: {} {}", answer.status, answer.body);
        assert_eq!(client.fake.last(), call, "{line}");
    }
    for line in [
        "POST /containers/a/resize?h=x&w=80",
        "POST /containers/a/stop?t=x",
        "GET /containers/json?limit=x",
        "GET /containers/json?filters=x",
        "GET /containers/a/logs",
        "POST /containers/a/wait?condition=x",
        "GET /events?since=5&until=3",
        "GET /system/df?type=x",
        "GET /networks?filters={%22bogus%22:[%22x%22]}",
        "GET /networks/a?verbose=maybe",
    ] {
        let answer = client.get(line).await;
        assert_eq!(answer.status, 400, "{line}: {}", answer.body);
    }
}

#[tokio::test]
async fn filters_arrive() {
    let mut client = Client::new();
    client
        .get("GET /containers/json?all=1&limit=3&filters=%7B%22status%22%3A%7B%22exited%22%3Atrue%7D%7D&before=x")
        .await;
    let call = client.fake.last();
    assert!(call.contains("all: true") && call.contains("limit: Some(3)"), "{call}");
    assert!(call.contains(r#""status": {"exited"}"#) && call.contains(r#""before": {"x"}"#), "{call}");
    client.get("POST /v1.41/volumes/prune").await;
    assert!(client.fake.last().contains(r#""all": {"true"}"#));
}

#[tokio::test]
async fn json_bodies_arrive() {
    let mut client = Client::new();
    let answer = client.json("POST /containers/a/update", r#"{"Memory":5,"PidsLimit":-3}"#).await;
    assert_eq!((answer.status, client.fake.last().as_str()), (200, "update 5 Some(0)"));
    let answer = client.json("POST /containers/a/checkpoints", r#"{"CheckpointID":"c","Exit":true}"#).await;
    assert_eq!((answer.status, client.fake.last().as_str()), (201, "checkpoint a c true"));
    assert!(answer.body.contains(r#""Name":"c""#) && answer.body.contains(r#""TotalMicros":7"#), "{}", answer.body);
    let answer = client.get("GET /containers/a/checkpoints/preflight").await;
    assert!(answer.body.contains(r#""Possible":true"#));
    let answer = client.json("POST /containers/a/exec", r#"{"Cmd":["ls"]}"#).await;
    assert_eq!((answer.status, answer.body.trim_end()), (201, r#"{"Id":"e1"}"#));
    assert_eq!(client.json("POST /containers/a/exec", "{}").await.status, 400);
    assert_eq!(client.json("POST /exec/e1/start", r#"{"Detach":true}"#).await.status, 200);
    assert_eq!(client.json("POST /networks/n/disconnect", r#"{"Container":"a","Force":true}"#).await.status, 200);
    assert_eq!(client.fake.last(), "disconnect n a true");
    assert_eq!(client.json("POST /auth", r#"{"username":"u","password":"p"}"#).await.status, 200);
    assert_eq!(client.fake.last(), "auth u");
    assert_eq!(client.get("POST /commit?container=a&pause=0").await.status, 201);
    assert_eq!(client.fake.last(), "commit a false false");
    for (body, has_config) in [("null\n", false), ("{}", true)] {
        assert_eq!(client.json("POST /commit?container=a", body).await.status, 201);
        assert_eq!(client.fake.last(), format!("commit a true {has_config}"));
    }
    assert_eq!(client.json("POST /containers/a/start", r#"{"Binds":["a:b"]}"#).await.status, 400);
}

#[tokio::test]
async fn old_clients_get_old_images() {
    let mut client = Client::new();
    let old = client.get("GET /v1.40/images/json?filter=x").await.body;
    assert!(old.contains(r#""VirtualSize":5"#) && old.contains("<none>:<none>") && old.contains(r#""Containers":-1"#));
    assert!(client.fake.last().contains(r#""reference": {"x"}"#));
    let new = client.get("GET /images/json").await.body;
    assert!(!new.contains("VirtualSize") && new.contains(r#""Containers":2"#));
    assert!(client.get("GET /v1.49/images/a/json").await.body.contains(r#""OpenStdin":false"#));
    let new = client.get("GET /images/a/json").await.body;
    assert!(new.contains(r#""Entrypoint":null"#) && !new.contains("OpenStdin"), "{new}");
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let mut client = Client::new();
    for (line, status, word) in [
        ("GET /swarm", 503, "This node is not a swarm manager."),
        ("GET /services", 503, "This node is not a swarm manager."),
        ("GET /nodes/x", 503, "This node is not a swarm manager."),
        ("POST /secrets/create", 503, "This node is not a swarm manager."),
        ("POST /swarm/leave", 503, "This node is not part of a swarm"),
        ("POST /swarm/init", 501, "not implemented"),
        ("POST /build", 501, "not implemented"),
        ("POST /session", 501, "not implemented"),
        ("GET /plugins", 200, "[]"),
        ("GET /plugins/x/json", 404, "not found"),
        ("POST /build/prune", 200, "SpaceReclaimed"),
        ("PUT /volumes/x", 503, "swarm is unavailable"),
        ("GET /containers/a/attach/ws", 400, "not a websocket handshake"),
    ] {
        let answer = client.get(line).await;
        assert_eq!(answer.status, status, "{line}");
        assert!(answer.body.contains(word), "{line}: {}", answer.body);
    }
}

#[tokio::test]
async fn debug_routes_need_debugging() {
    let mut client = Client::with_options(Options { debug: true, ..Default::default() });
    let answer = client.get("GET /debug/vars").await;
    assert!(answer.body.contains("\"resident_kib\""));
    assert_eq!(client.get("GET /debug/pprof/").await.status, 200);
    // Nobody records the tests' own memory.
    assert_eq!(client.get("GET /debug/pprof/heap").await.status, 503);
    assert_eq!(client.get("GET /debug/pprof/mutex").await.status, 501);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_what_it_started() {
    let mut client = Client::new();
    let fake = client.fake.clone();
    client.send("POST /containers/a/restart HTTP/1.1\r\nHost: x\r\n\r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    drop(client);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    fake.go();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(fake.last(), "restarted");
}
