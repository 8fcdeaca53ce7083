//! The name service of user-defined networks: a server in every container's namespace at 127.0.0.11:53.
//!
//! Its sockets are made inside the namespace and served by tasks of this process. Port 53 itself is left to the
//! container (it may run a name server of its own): a rule in its namespace leads 127.0.0.11:53 to ours.
//! Names of containers are answered here; everything else is passed on to real servers, from the host's namespace.

mod answer;
mod forward;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::files::NAME_SERVICE;
use crate::{Error, Result, nfnetlink, sandbox};

/// Queries of one container in flight to real servers; more get SERVFAIL at once.
const FORWARDS_MAX: usize = 256;
/// TCP connections of one container at once; more wait in the backlog.
const CONNECTIONS_MAX: usize = 32;
/// A silent TCP connection ends after this.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// The table in the container's namespace.
const RULES_TABLE: &str = "dormouse_dns";
/// Queries larger than this are not looked at.
pub(crate) const QUERY_MAX_BYTES: usize = 4096;

/// What the server of one container knows; asked anew for every query.
pub(crate) trait Zone: Send + Sync + 'static {
    /// Addresses of a name, lower case, without the final dot; `None` if no container has that name.
    fn addresses(&self, name: &str) -> Option<Vec<Ipv4Addr>>;
    /// The name of a container's address.
    fn name_of(&self, address: Ipv4Addr) -> Option<String>;
    /// Servers to ask about anything else; empty if this container may not.
    fn forwarders(&self) -> Vec<IpAddr>;
}

/// What is answered here to a query, for fuzzing.
pub(crate) fn answered(query: &[u8], zone: &dyn Zone) -> Option<Vec<u8>> {
    match answer::answer(query, zone) {
        answer::Answer::Here(reply) => Some(reply),
        answer::Answer::Forward(_) => answer::failure(query),
        answer::Answer::Drop => None,
    }
}

/// A container's running server; ends when dropped.
pub(crate) struct NameServer {
    tasks: [AbortHandle; 2],
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Sockets made in a container's namespace.
pub(crate) struct Sockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
}

impl Sockets {
    /// Binds inside the namespace and redirects port 53 there. Without firewall rules, port 53 itself is taken.
    pub(crate) fn bind(netns: File, with_rules: bool) -> Result<Self> {
        sandbox::in_namespace(netns, || {
            let at = Error::io("name service in sandbox");
            let port = if with_rules { 0 } else { 53 };
            let (udp, tcp) = bind_here(port).map_err(at)?;
            if with_rules {
                let from = SocketAddrV4::new(NAME_SERVICE, 53);
                let redirected = local(udp.local_addr())
                    .and_then(|udp| nfnetlink::redirect(RULES_TABLE, from, udp, local(tcp.local_addr())?));
                redirected.map_err(Error::io("name service rules in sandbox"))?;
            }
            Ok(Self { udp, tcp })
        })
    }
}

fn local(address: io::Result<SocketAddr>) -> io::Result<SocketAddrV4> {
    match address? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

fn bind_here(port: u16) -> io::Result<(StdUdpSocket, StdTcpListener)> {
    let udp = StdUdpSocket::bind((NAME_SERVICE, port))?;
    let tcp = StdTcpListener::bind((NAME_SERVICE, port))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

impl NameServer {
    /// Serves the sockets on the given runtime.
    pub(crate) fn start(runtime: &tokio::runtime::Handle, sockets: Sockets, zone: Arc<dyn Zone>) -> Self {
        let limit = Arc::new(Semaphore::new(FORWARDS_MAX));
        let Sockets { udp, tcp } = sockets;
        let udp = runtime.spawn(ended("udp", serve_udp(udp, zone.clone(), limit.clone())));
        let tcp = runtime.spawn(ended("tcp", serve_tcp(tcp, zone, limit)));
        Self { tasks: [udp.abort_handle(), tcp.abort_handle()] }
    }
}

async fn ended(what: &str, serve: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serve.await {
        tracing::warn!(%error, "name service ({what}) ended");
    }
}

async fn serve_udp(socket: StdUdpSocket, zone: Arc<dyn Zone>, limit: Arc<Semaphore>) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                ready?;
                let mut buffer = vec![0u8; QUERY_MAX_BYTES];
                let Ok((length, client)) = socket.try_recv_from(&mut buffer) else { continue };
                buffer.truncate(length);
                match answer::answer(&buffer, &*zone) {
                    answer::Answer::Drop => {}
                    answer::Answer::Here(reply) => { let _ = socket.send_to(&reply, client).await; }
                    answer::Answer::Forward(servers) => {
                        let Ok(permit) = limit.clone().try_acquire_owned() else {
                            if let Some(reply) = answer::failure(&buffer) { let _ = socket.send_to(&reply, client).await; }
                            continue;
                        };
                        let socket = socket.clone();
                        forwards.spawn(async move {
                            let reply = forward::udp(&buffer, &servers).await.or_else(|| answer::failure(&buffer));
                            if let Some(reply) = reply { let _ = socket.send_to(&reply, client).await; }
                            drop(permit);
                        });
                    }
                }
            }
            Some(_) = forwards.join_next() => {}
        }
    }
}

async fn serve_tcp(listener: StdTcpListener, zone: Arc<dyn Zone>, limit: Arc<Semaphore>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => { connections.spawn(serve_connection(stream, zone.clone(), limit.clone())); }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// RFC 1035 §4.2.2: every message is preceded by its length in two bytes.
async fn serve_connection(mut stream: TcpStream, zone: Arc<dyn Zone>, limit: Arc<Semaphore>) {
    while let Ok(Ok(query)) = timeout(TCP_IDLE, read_message(&mut stream)).await {
        let reply = match answer::answer(&query, &*zone) {
            answer::Answer::Drop => return,
            answer::Answer::Here(reply) => reply,
            answer::Answer::Forward(servers) => {
                let forwarded = match limit.try_acquire() {
                    Ok(_permit) => forward::tcp(&query, &servers).await,
                    Err(_) => None,
                };
                let Some(reply) = forwarded.or_else(|| answer::failure(&query)) else { return };
                reply
            }
        };
        if !matches!(timeout(TCP_IDLE, write_message(&mut stream, &reply)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0u8; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    stream.write_all(&framed).await
}
