//! The HTTP server: connections in, requests to the routes, answers out, takeovers run.
//!
//! One task per connection. Requests that change something run in a task of their own, so that a client that goes away
//! does not leave them half done. It binds nothing: connections come from outside.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use errors::Kind;
use futures::{Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::Backends;
use crate::error::Error;
use crate::hijack::Hijack;
use crate::query::Query;
use crate::request::{Request, split_path};
use crate::response::{Body, Reply, error_response};
use crate::routes;
use crate::version::{API_VERSION, ApiVersion};

/// How long a connection may take to send a request's head, idle time before it included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// How the server shows itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// Serve `/debug/…`.
    pub debug: bool,
    /// Tell clients that experimental features are on. The docker CLI shows its checkpoint commands only then.
    pub experimental: bool,
    /// The `Server` header.
    pub server: String,
    /// How long running requests are waited for at shutdown.
    pub shutdown_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug: false,
            experimental: true,
            server: format!("Dormouse/{} (linux)", env!("CARGO_PKG_VERSION")),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// The API over some backends. Cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    backends: Backends,
    debug: bool,
    /// On every answer.
    headers: HeaderMap,
    shutdown_grace: Duration,
}

impl Server {
    /// A server over these backends.
    pub fn new(backends: Backends, options: Options) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("api-version", HeaderValue::from_static(API_VERSION));
        headers.insert(
            "docker-experimental",
            HeaderValue::from_static(if options.experimental { "true" } else { "false" }),
        );
        headers.insert("ostype", HeaderValue::from_static("linux"));
        match HeaderValue::from_str(&options.server) {
            Ok(server) => drop(headers.insert(header::SERVER, server)),
            Err(_) => tracing::warn!(server = options.server, "not a valid Server header, none is sent"),
        }
        Self(Arc::new(Inner { backends, debug: options.debug, headers, shutdown_grace: options.shutdown_grace }))
    }

    /// Serves one connection until it ends. At shutdown the request that runs is finished.
    pub async fn serve_connection<S>(&self, stream: S, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (takeover, mut takeovers) = mpsc::channel::<Hijack>(1);
        let server = self.clone();
        let service = service_fn(move |request| server.clone().answer(request, takeover.clone()));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut is_stopping = false;
        let hijack = loop {
            tokio::select! {
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection ended");
                    }
                    break None;
                }
                Some(hijack) = takeovers.recv() => break Some(hijack),
                () = shutdown.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        let result = match hijack {
            Some(hijack) => hijack.run(stream, parts.read_buf, &self.0.headers).await,
            None => stream.shutdown().await,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// One request's way to its answer. A takeover never answers: the connection's task ends this future.
    fn answer(self, request: http::Request<Incoming>, takeover: mpsc::Sender<Hijack>) -> Answer {
        Box::pin(async move {
            let started = Instant::now();
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let mut response = match self.reply(request).await {
                Ok(Reply::Http(response)) => response,
                Ok(Reply::Hijack(hijack)) => {
                    tracing::debug!(%method, %uri, "connection taken over");
                    let _ = takeover.send(hijack).await;
                    return std::future::pending().await;
                }
                Err(error) => {
                    let response = error_response(&error);
                    if response.status().is_server_error() {
                        tracing::error!(%method, path = uri.path(), status = response.status().as_u16(), %error, "request failed");
                    }
                    response
                }
            };
            for (name, value) in &self.0.headers {
                response.headers_mut().insert(name.clone(), value.clone());
            }
            let status = response.status().as_u16();
            tracing::debug!(%method, %uri, status, micros = started.elapsed().as_micros() as u64, "request");
            Ok(response)
        })
    }

    async fn reply(&self, request: http::Request<Incoming>) -> std::result::Result<Reply, Error> {
        let (parts, body) = request.into_parts();
        let mut path = split_path(parts.uri.path())?;
        let mut version = ApiVersion::CURRENT;
        if let Some(text) = path.first().and_then(|segment| ApiVersion::of_segment(segment)) {
            version = ApiVersion::parse(text)?;
            path.remove(0);
        }
        let query = Query::parse(parts.uri.query());
        let request = Request { method: parts.method, path, version, query, headers: parts.headers, body };
        let reads_only = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let inner = self.0.clone();
        if reads_only {
            routes::dispatch(&inner.backends, inner.debug, request).await
        } else {
            let task = tokio::spawn(async move { routes::dispatch(&inner.backends, inner.debug, request).await });
            task.await
                .unwrap_or_else(|error| Err(Error::new(Kind::System, format!("the request's task died: {error}"))))
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, Infallible>> + Send>>;

/// Serves connections as they come until `shutdown` is cancelled or they end, then waits for the running requests, but
/// not longer than the options say.
pub async fn serve<S>(server: Server, connections: impl Stream<Item = S>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tasks = TaskTracker::new();
    // Dropped connections are cut: that is what ends streams that would go on for ever.
    let cut = CancellationToken::new();
    let _cut_at_return = cut.clone().drop_guard();
    tokio::pin!(connections);
    loop {
        let stream = tokio::select! {
            stream = connections.next() => stream,
            () = shutdown.cancelled() => break,
        };
        let Some(stream) = stream else { break };
        let (server, shutdown, cut) = (server.clone(), shutdown.clone(), cut.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = server.serve_connection(stream, shutdown) => (),
                () = cut.cancelled() => (),
            }
        });
    }
    tasks.close();
    if shutdown.is_cancelled() {
        let _ = tokio::time::timeout(server.0.shutdown_grace, tasks.wait()).await;
    } else {
        tasks.wait().await;
    }
}
