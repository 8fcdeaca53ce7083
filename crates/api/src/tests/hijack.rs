//! Connections that become a process's.

use tokio::io::AsyncWriteExt as _;

use super::client::Client;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

#[tokio::test]
async fn attach_with_upgrade_goes_both_ways() {
    let mut client = Client::new();
    let line = "POST /v1.51/containers/a/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x";
    client.send(format!("{line} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")).await;
    let head = client.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(head.headers["content-type"], "application/vnd.docker.multiplexed-stream");
    assert_eq!((head.headers["connection"].as_str(), head.headers["upgrade"].as_str()), ("Upgrade", "tcp"));
    assert_eq!(head.headers["api-version"], "1.51");
    assert!(client.fake.last().contains(r#"stdin: true, stdout: true, stderr: false, detach_keys: Some("ctrl-x")"#));
    client.send("hello").await;
    assert_eq!(client.bytes(13).await, b"\x01\0\0\0\0\0\0\x05hello");
    // The end of input reaches the process, and what it says after that still comes back.
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"\x02\0\0\0\0\0\0\x03bye");
}

#[tokio::test]
async fn attach_without_upgrade_is_raw_from_the_first_byte() {
    let mut client = Client::new();
    // Input sent along with the request is not lost.
    client.send("POST /containers/tty/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\nearly").await;
    let head = client.head().await;
    assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "application/vnd.docker.raw-stream"));
    assert!(!head.headers.contains_key("transfer-encoding"));
    assert_eq!(client.bytes(5).await, b"early");
    client.send(" late").await;
    assert_eq!(client.bytes(5).await, b" late");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye");
}

#[tokio::test]
async fn old_versions_do_not_know_the_multiplexed_type() {
    let mut client = Client::new();
    client.send(format!("POST /v1.41/containers/a/attach?stdout=1 HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n")).await;
    let head = client.head().await;
    assert_eq!(head.headers["content-type"], "application/vnd.docker.raw-stream");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"\x02\0\0\0\0\0\0\x03bye");
}

#[tokio::test]
async fn exec_start_has_a_body_and_then_a_stream() {
    let mut client = Client::new();
    let body = r#"{"Detach":false,"Tty":true}"#;
    let length = body.len();
    client
        .send(format!(
            "POST /v1.51/exec/e1/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{UPGRADE}\r\n{body}"
        ))
        .await;
    let head = client.head().await;
    assert_eq!((head.status, head.headers["content-type"].as_str()), (101, "application/vnd.docker.raw-stream"));
    let big = vec![b'x'; 300_000];
    let (mut reader, mut writer) = tokio::io::split(&mut client.stream);
    let (_, echoed) = tokio::join!(
        async {
            writer.write_all(&big).await.unwrap();
            writer.shutdown().await.unwrap();
        },
        async {
            let mut echoed = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut echoed).await.unwrap();
            echoed
        }
    );
    assert_eq!(echoed.len(), big.len() + 3);
    assert!(echoed.ends_with(b"bye"));
}

#[tokio::test]
async fn an_error_before_the_takeover_is_an_answer() {
    let mut client = Client::new();
    let answer = client.get("POST /containers/missing/attach?stdout=1").await;
    assert_eq!((answer.status, answer.body.trim_end()), (404, r#"{"message":"No such container: missing"}"#));
    let answer = client.json("POST /exec/busy/start", "{}").await;
    assert_eq!(answer.status, 409);
    assert_eq!(client.get("GET /_ping").await.status, 200);
}
