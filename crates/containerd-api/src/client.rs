//! The road to a docker-containerd: a channel over its unix socket, with an `:authority` that every server accepts.

use std::path::{Path, PathBuf};

use errors::{Kind, Kinded};
use tonic::transport::{Channel, Endpoint, Uri};

/// The socket could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {}: {source}", path.display())]
pub struct ConnectError {
    path: PathBuf,
    source: tonic::transport::Error,
}

impl Kinded for ConnectError {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

/// Connects to the docker-containerd that listens on the unix socket `path`.
///
/// The channel reconnects by itself; a call that is made while nobody listens fails with `Unavailable`.
///
/// # Errors
/// When nobody listens there now.
pub async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    let socket = path.to_path_buf();
    // The address is only what `:authority` says; the connector alone decides where to go.
    Endpoint::from_static("http://containerd")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }))
        .await
        .map_err(|source| ConnectError { path: path.to_path_buf(), source })
}
