//! Published ports served by this process: for traffic that no firewall rule catches (IPv6, hosts without nftables).
//!
//! One task per bound socket; dropping the [`Proxy`] ends it and frees the port.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::Protocol;
use crate::ports::Bound;

/// A silent UDP exchange ends after this.
const UDP_IDLE: Duration = Duration::from_secs(90);
/// A container that does not take a connection in this time loses it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// UDP clients served at once per port; more are dropped.
const UDP_CLIENTS_MAX: usize = 4096;
/// The largest UDP payload.
const DATAGRAM_BYTES: usize = 65_536;

/// A served port.
pub(crate) struct Proxy {
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Serves `bound` towards `target` on the given runtime.
    pub(crate) fn start(runtime: &tokio::runtime::Handle, bound: Bound, target: SocketAddr) -> Self {
        let task = match bound.binding.protocol {
            Protocol::Tcp => runtime.spawn(run("tcp", serve_tcp(bound, target))),
            Protocol::Udp => runtime.spawn(run("udp", serve_udp(bound, target))),
        };
        Self { task }
    }

    /// Ends it; when this returns, the port is free. Not for async threads.
    pub(crate) fn stop(mut self, runtime: &tokio::runtime::Handle) {
        self.task.abort();
        // An abort is always reported as an error.
        let _ = runtime.block_on(&mut self.task);
    }
}

async fn run(what: &str, serve: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serve.await {
        tracing::warn!(%error, "port proxy ({what}) ended");
    }
}

async fn serve_tcp(bound: Bound, target: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::from_std(StdTcpListener::from(bound.socket))?;
    // Connections live in the set, so that they end with the proxy.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => { connections.spawn(relay(client, target)); }
                Err(error) => {
                    // Out of descriptors, most likely: give others time to close some.
                    tracing::debug!(%error, "port proxy cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) {
    let Ok(Ok(mut server)) = timeout(CONNECT_DEADLINE, TcpStream::connect(target)).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    // An error is one side's hanging up; both are closed by being dropped.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

async fn serve_udp(bound: Bound, target: SocketAddr) -> io::Result<()> {
    let front = StdUdpSocket::from(bound.socket);
    let front = Arc::new(UdpSocket::from_std(front)?);
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut replies: JoinSet<SocketAddr> = JoinSet::new();
    // Not before the first datagram: most ports never see one here.
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            ready = front.readable() => {
                ready?;
                buffer.resize(DATAGRAM_BYTES, 0);
                // ECONNREFUSED of an earlier reply shows here; it concerns one client only.
                let Ok((length, client)) = front.try_recv_from(&mut buffer) else { continue };
                let back = match clients.get(&client) {
                    Some(back) => back.clone(),
                    None if clients.len() >= UDP_CLIENTS_MAX => continue,
                    None => {
                        let Ok(back) = UdpSocket::bind("0.0.0.0:0").await else { continue };
                        if back.connect(target).await.is_err() { continue }
                        let back = Arc::new(back);
                        clients.insert(client, back.clone());
                        replies.spawn(reply(front.clone(), back.clone(), client));
                        back
                    }
                };
                let _ = back.send(&buffer[..length]).await;
            }
            Some(ended) = replies.join_next() => {
                if let Ok(client) = ended { clients.remove(&client); }
            }
        }
    }
}

/// Carries answers to one client until it has been silent for [`UDP_IDLE`].
async fn reply(front: Arc<UdpSocket>, back: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    while let Ok(Ok(())) = timeout(UDP_IDLE, back.readable()).await {
        // Held only while there is something to carry, as there may be many clients.
        let mut buffer = vec![0u8; DATAGRAM_BYTES];
        match back.try_recv(&mut buffer) {
            Ok(length) => {
                let _ = front.send_to(&buffer[..length], client).await;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock) => {}
            Err(_) => break,
        }
    }
    client
}
