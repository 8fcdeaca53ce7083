//! `/exec` and `/containers/{id}/exec`: further processes.

use http::StatusCode;

use super::{Route, name, page_not_found};
use crate::backend::{Attached, Backends};
use crate::error::{Error, Result};
use crate::hijack::Hijack;
use crate::request::Request;
use crate::response::{Reply, created, empty, ok};
use crate::types::{ExecCreateRequest, ExecStartRequest};

pub(super) async fn dispatch(backends: &Backends, route: Route<'_>, request: Request) -> Result<Reply> {
    let exec = &backends.exec;
    match (route.method, route.path) {
        ("GET", ["exec", id @ .., "json"]) => ok(&exec.inspect(&name(id)?).await?),
        ("POST", ["exec", id @ .., "start"]) => start(backends, &name(id)?, request).await,
        ("POST", ["exec", id @ .., "resize"]) => {
            let query = &request.query;
            let (height, width) = (query.dimension("h", "height")?, query.dimension("w", "width")?);
            exec.resize(&name(id)?, height, width).await?;
            empty(StatusCode::OK)
        }
        _ => page_not_found(),
    }
}

pub(super) async fn create(backends: &Backends, container: &str, mut request: Request) -> Result<Reply> {
    let mut body: ExecCreateRequest = request.json().await?;
    if body.cmd.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    if !request.since(42) {
        body.console_size = None;
    }
    created(&backends.exec.create(container, body).await?)
}

async fn start(backends: &Backends, id: &str, mut request: Request) -> Result<Reply> {
    let mut body: ExecStartRequest = request.json().await?;
    if !request.since(42) || !body.tty {
        body.console_size = None;
    }
    if body.detach {
        backends.exec.start_detached(id, body).await?;
        return empty(StatusCode::OK);
    }
    // What the client says it expects decides the framing, not what the process was made with.
    let tty = body.tty;
    let attached = Attached { tty, ..backends.exec.start_attached(id, body).await? };
    Ok(Reply::Hijack(Hijack::new(&request, attached)))
}
