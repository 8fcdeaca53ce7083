//! Putting a container on a network and taking it off, whether it runs or not.

use ::network::{Driver, Network};
use api::types::{EndpointSettings, NetworkConnectRequest, NetworkDisconnectRequest};

use crate::Daemon;
use crate::containers::Container;
use crate::containers::network::endpoint_request;
use crate::containers::record::Record;
use crate::error::{Error, Result};

impl Daemon {
    pub(super) async fn network_connect(&self, name: &str, request: NetworkConnectRequest) -> Result<()> {
        let container = self.container(&request.container)?;
        let network = self.networks.get(name)?;
        let settings = request.endpoint_config.unwrap_or_default();
        let _op = container.op.lock().await;
        let record = container.record();
        check_connect(&record, &network)?;
        let endpoint = endpoint_request(&record, &network.name, &settings, false, None)?;
        self.networks.validate(&network.id, &endpoint)?;
        let is_running = record.state.running().is_some();
        if is_running {
            self.networks.connect(&record.id, &network.id, endpoint).await?;
        }
        let changed = container.change(|record| {
            record
                .networks
                .insert(network.name.clone(), EndpointSettings { network_id: network.id.clone(), ..settings });
            Ok(())
        });
        let Err(error) = changed else {
            self.refresh_network_files(&container, is_running);
            self.network_event("connect", &network, &[("container", record.id.clone())]);
            return Ok(());
        };
        if is_running && let Err(error) = self.networks.disconnect(&record.id, &network.id).await {
            tracing::warn!("undoing the connection of {} to {}: {error}", record.short_id(), network.name);
        }
        Err(error)
    }

    pub(super) async fn network_disconnect(&self, name: &str, request: NetworkDisconnectRequest) -> Result<()> {
        let container = match self.container(&request.container) {
            Ok(container) => container,
            // A container that is gone may have left an endpoint behind.
            Err(error) if request.force => {
                return self.drop_endpoint(name, &request.container).await.map_err(|_| error);
            }
            Err(error) => return Err(error),
        };
        let network = self.networks.get(name)?;
        let _op = container.op.lock().await;
        let record = container.record();
        if network.driver == Driver::Host || record.network_mode() == "host" {
            return Err(Error::Forbidden(
                "cannot disconnect container from host network - container was created in host network mode".into(),
            ));
        }
        let Some(key) = record.networks.keys().find(|key| **key == network.name || **key == network.id) else {
            return Err(Error::Forbidden(format!(
                "container {} is not connected to network {}",
                record.id, network.name
            )));
        };
        let is_running = record.state.running().is_some();
        if is_running {
            match self.networks.disconnect(&record.id, &network.id).await {
                Err(::network::Error::NotConnected { .. }) if request.force => {}
                other => drop(other?),
            }
        }
        container.change(|record| {
            record.networks.remove(key);
            Ok(())
        })?;
        self.refresh_network_files(&container, is_running);
        self.network_event("disconnect", &network, &[("container", record.id.clone())]);
        Ok(())
    }

    /// Removes the endpoint of a container that does not exist any more, found by its name or id.
    async fn drop_endpoint(&self, network: &str, container: &str) -> Result<()> {
        let network = self.networks.get(network)?;
        let endpoints = self.networks.endpoints_on(&network.id);
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint.container_name == container || endpoint.container_id == container)
            .ok_or_else(|| Error::NotFound(format!("No such container: {container}")))?;
        self.networks.disconnect(&endpoint.container_id, &network.id).await?;
        self.network_event("disconnect", &network, &[("container", endpoint.container_id.clone())]);
        Ok(())
    }

    /// `hosts` names the addresses that a running container has.
    fn refresh_network_files(&self, container: &Container, is_running: bool) {
        let record = container.record();
        if is_running && let Err(error) = self.write_network_files(&record, &self.networks.endpoints(&record.id)) {
            tracing::warn!("rewriting the network files of {}: {error}", record.short_id());
        }
    }
}

/// Docker's rules about which container may be on which network.
fn check_connect(record: &Record, network: &Network) -> Result<()> {
    let mode = record.network_mode();
    if mode == "host" || mode.starts_with("container:") {
        return Err(Error::InvalidParameter(
            "container sharing network namespace with another container or host cannot be connected to any other network"
                .into(),
        ));
    }
    if network.driver == Driver::Host {
        return Err(Error::InvalidParameter(
            "cannot connect container to host network - container must be created in host network mode".into(),
        ));
    }
    let has_none = record.networks.keys().any(|name| name == "none");
    if has_none || (network.driver == Driver::Null && !record.networks.is_empty()) {
        return Err(Error::InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode".into(),
        ));
    }
    if record.networks.contains_key(&network.name) {
        return Err(Error::Forbidden(format!(
            "endpoint with name {} already exists in network {}",
            record.name, network.name
        )));
    }
    Ok(())
}
