//! `/networks`.

use http::StatusCode;

use super::{Route, name, page_not_found};
use crate::backend::Backends;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::response::{Reply, created, empty, ok};
use crate::types::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};

/// What networks can be filtered by.
const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(super) async fn dispatch(backends: &Backends, route: Route<'_>, mut request: Request) -> Result<Reply> {
    let networks = &backends.networks;
    match (route.method, route.path) {
        ("GET", ["networks"] | ["networks", ""]) => {
            let filters = request.query.filters()?;
            filters.validate(FILTERS)?;
            ok(&networks.list(filters).await?)
        }
        ("GET", ["networks", id @ ..]) => {
            let verbose = match request.query.text("verbose") {
                "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => false,
                "1" | "t" | "T" | "true" | "True" | "TRUE" => true,
                text => {
                    return Err(Error::invalid(format!(
                        "invalid value for verbose: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
                    )));
                }
            };
            ok(&networks.inspect(&name(id)?, request.query.non_empty("scope"), verbose).await?)
        }
        ("POST", ["networks", "create"]) => {
            let mut body: NetworkCreateRequest = request.json().await?;
            if !request.since(48) {
                body.enable_ipv4 = None;
            }
            created(&networks.create(body).await?)
        }
        ("POST", ["networks", "prune"]) => ok(&networks.prune(request.query.filters()?).await?),
        ("POST", ["networks", id @ .., "connect"]) => {
            let body: NetworkConnectRequest = request.json().await?;
            networks.connect(&name(id)?, body).await?;
            empty(StatusCode::OK)
        }
        ("POST", ["networks", id @ .., "disconnect"]) => {
            let body: NetworkDisconnectRequest = request.json().await?;
            networks.disconnect(&name(id)?, body).await?;
            empty(StatusCode::OK)
        }
        ("DELETE", ["networks", id @ ..]) => {
            networks.remove(&name(id)?).await?;
            empty(StatusCode::NO_CONTENT)
        }
        _ => page_not_found(),
    }
}
