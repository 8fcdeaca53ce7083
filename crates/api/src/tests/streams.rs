//! Answers that come bit by bit.

use std::time::Duration;

use base64::Engine as _;

use super::client::Client;
use super::fake::{self, Fake};
use crate::server::{Options, Server, serve};

#[tokio::test]
async fn wait_sends_its_headers_at_once() {
    let mut client = Client::new();
    client.send("POST /v1.51/containers/a/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "application/json"));
    assert_eq!(client.fake.last(), "wait a NextExit");
    client.fake.go();
    assert_eq!(client.chunk().await.unwrap().trim_end(), r#"{"StatusCode":7}"#);
    assert_eq!(client.chunk().await, None);
    assert_eq!(client.get("POST /containers/missing/wait").await.status, 404);
}

#[tokio::test]
async fn events_leave_as_they_come() {
    let mut client = Client::new();
    client.send("GET /v1.45/events?since=1.5&until=9999999999 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert!(client.chunk().await.unwrap().contains(r#""Action":"start""#));
    assert!(client.fake.last().contains("since_ns: Some(1500000000)"));
    client.fake.go();
    // `create` of an image is not for 1.45.
    assert!(client.chunk().await.unwrap().contains(r#""Action":"die""#));
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn progress_ends_with_its_error() {
    let mut client = Client::new();
    let auth = base64::engine::general_purpose::URL_SAFE.encode(r#"{"username":"u","password":"p"}"#);
    let request = "POST /images/create?fromImage=reg/a&tag=1&platform=linux/arm64 HTTP/1.1\r\nHost: x\r\n";
    client.send(format!("{request}X-Registry-Auth: {auth}\r\n\r\n")).await;
    let answer = client.answer(false).await;
    assert_eq!(answer.status, 200);
    let expected =
        "{\"status\":\"Pulling\"}\r\n{\"errorDetail\":{\"message\":\"line cut\"},\"error\":\"line cut\"}\r\n";
    assert_eq!(answer.body, expected);
    assert_eq!(client.fake.last(), r#"pull reg/a 1 Some("linux/arm64") Some("u")"#);
    assert_eq!(client.get("POST /images/create?fromImage=missing").await.status, 404);
}

#[tokio::test]
async fn logs_are_framed() {
    let mut client = Client::new();
    let framed = "\u{1}\0\0\0\0\0\0\u{3}out\u{2}\0\0\0\0\0\0\u{3}err";
    for (path, content_type, body) in [
        ("/v1.42/containers/a/logs", "application/vnd.docker.multiplexed-stream", framed),
        ("/v1.41/containers/a/logs", "application/vnd.docker.raw-stream", framed),
        ("/v1.42/containers/tty/logs", "application/vnd.docker.raw-stream", "outerr"),
    ] {
        let answer = client.get(&format!("GET {path}?stdout=1&stderr=1&tail=5&since=3")).await;
        assert_eq!((answer.headers["content-type"].as_str(), answer.body.as_str()), (content_type, body), "{path}");
    }
    let call = client.fake.last();
    assert!(call.contains("tail: Some(5)") && call.contains("since_ns: Some(3000000000)"), "{call}");
    client.get("GET /containers/a/logs?stdout=1&tail=all&since=0&until=0").await;
    let call = client.fake.last();
    assert!(
        call.contains("tail: None") && call.contains("since_ns: None") && call.contains("until_ns: None"),
        "{call}"
    );
}

#[tokio::test]
async fn archives_go_both_ways() {
    let mut client = Client::new();
    let answer = client.get("HEAD /containers/a/archive?path=/etc/hosts").await;
    let stat =
        base64::engine::general_purpose::STANDARD.decode(&answer.headers["x-docker-container-path-stat"]).unwrap();
    let expected = r#"{"name":"/etc/hosts","size":3,"mode":0,"mtime":"0001-01-01T00:00:00Z","linkTarget":""}"#;
    assert_eq!(String::from_utf8(stat).unwrap(), expected);
    let answer = client.get("GET /containers/a/archive?path=/x").await;
    assert_eq!((answer.body.as_str(), answer.headers["content-type"].as_str()), ("tar", "application/x-tar"));
    assert_eq!(client.get("HEAD /containers/missing/archive?path=/x").await.status, 404);
    assert_eq!(client.get("GET /containers/a/archive").await.status, 400);

    let request = "PUT /containers/a/archive?path=/x&noOverwriteDirNonDir=true HTTP/1.1\r\nHost: x\r\n";
    client.send(format!("{request}Transfer-Encoding: chunked\r\n\r\n")).await;
    let chunk = format!("{:x}\r\n{}\r\n", 1024 * 1024, "t".repeat(1024 * 1024));
    for _ in 0..8 {
        client.send(&chunk).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!(client.fake.last(), format!("put /x true {}", 8 * 1024 * 1024));
}

#[tokio::test]
async fn an_import_is_read_to_its_end() {
    let mut client = Client::new();
    let line = "POST /images/create?fromSrc=-&repo=r&tag=t&changes=CMD%20x&changes=ENV%20a=b";
    client.send(format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\ntar")).await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!(client.fake.last(), r#"import r t Imported from - ["CMD x", "ENV a=b"] tar"#);
    assert_eq!(client.get("POST /images/create?fromSrc=http://x/y.tar&repo=r").await.status, 200);
    assert_eq!(client.fake.last(), r#"import r  Imported from http://x/y.tar [] http://x/y.tar"#);
}

#[tokio::test]
async fn a_load_that_fails_says_so_in_its_messages() {
    let mut client = Client::new();
    client.send("POST /images/load?quiet=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nbad").await;
    let answer = client.answer(false).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(r#""error":"not an archive""#), "{}", answer.body);
    assert_eq!(client.fake.last(), "load false");
}

#[tokio::test]
async fn shutdown_lets_running_requests_end_and_cuts_streams() {
    let fake = Fake::default();
    let options = Options { shutdown_grace: Duration::from_millis(200), ..Default::default() };
    let server = Server::new(fake::backends(&fake), options);
    let (mut ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let token = tokio_util::sync::CancellationToken::new();
    let connections = futures::StreamExt::chain(futures::stream::iter([theirs]), futures::stream::pending());
    let served = tokio::spawn(serve(server, connections, token.clone()));
    tokio::io::AsyncWriteExt::write_all(&mut ours, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    token.cancel();
    tokio::time::timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
}
