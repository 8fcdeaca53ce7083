//! What arrives on the socket that is not as it should be.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Daemon, Oci};
use containerd_api::types;
use tonic::Code;

with_each_runtime! { a_deadline_is_kept_by_the_server }

/// A connection as grpc-go 1.0 opens it, as far as the headers go.
fn request(authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x44, b"/types.API/GetServerVersion".len() as u8];
    block.extend_from_slice(b"/types.API/GetServerVersion");
    block.extend_from_slice(&[0x41, authority.len() as u8]);
    block.extend_from_slice(authority);
    block.extend_from_slice(&[0x5f, 16]);
    block.extend_from_slice(b"application/grpc");
    block.extend_from_slice(&[0x40, 2]);
    block.extend_from_slice(b"te");
    block.push(8);
    block.extend_from_slice(b"trailers");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for (stream, block) in [(1_u8, block), (3, vec![0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe])] {
        bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, stream]);
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&[0, 0, 5, 0, 1, 0, 0, 0, stream, 0, 0, 0, 0, 0]);
    }
    bytes
}

/// The kinds of the frames that come back, with the stream each belongs to, until `last` of them are trailers.
fn frames(stream: &mut UnixStream, trailers: usize) -> Vec<(u8, u8, u8)> {
    let mut found = Vec::new();
    let mut head = [0; 9];
    while found.iter().filter(|(kind, flags, _)| *kind == 1 && flags & 1 != 0).count() < trailers {
        if stream.read_exact(&mut head).is_err() {
            break;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        found.push((head[3], head[4], head[8]));
        if head[3] == 3 || head[3] == 7 {
            break;
        }
    }
    found
}

#[tokio::test]
async fn a_socket_path_as_authority_is_served_again_and_again() {
    let daemon = Daemon::start(Oci::Runc).await;
    for authority in [&b"/var/run/docker/libcontainerd/docker-containerd.sock"[..], b"unix", b"a b"] {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(&request(authority)).unwrap();
        let frames = frames(&mut stream, 2);
        let text = String::from_utf8_lossy(authority);
        assert!(!frames.iter().any(|(kind, ..)| *kind == 3 || *kind == 7), "{text}: {frames:?}");
        for id in [1, 3] {
            assert!(frames.iter().any(|(kind, _, s)| *kind == 0 && *s == id), "{text}: no data for {id} in {frames:?}");
        }
    }
}

/// `Events` and then `CreateContainer`-like calls need a path and an authority only; the rest is as in [`request`].
fn call(path: &str, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 4]);
    block.extend_from_slice(b"unix");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(extra) {
        block.extend_from_slice(&[0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    bytes
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = body.len() as u8;
    let mut bytes = vec![0, 0, 5 + length, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, length];
    bytes.extend_from_slice(body);
    bytes
}

/// dockerd 17.03 never asks for events again once it was told GOAWAY, or once the stream was ended with a status while the
/// connection was still there.
#[tokio::test]
async fn a_stop_just_closes_the_connections() {
    let mut daemon = Daemon::start(Oci::Runc).await;
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&[call("/types.API/Events", &[]), message(&[])].concat()).unwrap();
    // The first event shows that the stream is served.
    daemon.run("a", &["true"]).await;
    daemon.wait_event("exit a init 0").await;
    assert_eq!(daemon.terminate(), Some(0));
    let found = frames(&mut stream, 1);
    assert!(found.iter().any(|(kind, ..)| *kind == 0), "no event: {found:?}");
    assert!(
        !found.iter().any(|(kind, flags, _)| *kind == 7 || (*kind == 1 && flags & 1 != 0)),
        "a farewell: {found:?}"
    );
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the connection is open or broken");
}

/// A deadline that passes while a container starts: code 4 on the wire, and the start is taken back.
async fn a_deadline_is_kept_by_the_server(oci: Oci) {
    let daemon = Daemon::start(oci).await;
    let script = "for a; do [ \"$a\" = create ] && exec sleep 1000; done; exec RUNTIME \"$@\"";
    let slow = daemon.script("slow-runtime", &script.replace("RUNTIME", oci.name()));
    let bundle = daemon.bundle("a", &["true"]);
    let request = types::CreateContainerRequest { runtime: slow.clone(), ..daemon.request("a", &bundle) };
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let body = prost::Message::encode_to_vec(&request);
    let call = call("/types.API/CreateContainer", &[("grpc-timeout", "300m")]);
    stream.write_all(&[call, message(&body)].concat()).unwrap();
    let trailers = loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == 1 && head[4] & 1 != 0 {
            break payload;
        }
    };
    let mut decoder = common::hpack_strings(&trailers);
    decoder.retain(|text| text == "4" || text.contains("deadline"));
    assert!(decoder.iter().any(|text| text.contains("context")), "{decoder:?}");
    assert!(decoder.contains(&"4".to_owned()), "{decoder:?}");
    daemon.assert_clean().await;

    // The same when the client loses its patience and says so, or just goes away.
    let request =
        types::CreateContainerRequest { runtime: slow, ..daemon.request("b", &daemon.bundle("b", &["true"])) };
    let creating = daemon.create(request);
    assert!(tokio::time::timeout(Duration::from_millis(300), creating).await.is_err());
    daemon.assert_clean().await;
    assert_eq!(daemon.stored().await, Vec::<String>::new());
    daemon.run("a", &["true"]).await;
    daemon.run("b", &["true"]).await;
}

#[tokio::test]
async fn garbage_ends_only_its_own_connection() {
    let daemon = Daemon::start(Oci::Runc).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 100],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(daemon.state("").await.is_ok());
    }
}

#[tokio::test]
async fn an_oversized_message_is_resource_exhausted() {
    let daemon = Daemon::start(Oci::Runc).await;
    let request = types::StateRequest { id: "x".repeat(5 << 20) };
    let refused = daemon.client.clone().state(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(daemon.state("").await.is_ok());
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let daemon = Daemon::start(Oci::Runc).await;
    let mut client = tonic::client::Grpc::new(containerd_api::connect(&daemon.socket()).await.unwrap());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<types::StateRequest, types::StateResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/types.API/NoSuch");
    let refused = client.unary(tonic::Request::new(types::StateRequest::default()), path, codec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}
