//! The verbs of networks.

use ::network::{CreateNetwork, IpamRequest, Network};
use api::backend::NetworkBackend;
use api::filters::Filters;
use api::types::{self, Map};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::show::{matches, show};
use crate::Daemon;
use crate::error::{Error, Result};

#[async_trait]
impl NetworkBackend for Daemon {
    async fn list(&self, filters: Filters) -> api::Result<Vec<types::NetworkInspect>> {
        filters.validate(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = if filters.contains("dangling") { Some(filters.bool_or("dangling", false)?) } else { None };
        if let Some(kind) = filters.get("type").find(|kind| !["custom", "builtin"].contains(kind)) {
            return Err(Error::InvalidParameter(format!("invalid filter: 'type'='{kind}'")).into());
        }
        let is_wanted = |network: &Network| {
            let is_dangling = || !network.predefined && self.networks.endpoints_on(&network.id).is_empty();
            matches(&filters, network) && dangling.is_none_or(|dangling| is_dangling() == dangling)
        };
        Ok(self.networks.list().iter().filter(|network| is_wanted(network)).map(|network| show(network, &[])).collect())
    }

    async fn inspect(&self, name: &str, scope: Option<String>, _verbose: bool) -> api::Result<types::NetworkInspect> {
        if scope.is_some_and(|scope| scope != "local") {
            return Err(Error::NotFound(format!("network {name} not found")).into());
        }
        let network = self.networks.get(name)?;
        Ok(show(&network, &self.networks.endpoints_on(&network.id)))
    }

    async fn create(&self, request: types::NetworkCreateRequest) -> api::Result<types::NetworkCreateResponse> {
        let network = self.networks.create(network_request(request)?).await?;
        self.network_event("create", &network, &[]);
        Ok(types::NetworkCreateResponse { id: network.id, warning: String::new() })
    }

    async fn remove(&self, name: &str) -> api::Result<()> {
        let network = self.networks.remove(name).await?;
        self.network_event("destroy", &network, &[]);
        Ok(())
    }

    async fn connect(&self, name: &str, request: types::NetworkConnectRequest) -> api::Result<()> {
        Ok(self.network_connect(name, request).await?)
    }

    async fn disconnect(&self, name: &str, request: types::NetworkDisconnectRequest) -> api::Result<()> {
        Ok(self.network_disconnect(name, request).await?)
    }

    async fn prune(&self, filters: Filters) -> api::Result<types::NetworksPruneResponse> {
        filters.validate(&["label", "label!", "until"])?;
        let until = crate::system::until_filter(&filters)?;
        Ok(self.job("prune", "networks", self.network_prune(until, &filters)).await?)
    }
}

impl Daemon {
    async fn network_prune(
        &self,
        until: Option<DateTime<Utc>>,
        filters: &Filters,
    ) -> Result<types::NetworksPruneResponse> {
        let mut response = types::NetworksPruneResponse::default();
        for network in self.networks.list() {
            let label = |key: &str| network.labels.get(key).map(String::as_str);
            let is_wanted = !network.predefined
                && until.is_none_or(|until| network.created < until)
                && filters.matches_pairs("label", label)
                && filters.excludes_pairs("label!", label)
                && self.networks.endpoints_on(&network.id).is_empty();
            if !is_wanted {
                continue;
            }
            match self.networks.remove(&network.id).await {
                Ok(_) => {
                    self.network_event("destroy", &network, &[]);
                    response.networks_deleted.push(network.name);
                }
                Err(error) => tracing::warn!("pruning network {}: {error}", network.name),
            }
        }
        self.events.emit("network", "prune", "", Map::from_iter([("reclaimed", "0".to_owned())]));
        Ok(response)
    }

    /// Tells that something happened to a network.
    pub(super) fn network_event(&self, action: &str, network: &Network, more: &[(&str, String)]) {
        let own = [("name", network.name.clone()), ("type", network.driver.name().to_owned())];
        let attributes = own.into_iter().chain(more.iter().map(|(key, value)| (*key, value.clone())));
        self.events.emit("network", action, &network.id, attributes.collect());
    }
}

fn network_request(request: types::NetworkCreateRequest) -> Result<CreateNetwork> {
    if request.name.is_empty() {
        return Err(Error::InvalidParameter("invalid name: name is empty".into()));
    }
    if request.config_only || request.config_from.is_some_and(|from| !from.network.is_empty()) {
        return Err(Error::NotImplemented("configuration-only networks are not implemented".into()));
    }
    if request.ingress || !["", "local"].contains(&request.scope.as_str()) {
        return Err(Error::Forbidden("cannot create a swarm scoped network when swarm is not active".into()));
    }
    if request.enable_ipv4 == Some(false) {
        return Err(Error::NotImplemented("networks without IPv4 are not implemented".into()));
    }
    let ipam = request.ipam.unwrap_or_default();
    let given = |text: String| if text.is_empty() { None } else { Some(text) };
    Ok(CreateNetwork {
        name: request.name,
        driver: request.driver,
        ipam: ipam
            .config
            .into_iter()
            .map(|config| IpamRequest {
                subnet: given(config.subnet),
                ip_range: given(config.ip_range),
                gateway: given(config.gateway),
                aux_addresses: config.auxiliary_addresses.into_map(),
            })
            .collect(),
        ipam_driver: ipam.driver,
        ipam_options: (!ipam.options.is_null()).then(|| ipam.options.into_map()),
        options: request.options.into_map(),
        labels: request.labels.into_map(),
        internal: request.internal,
        attachable: request.attachable,
        enable_ipv6: request.enable_ipv6.unwrap_or(false),
    })
}
