//! Addresses to listen on, as they are written.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Where dockerd listens when it is told nothing.
pub const DEFAULT_UNIX_SOCKET: &str = "/var/run/docker.sock";

/// IANA's port for Docker's API in clear text.
const DEFAULT_PORT: u16 = 2375;
/// IANA's port for Docker's API over TLS.
const DEFAULT_TLS_PORT: u16 = 2376;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix://path`.
    Unix(PathBuf),
    /// `tcp://host:port`.
    Tcp {
        /// Name or address, an IPv6 address without its brackets.
        host: String,
        /// Port, never 0.
        port: u16,
    },
    /// `fd://…`: sockets passed by systemd.
    Fd(FdSelector),
}

/// Which of the sockets passed by systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FdSelector {
    /// `fd://` or `fd://*`.
    All,
    /// `fd://3`: the descriptor's number.
    Number(u32),
    /// `fd://docker.socket`: the `FileDescriptorName=` in the unit.
    Name(String),
}

impl Address {
    /// Parses a `-H` of dockerd: everything may be left out. `tls` chooses the default port, and what an empty address is.
    pub fn parse(text: &str, tls: bool) -> Result<Self> {
        let text = text.trim();
        let invalid = |reason: String| Error::InvalidAddress { address: text.to_owned(), reason };
        let default_port = if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
        match text.split_once("://") {
            None if text.is_empty() && tls => Ok(Self::Tcp { host: "localhost".to_owned(), port: default_port }),
            None if text.is_empty() => Ok(Self::Unix(DEFAULT_UNIX_SOCKET.into())),
            None => tcp(text, default_port).map_err(invalid),
            Some(("tcp", rest)) => tcp(rest, default_port).map_err(invalid),
            Some(("unix", "")) => Ok(Self::Unix(DEFAULT_UNIX_SOCKET.into())),
            Some(("unix", path)) if path.contains("://") => Err(invalid(format!("invalid unix address: {path}"))),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("fd", which)) => Ok(Self::Fd(selector(which))),
            Some((proto, _)) => Err(invalid(format!("unsupported proto '{proto}'"))),
        }
    }

    /// Parses an address that has to be complete, as docker-containerd's `--listen`.
    pub fn parse_complete(text: &str) -> Result<Self> {
        let invalid = |reason: String| Error::InvalidAddress { address: text.to_owned(), reason };
        match text.split_once("://") {
            None => Err(Error::NoProtocol(text.to_owned())),
            Some(("tcp", rest)) => tcp(rest, 0).map_err(invalid),
            Some(("unix", "")) => Err(invalid("the path is missing".to_owned())),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("fd", which)) => Ok(Self::Fd(selector(which))),
            Some((proto, _)) => Err(Error::InvalidProtocol(proto.to_owned())),
        }
    }
}

/// `host`, `host:port`, `:port`, `[v6]:port`, nothing. A default port of 0 means that one has to be given.
fn tcp(rest: &str, default_port: u16) -> Result<Address, String> {
    let rest = match rest.split_once('/') {
        None => rest,
        Some((before, "")) if default_port == 0 => before,
        Some(_) => return Err("should not contain a path element".to_owned()),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or("missing ']' in host")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("invalid IPv6 address: {host}"));
            }
            (host, after)
        }
        None => rest.split_at(rest.rfind(':').unwrap_or(rest.len())),
    };
    let port = match port.strip_prefix(':') {
        None | Some("") if port.is_empty() || port == ":" => default_port,
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(format!("invalid port: {digits}"))?,
        None => return Err(format!("invalid port: {port}")),
    };
    if port == 0 {
        return Err("the port is missing".to_owned());
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#' | '[' | ']' | '%');
    if host.contains(forbidden) || (host.contains(':') && !rest.starts_with('[')) {
        return Err(format!("invalid host: {host}"));
    }
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(Address::Tcp { host: host.to_owned(), port })
}

fn selector(which: &str) -> FdSelector {
    match which {
        "" | "*" => FdSelector::All,
        name => name.parse().map_or_else(|_| FdSelector::Name(name.to_owned()), FdSelector::Number),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Fd(FdSelector::All) => f.write_str("fd://"),
            Self::Fd(FdSelector::Number(number)) => write!(f, "fd://{number}"),
            Self::Fd(FdSelector::Name(name)) => write!(f, "fd://{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerds_forms() {
        for (text, parsed) in [
            ("", "unix:///var/run/docker.sock"),
            (" unix:// ", "unix:///var/run/docker.sock"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://:7777", "tcp://localhost:7777"),
            ("tcp://0.0.0.0", "tcp://0.0.0.0:2375"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
            ("example.org:5555", "tcp://example.org:5555"),
            (":5555", "tcp://localhost:5555"),
            ("fd://", "fd://"),
            ("fd://*", "fd://"),
            ("fd://3", "fd://3"),
            ("fd://docker.socket", "fd://docker.socket"),
        ] {
            assert_eq!(Address::parse(text, false).unwrap().to_string(), parsed, "{text}");
        }
        assert_eq!(Address::parse("tcp://", true).unwrap().to_string(), "tcp://localhost:2376");
        assert_eq!(Address::parse("", true).unwrap().to_string(), "tcp://localhost:2376");
    }

    #[test]
    fn dockers_words() {
        for (text, words) in [
            ("udp://x", "invalid bind address (udp://x): unsupported proto 'udp'"),
            ("tcp://x/y", "invalid bind address (tcp://x/y): should not contain a path element"),
            ("tcp://x:0", "invalid bind address (tcp://x:0): invalid port: 0"),
            ("tcp://x:y", "invalid bind address (tcp://x:y): invalid port: y"),
            ("tcp://x:70000", "invalid bind address (tcp://x:70000): invalid port: 70000"),
            ("tcp://a:b:1", "invalid bind address (tcp://a:b:1): invalid host: a:b"),
            ("tcp://[::1", "invalid bind address (tcp://[::1): missing ']' in host"),
            ("tcp://[::1]x", "invalid bind address (tcp://[::1]x): invalid port: x"),
            ("tcp://[x]", "invalid bind address (tcp://[x]): invalid IPv6 address: x"),
            ("unix://tcp://x", "invalid bind address (unix://tcp://x): invalid unix address: tcp://x"),
        ] {
            assert_eq!(Address::parse(text, false).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn containerds_forms() {
        assert_eq!(Address::parse_complete("unix:///x.sock").unwrap(), Address::Unix("/x.sock".into()));
        assert_eq!(Address::parse_complete("tcp://127.0.0.1:1").unwrap().to_string(), "tcp://127.0.0.1:1");
        for (text, words) in [
            ("foo", "bad listen address format foo, expected proto://address"),
            ("http://x", "invalid protocol format: \"http\""),
            ("tcp://x", "invalid bind address (tcp://x): the port is missing"),
            ("unix://", "invalid bind address (unix://): the path is missing"),
        ] {
            assert_eq!(Address::parse_complete(text).unwrap_err().to_string(), words);
        }
    }
}
