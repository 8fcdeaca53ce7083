//! The gRPC server on its one listener.

use std::convert::Infallible;
use std::sync::Arc;

use containerd_api::MAX_MESSAGE_BYTES;
use containerd_api::health::health_server::HealthServer;
use containerd_api::types::api_server::ApiServer;
use futures::{Stream, StreamExt};
use http::{HeaderValue, Response};
use listeners::Listener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::transport::Server;
use tower::ServiceBuilder;
use tracing::error;

use crate::authority::AuthorityFilter;
use crate::deadline::DeadlineLayer;
use crate::events::Hub;
use crate::service::{ApiService, HealthService};
use crate::supervisor::Supervisor;

/// The same windows as the original's clients, small enough for a daemon that has two of them.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Accepts connections until `stop` resolves. Those that are open then are served on, until the program ends and closes
/// them: a farewell (GOAWAY) is more than clients of grpc-go 1.0 can take. dockerd 17.03 loses its stream of events by it
/// for good, while a connection that just ends is made again.
///
/// # Errors
/// When the server breaks.
pub async fn serve(
    listener: Listener,
    supervisor: watch::Receiver<Option<Supervisor>>,
    hub: Arc<Hub>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let api = ApiServer::new(ApiService::new(supervisor, hub))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(usize::MAX);
    Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .layer(ServiceBuilder::new().map_response(say_too_large).layer(DeadlineLayer))
        .add_service(HealthServer::new(HealthService))
        .add_service(api)
        .serve_with_incoming(incoming(listener).take_until(Box::pin(stop)))
        .await
}

fn incoming(listener: Listener) -> impl Stream<Item = Result<AuthorityFilter<listeners::Stream>, Infallible>> {
    futures::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                // Without TLS there is no handshake, and this does not wait.
                Ok(incoming) => match incoming.establish().await {
                    Ok(stream) => return Some((Ok(AuthorityFilter::new(stream)), listener)),
                    Err(_) => continue,
                },
                Err(error) => {
                    error!(%error, "the listener broke");
                    return None;
                }
            }
        }
    })
}

/// The library calls a message that is too large "out of range"; everybody else, "resource exhausted".
fn say_too_large(mut response: Response<Body>) -> Response<Body> {
    let out_of_range = HeaderValue::from(tonic::Code::OutOfRange as i32);
    let resource_exhausted = HeaderValue::from(tonic::Code::ResourceExhausted as i32);
    if let Some(status) = response.headers_mut().get_mut("grpc-status") {
        // Nothing of ours ends with this code.
        if *status == out_of_range {
            *status = resource_exhausted;
        }
    }
    response
}
