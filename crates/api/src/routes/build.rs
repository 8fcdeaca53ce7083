//! `/build`, `/session`, `/grpc`: there is no builder yet, and so nothing in its cache.

use super::{Route, page_not_found};
use crate::backend::not_implemented;
use crate::error::{Error, Result};
use crate::response::{Reply, ok};

pub(super) fn dispatch(route: Route<'_>) -> Result<Reply> {
    match (route.method, route.path) {
        ("POST", ["build"]) => not_implemented("building images"),
        ("POST", ["build", "prune"]) => ok(&serde_json::json!({"CachesDeleted": null, "SpaceReclaimed": 0})),
        ("POST", ["build", "cancel"]) => Err(Error::not_found("no such build")),
        ("POST", ["session" | "grpc"]) => not_implemented("BuildKit"),
        _ => page_not_found(),
    }
}
