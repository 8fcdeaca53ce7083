//! The connection to docker-containerd, by `proto://address`.

use std::path::PathBuf;
use std::time::Duration;

use containerd_api::types::api_client::ApiClient;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::failure::{Failure, Result};

/// A client that connects with its first call, and again whenever it has to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The calls.
    pub(crate) api: ApiClient<Channel>,
}

impl Client {
    /// Prepares to connect to `address`.
    pub(crate) fn connect(address: &str, timeout: Duration) -> Result<Self> {
        let Some((protocol, place)) = address.split_once("://") else {
            return Err(Failure::new(format!("bad bind address format {address}, expected proto://address")));
        };
        let channel = match protocol {
            "unix" => {
                let socket = PathBuf::from(place);
                let connector = tower::service_fn(move |_: Uri| {
                    let socket = socket.clone();
                    async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
                });
                Endpoint::from_static("http://containerd")
                    .connect_timeout(timeout)
                    .connect_with_connector_lazy(connector)
            }
            "tcp" => Endpoint::from_shared(format!("http://{place}"))
                .map_err(|error| Failure::new(format!("bad address {place}: {error}")))?
                .connect_timeout(timeout)
                .connect_lazy(),
            _ => return Err(Failure::new(format!("dial {protocol}: unknown network {protocol}"))),
        };
        let limit = containerd_api::MAX_MESSAGE_BYTES;
        Ok(Self { api: ApiClient::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit) })
    }
}
