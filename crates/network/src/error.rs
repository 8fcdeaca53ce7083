//! What can go wrong, in the words a Docker user knows.

use errors::{Kind, Kinded};

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No network has that name or id.
    #[error("network {0} not found")]
    NotFound(String),
    /// No such network driver.
    #[error("plugin {0:?} not found")]
    NoDriver(String),
    /// An id prefix names several networks.
    #[error("network {0} is ambiguous ({1} matches found based on ID prefix)")]
    Ambiguous(String, usize),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    Exists(String),
    /// `bridge`, `host` and `none` stay.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    /// The name of a predefined network was asked for.
    #[error("operation is not permitted on predefined {0} network ")]
    PredefinedCreate(String),
    /// Containers are still on it.
    #[error("error while removing network: network {network} has active endpoints ({endpoints})")]
    ActiveEndpoints {
        /// The network's name.
        network: String,
        /// Who is on it: `name:"web" id:"0123456789ab"`, comma-separated.
        endpoints: String,
    },
    /// Not connected.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// Connected already.
    #[error("endpoint with name {name} already exists in network {network}")]
    AlreadyConnected {
        /// The container's name.
        name: String,
        /// The network's name.
        network: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The request is well-formed but not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// Subnets overlap.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    PoolOverlap,
    /// No subnet is left in the default pools.
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    /// No address is left.
    #[error("no available IPv4 addresses on this network's address pools: {0}")]
    NoAddress(String),
    /// The wanted address is taken.
    #[error("failed to set up container networking: Address already in use")]
    AddressInUse,
    /// A host port is taken.
    #[error(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {endpoint} \
         ({endpoint_id}): failed to bind host port for {binding}: {reason}"
    )]
    PortBind {
        /// The container's name.
        endpoint: String,
        /// The endpoint's id.
        endpoint_id: String,
        /// `0.0.0.0:8080:172.17.0.2:80/tcp`.
        binding: String,
        /// Why.
        reason: String,
    },
    /// A host port is another container's.
    #[error(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {endpoint} \
         ({endpoint_id}): Bind for {address} failed: port is already allocated"
    )]
    PortAllocated {
        /// The container's name.
        endpoint: String,
        /// The endpoint's id.
        endpoint_id: String,
        /// The host's side.
        address: std::net::SocketAddr,
    },
    /// No free port in the asked range.
    #[error(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {endpoint} \
         ({endpoint_id}): all ports are allocated"
    )]
    PortsExhausted {
        /// The container's name.
        endpoint: String,
        /// The endpoint's id.
        endpoint_id: String,
    },
    /// The container has no network namespace (it does not run).
    #[error("container {0} has no network sandbox")]
    NoSandbox(String),
    /// Not built.
    #[error("{0} is not implemented")]
    NotImplemented(String),
    /// The kernel refused a netlink request.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// `nft` refused a ruleset.
    #[error("nft: {0}")]
    Firewall(String),
    /// The records.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A statement on the records.
    #[error("network records: {0}")]
    Sql(#[from] store::rusqlite::Error),
}

impl Error {
    /// Wraps a system error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NotFound(_) | Error::NoDriver(_) => Kind::NotFound,
            Error::Exists(_) => Kind::Conflict,
            Error::Ambiguous(..) | Error::Invalid(_) => Kind::InvalidParameter,
            Error::Predefined(_)
            | Error::PredefinedCreate(_)
            | Error::ActiveEndpoints { .. }
            | Error::AlreadyConnected { .. }
            | Error::PoolOverlap
            | Error::Forbidden(_) => Kind::Forbidden,
            Error::NotConnected { .. } | Error::NoSandbox(_) => Kind::Conflict,
            Error::NotImplemented(_) => Kind::NotImplemented,
            Error::PoolsExhausted
            | Error::NoAddress(_)
            | Error::AddressInUse
            | Error::PortBind { .. }
            | Error::PortAllocated { .. }
            | Error::PortsExhausted { .. }
            | Error::Netlink { .. }
            | Error::Io { .. }
            | Error::Firewall(_)
            | Error::Store(_)
            | Error::Sql(_) => Kind::System,
        }
    }
}
