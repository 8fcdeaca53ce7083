//! Addresses to listeners.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::activation::Activated;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::listener::{Listener, Socket};
use crate::unix::{self, SocketGroup};

/// Connections that may wait, behind a shut gate above all. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the listeners have in common.
#[derive(Clone)]
pub struct BindOptions {
    /// Who may use the unix sockets beside their owner.
    pub group: Option<SocketGroup>,
    /// TLS on TCP (unix sockets never have it).
    pub tls: Option<TlsAcceptor>,
    /// What the first accept waits for.
    pub gate: Gate,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { group: None, tls: None, gate: Gate::opened() }
    }
}

/// Binds all addresses, or none: at the first error what was bound is closed again (and unlinked). Sockets from systemd that no
/// address asks for are closed, if any address asks for one. Must be called within a tokio runtime.
pub fn bind_all(addresses: &[Address], options: &BindOptions, activated: &mut Activated) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.extend(bind(address, options, activated)?);
    }
    if addresses.iter().any(|address| matches!(address, Address::Fd(_))) {
        activated.close_rest();
    }
    Ok(listeners)
}

/// Binds one address; `fd://` can be several listeners.
pub fn bind(address: &Address, options: &BindOptions, activated: &mut Activated) -> Result<Vec<Listener>> {
    match address {
        Address::Unix(path) => {
            let (socket, file) = unix::bind(path, options.group.as_ref(), BACKLOG)?;
            let socket = Socket::Unix(socket);
            Ok(vec![Listener::new(address.to_string(), socket, None, options.gate.clone(), Some(file))])
        }
        Address::Tcp { host, port } => {
            let socket = Socket::Tcp(tcp(host, *port)?);
            let gate = options.gate.clone();
            Ok(vec![Listener::new(address.to_string(), socket, options.tls.clone(), gate, None)])
        }
        Address::Fd(which) => {
            let sockets = activated.take(which)?;
            let listener = |(fd, socket)| {
                let tls = if matches!(socket, Socket::Tcp(_)) { options.tls.clone() } else { None };
                Listener::new(format!("fd://{fd}"), socket, tls, options.gate.clone(), None)
            };
            Ok(sockets.into_iter().map(listener).collect())
        }
    }
}

fn tcp(host: &str, port: u16) -> Result<TcpListener> {
    let failed = |source: io::Error| Error::Tcp { address: format!("{host}:{port}"), source };
    let resolved: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    // As Go does: a name that has both is its IPv4 address.
    let chosen = resolved.iter().find(|address| address.is_ipv4()).or(resolved.first());
    let Some(address) = chosen else { return Err(failed(io::Error::other("the name has no address"))) };
    listen(*address).map_err(failed)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // `[::]` is every address, of either version.
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}
