//! Passing a query on, byte for byte, to the first real server that answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::{read_message, write_message};

/// Each server has this long.
const DEADLINE: Duration = Duration::from_secs(4);
/// More servers than this are not tried, as with the C library.
const SERVERS_MAX: usize = 3;
/// The largest UDP answer that is carried.
const ANSWER_MAX_BYTES: usize = 65_535;
const PORT: u16 = 53;

pub(super) async fn udp(query: &[u8], servers: &[IpAddr]) -> Option<Vec<u8>> {
    for server in servers.iter().take(SERVERS_MAX) {
        if let Some(reply) = udp_one(query, *server).await {
            return Some(reply);
        }
    }
    None
}

async fn udp_one(query: &[u8], server: IpAddr) -> Option<Vec<u8>> {
    let from: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A fresh, connected socket: a random port, and answers from that server only.
    let socket = UdpSocket::bind((from, 0)).await.ok()?;
    socket.connect((server, PORT)).await.ok()?;
    socket.send(query).await.ok()?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        timeout_at(deadline, socket.readable()).await.ok()?.ok()?;
        let mut reply = vec![0u8; ANSWER_MAX_BYTES];
        match socket.try_recv(&mut reply) {
            Ok(length) if length >= 12 && reply[..2] == query[..2] => {
                reply.truncate(length);
                reply.shrink_to_fit();
                return Some(reply);
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

pub(super) async fn tcp(query: &[u8], servers: &[IpAddr]) -> Option<Vec<u8>> {
    for server in servers.iter().take(SERVERS_MAX) {
        if let Ok(Some(reply)) = timeout(DEADLINE, tcp_one(query, *server)).await {
            return Some(reply);
        }
    }
    None
}

async fn tcp_one(query: &[u8], server: IpAddr) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((server, PORT)).await.ok()?;
    write_message(&mut stream, query).await.ok()?;
    let reply = read_message(&mut stream).await.ok()?;
    (reply.len() >= 12 && reply[..2] == query[..2]).then_some(reply)
}
