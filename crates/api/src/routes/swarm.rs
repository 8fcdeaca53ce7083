//! `/swarm`, `/nodes`, `/services`, `/tasks`, `/secrets`, `/configs`: what an engine answers that is in no swarm.

use errors::Kind;

use super::{Route, page_not_found};
use crate::backend::not_implemented;
use crate::error::{Error, Result};
use crate::response::Reply;

pub(super) fn dispatch(route: Route<'_>) -> Result<Reply> {
    match (route.method, route.path) {
        ("POST", ["swarm", "init" | "join"]) => not_implemented("swarm mode"),
        ("POST", ["swarm", "leave" | "unlock"]) => {
            Err(Error::new(Kind::Unavailable, "This node is not part of a swarm"))
        }
        ("GET", ["swarm"] | ["swarm", "unlockkey"])
        | ("POST", ["swarm", "update"])
        | ("GET", ["services" | "nodes" | "tasks" | "secrets" | "configs"])
        | ("GET", ["services" | "nodes" | "tasks" | "secrets" | "configs", _])
        | ("GET", ["services" | "tasks", _, "logs"])
        | ("POST", ["services" | "secrets" | "configs", "create"])
        | ("POST", ["services" | "nodes" | "secrets" | "configs", _, "update"])
        | ("DELETE", ["services" | "nodes" | "secrets" | "configs", _]) => not_a_manager(),
        _ => page_not_found(),
    }
}

pub(super) fn not_a_manager<T>() -> Result<T> {
    Err(Error::new(
        Kind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    ))
}
