//! `/plugins`: there are none, and none can be installed.

use errors::Kind;

use super::{Route, name, page_not_found};
use crate::error::{Error, Result};
use crate::response::{Reply, ok};

pub(super) fn dispatch(route: Route<'_>) -> Result<Reply> {
    match (route.method, route.path) {
        ("GET", ["plugins"]) => ok::<[(); 0]>(&[]),
        ("GET", ["plugins", "privileges"]) | ("POST", ["plugins", "pull" | "create"]) => {
            Err(Error::new(Kind::NotImplemented, "plugins are not implemented"))
        }
        ("GET", ["plugins", plugin @ .., "json"])
        | ("POST", ["plugins", plugin @ .., "enable" | "disable" | "push" | "upgrade" | "set"])
        | ("DELETE", ["plugins", plugin @ ..]) => {
            Err(Error::not_found(format!("plugin {:?} not found", name(plugin)?)))
        }
        _ => page_not_found(),
    }
}
