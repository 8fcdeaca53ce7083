//! `/_ping`, `/info`, `/version`, `/events`, `/system/df`, `/auth`.

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{HeaderValue, StatusCode, header};

use super::{Route, page_not_found};
use crate::backend::{Backends, EventsOptions};
use crate::error::{Error, Result};
use crate::registry_auth;
use crate::request::Request;
use crate::response::{Body, Reply, bare, json_lines, ok, set_content_type};

/// The largest body of `/auth`, in bytes.
const MAX_AUTH_BYTES: usize = 64 * 1024;

pub(super) async fn dispatch(backends: &Backends, route: Route<'_>, mut request: Request) -> Result<Reply> {
    let system = &backends.system;
    match (route.method, route.path) {
        ("GET", ["_ping"]) => Ok(ping(Bytes::from_static(b"OK"))),
        ("HEAD", ["_ping"]) => Ok(ping(Bytes::new())),
        ("GET", ["info"]) => ok(&system.info().await?),
        ("GET", ["version"]) => ok(&system.version().await?),
        ("GET", ["events"]) => events(backends, request).await,
        ("GET", ["system", "df"]) => disk_usage(backends, request).await,
        ("POST", ["auth"]) => {
            let body = request.read_body(MAX_AUTH_BYTES).await?;
            let auth = registry_auth::from_json(&body)?.unwrap_or_default();
            ok(&system.auth(auth).await?)
        }
        _ => page_not_found(),
    }
}

fn ping(body: Bytes) -> Reply {
    let length = HeaderValue::from(body.len());
    let mut response = bare(StatusCode::OK, Body::Full(body));
    set_content_type(&mut response, "text/plain; charset=utf-8");
    let headers = response.headers_mut();
    // Of an empty answer to HEAD, nobody else says it.
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // 1 is the classic builder: nobody is to look for BuildKit here.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    Reply::Http(response)
}

async fn events(backends: &Backends, request: Request) -> Result<Reply> {
    let options = EventsOptions {
        since_ns: request.query.time("since")?,
        until_ns: request.query.time("until")?,
        filters: request.query.filters()?,
    };
    if let (Some(since), Some(until)) = (options.since_ns, options.until_ns) {
        if until < since {
            return Err(Error::invalid(format!(
                "`since` time ({}) cannot be after `until` time ({})",
                request.query.text("since"),
                request.query.text("until")
            )));
        }
    }
    let events = backends.system.events(options).await?;
    if request.since(46) {
        return json_lines(events);
    }
    // Images' `create` is too new for these clients.
    let known = events.try_filter(|event| std::future::ready(!(event.r#type == "image" && event.action == "create")));
    json_lines(Box::pin(known))
}

async fn disk_usage(backends: &Backends, request: Request) -> Result<Reply> {
    let types = if request.since(42) { request.query.all("type") } else { Vec::new() };
    for name in &types {
        if !matches!(name.as_str(), "container" | "image" | "volume" | "build-cache") {
            return Err(Error::invalid(format!("unknown object type: {name}")));
        }
    }
    ok(&backends.system.disk_usage(types).await?)
}
