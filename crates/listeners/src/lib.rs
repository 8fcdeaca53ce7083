//! `proto://addr` to bound sockets: tcp, unix, sockets passed by systemd; TLS; the accept gate.
//!
//! ```text
//!   "unix:///run/x.sock"  Address::parse   bind_all     Listener::accept       Incoming::establish
//!   "tcp://0.0.0.0:2376" ───────────────▶ ──────────▶ (waits for the gate) ──▶ (TLS handshake) ──▶ Stream
//!   "fd://"                                 at once
//! ```
//!
//! [`bind_all`] binds and listens on every address at once or on none; [`Gate::open`] is what lets [`Listener::accept`]
//! return. Connections made in between wait in the kernel's backlog and are served afterwards: nobody is refused because the
//! daemon is still starting.
//!
//! What must never happen here: a socket of a living daemon being unlinked, a unix socket being connectable before its owner
//! and mode are right, or a slow handshake holding up the next connection.
#![forbid(unsafe_code)]

mod activation;
mod address;
mod bind;
mod error;
mod gate;
mod listener;
mod stream;
mod tls;
mod unix;

pub use activation::Activated;
pub use address::{Address, DEFAULT_UNIX_SOCKET, FdSelector};
pub use bind::{BindOptions, bind, bind_all};
pub use error::{Error, Result};
pub use gate::Gate;
pub use listener::{Incoming, Listener};
pub use stream::{Peer, Stream};
pub use tls::{TlsFiles, acceptor};
pub use tokio_rustls::TlsAcceptor;
pub use unix::SocketGroup;
