//! `/containers/{id}/checkpoints`. `preflight` is our addition.

use http::StatusCode;

use super::page_not_found;
use crate::backend::Backends;
use crate::error::Result;
use crate::request::Request;
use crate::response::{Reply, created, empty, ok};
use crate::types::CheckpointCreateRequest;

pub(super) async fn all(backends: &Backends, container: &str, method: &str, mut request: Request) -> Result<Reply> {
    let checkpoints = &backends.checkpoints;
    match method {
        "GET" => {
            let dir = request.query.non_empty("dir").map(Into::into);
            ok(&checkpoints.list(container, dir, request.query.bool("verify")).await?)
        }
        "POST" => {
            let body: CheckpointCreateRequest = request.json().await?;
            created(&checkpoints.create(container, body).await?)
        }
        _ => page_not_found(),
    }
}

pub(super) async fn one(
    backends: &Backends,
    container: &str,
    checkpoint: &str,
    method: &str,
    request: Request,
) -> Result<Reply> {
    let checkpoints = &backends.checkpoints;
    match (method, checkpoint) {
        ("GET", "preflight") => ok(&checkpoints.preflight(container).await?),
        ("DELETE", checkpoint) => {
            let dir = request.query.non_empty("dir").map(Into::into);
            checkpoints.remove(container, checkpoint, dir).await?;
            empty(StatusCode::NO_CONTENT)
        }
        _ => page_not_found(),
    }
}
