//! From method and path to a backend's method. One file per resource; the first segment of the path chooses the file.
//!
//! A route parses, calls one method and turns the answer into HTTP; decisions are the backends'. Names may contain
//! slashes (`library/busybox`), which is why they are matched as "the segments in between".

use http::{Method, StatusCode};

use crate::backend::Backends;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::response::{Reply, empty};

mod archive;
mod build;
mod checkpoints;
mod containers;
pub(crate) mod create;
mod debug;
mod exec;
mod images;
mod networks;
mod plugins;
mod swarm;
mod system;
mod volumes;

/// Finds the route of a request and runs it.
pub(crate) async fn dispatch(backends: &Backends, debug: bool, mut request: Request) -> Result<Reply> {
    if request.method == Method::OPTIONS {
        return empty(StatusCode::OK);
    }
    let method = request.method.clone();
    let segments = std::mem::take(&mut request.path);
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let route = Route { method: method.as_str(), path: &path };
    let Some(resource) = path.first() else { return page_not_found() };
    match *resource {
        "_ping" | "info" | "version" | "events" | "auth" | "system" => system::dispatch(backends, route, request).await,
        "containers" => containers::dispatch(backends, route, request).await,
        "exec" => exec::dispatch(backends, route, request).await,
        "images" | "commit" | "distribution" => images::dispatch(backends, route, request).await,
        "networks" => networks::dispatch(backends, route, request).await,
        "volumes" => volumes::dispatch(backends, route, request).await,
        "build" | "session" | "grpc" => build::dispatch(route),
        "plugins" => plugins::dispatch(route),
        "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" => swarm::dispatch(route),
        "debug" if debug => debug::dispatch(route, request).await,
        _ => page_not_found(),
    }
}

/// What a route is found by.
#[derive(Clone, Copy)]
struct Route<'a> {
    method: &'a str,
    path: &'a [&'a str],
}

/// The answer to every path and method that there is no route for.
fn page_not_found<T>() -> Result<T> {
    Err(Error::not_found("page not found"))
}

/// The name made of the segments in between; without any, the path is another one.
fn name(segments: &[&str]) -> Result<String> {
    if segments.is_empty() || segments.ends_with(&[""]) { page_not_found() } else { Ok(segments.join("/")) }
}
