//! `/volumes`.

use http::StatusCode;

use super::{Route, name, page_not_found};
use crate::backend::Backends;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::response::{Reply, created, empty, ok};
use crate::types::VolumeCreateRequest;

pub(super) async fn dispatch(backends: &Backends, route: Route<'_>, mut request: Request) -> Result<Reply> {
    let volumes = &backends.volumes;
    match (route.method, route.path) {
        ("GET", ["volumes"]) => ok(&volumes.list(request.query.filters()?).await?),
        ("GET", ["volumes", volume @ ..]) => ok(&volumes.inspect(&name(volume)?).await?),
        ("POST", ["volumes", "create"]) => {
            let body: VolumeCreateRequest = request.json().await?;
            if body.cluster_volume_spec.is_some() && request.since(42) {
                return super::swarm::not_a_manager();
            }
            created(&volumes.create(body).await?)
        }
        ("POST", ["volumes", "prune"]) => {
            let mut filters = request.query.filters()?;
            if !request.since(42) {
                // Named volumes were pruned, too, then.
                filters.add("all", "true");
            }
            ok(&volumes.prune(filters).await?)
        }
        ("PUT", ["volumes", _, ..]) => Err(Error::new(
            errors::Kind::Unavailable,
            "volume update only valid for cluster volumes, but swarm is unavailable",
        )),
        ("DELETE", ["volumes", volume @ ..]) => {
            volumes.remove(&name(volume)?, request.query.bool("force")).await?;
            empty(StatusCode::NO_CONTENT)
        }
        _ => page_not_found(),
    }
}
