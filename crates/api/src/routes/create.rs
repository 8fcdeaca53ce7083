//! `POST /containers/create`: the request's way from what clients of any version send to what the engine is asked.
//!
//! What a version did not have yet is taken out; what moved is moved. The values themselves are checked by the engine.

use crate::backend::Backends;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::response::{Reply, created};
use crate::types::{ContainerConfig, ContainerCreateRequest, EndpointSettings, HostConfig, Map, NetworkingConfig};
use crate::version::ApiVersion;

/// Driver option under which an interface's own sysctls are handed to the network.
const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

pub(super) async fn create(backends: &Backends, mut request: Request) -> Result<Reply> {
    let body: ContainerCreateRequest = request.required_json().await?;
    let name = request.query.non_empty("name");
    let platform = if request.since(41) { request.query.non_empty("platform") } else { None };
    let (body, mut warnings) = adapt(body, request.version)?;
    let mut response = backends.containers.create(name, platform, body).await?;
    warnings.append(&mut response.warnings);
    response.warnings = warnings;
    created(&response)
}

/// Brings a request of some version to the newest one; also gives the warnings for the client.
pub(crate) fn adapt(
    mut body: ContainerCreateRequest,
    version: ApiVersion,
) -> Result<(ContainerCreateRequest, Vec<String>)> {
    let older_than = |minor| version < ApiVersion::v1(minor);
    let config = &mut body.config;
    if *config == ContainerConfig::default() {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    }
    let host = body.host_config.get_or_insert_default();
    let networking = body.networking_config.get_or_insert_default();
    use_default_network(host, networking);

    if older_than(25) {
        host.auto_remove = false;
    }
    if older_than(40) {
        host.resources.kernel_memory_tcp = 0;
        if host.ipc_mode.is_empty() {
            host.ipc_mode = "shareable".into();
        }
    }
    if older_than(42) {
        host.console_size = [0, 0];
    } else {
        host.resources.kernel_memory = 0;
    }
    if older_than(43) {
        host.annotations = Map::null();
    }
    if older_than(44) {
        if let Some(healthcheck) = &mut config.healthcheck {
            healthcheck.start_interval = 0;
        }
        if networking.endpoints_config.len() > 1 {
            let names: Vec<_> = networking.endpoints_config.keys().map(String::as_str).collect();
            return Err(Error::invalid(format!(
                "Container cannot be created with multiple network endpoints: {}",
                names.join(", ")
            )));
        }
    }
    if older_than(48) {
        networking.endpoints_config.values_mut().for_each(|endpoint| endpoint.gw_priority = 0);
    }
    adapt_mounts(host, &older_than)?;
    // Zero and less are "no limit", which is what absent means, too.
    host.resources.pids_limit = host.resources.pids_limit.filter(|limit| *limit > 0);

    let mut warnings = Vec::new();
    warnings.extend(volume_driver_warning(host, &older_than));
    warnings.extend(move_mac_address(config, host, networking, &older_than)?);
    warnings.extend(move_sysctls(host, networking, &older_than)?);
    Ok((body, warnings))
}

/// Without a network mode, or with the mode `default`, it is `bridge`.
fn use_default_network(host: &mut HostConfig, networking: &mut NetworkingConfig) {
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".into();
        if let Some(endpoint) = networking.endpoints_config.remove("default") {
            networking.endpoints_config.insert("bridge".into(), endpoint);
        }
    }
}

fn adapt_mounts(host: &mut HostConfig, older_than: &impl Fn(u32) -> bool) -> Result<()> {
    if host.mounts.is_empty() {
        return Ok(());
    }
    for mount in host.mounts.make_mut() {
        let kind = mount.r#type.as_str();
        if older_than(42) {
            mount.volume_options = mount.volume_options.take().filter(|_| kind == "volume");
            mount.tmpfs_options = mount.tmpfs_options.take().filter(|_| kind == "tmpfs");
        } else {
            for (name, is_given, of) in [
                ("VolumeOptions", mount.volume_options.is_some(), "volume"),
                ("BindOptions", mount.bind_options.is_some(), "bind"),
                ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
            ] {
                if is_given && kind != of {
                    return Err(Error::invalid(format!("{name} must not be specified on mount type {kind:?}")));
                }
            }
        }
        if let Some(options) = &mut mount.bind_options {
            options.non_recursive &= !older_than(40);
            options.create_mountpoint &= !older_than(42);
            if older_than(44) && kind == "bind" && options.read_only_force_recursive {
                return Err(Error::invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"));
            }
        }
        if older_than(44) && kind == "bind" && mount.read_only {
            // Read-only mounts were not recursive then.
            mount.bind_options.get_or_insert_default().read_only_non_recursive = true;
        }
        if older_than(45) && mount.volume_options.as_ref().is_some_and(|options| !options.subpath.is_empty()) {
            return Err(Error::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
        }
        if older_than(48) && kind == "image" {
            return Err(Error::invalid("Mount type \"Image\" needs API v1.48 or newer"));
        }
    }
    Ok(())
}

fn volume_driver_warning(host: &HostConfig, older_than: &impl Fn(u32) -> bool) -> Option<String> {
    if host.volume_driver.is_empty() || older_than(48) {
        return None;
    }
    let names_no_driver = |options: &Option<crate::types::VolumeOptions>| {
        let driver = options.as_ref().and_then(|options| options.driver_config.as_ref());
        driver.is_none_or(|driver| driver.name.is_empty())
    };
    let is_ignored = host.mounts.iter().any(|mount| mount.r#type == "volume" && names_no_driver(&mount.volume_options));
    is_ignored.then(|| {
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. \
         Use '--mount type=volume,volume-driver=...' instead"
            .to_owned()
    })
}

/// The container's MAC address belongs to its main network since 1.44.
fn move_mac_address(
    config: &mut ContainerConfig,
    host: &HostConfig,
    networking: &mut NetworkingConfig,
    older_than: &impl Fn(u32) -> bool,
) -> Result<Option<String>> {
    let mac_address = std::mem::take(&mut config.mac_address);
    let has_network = !matches!(host.network_mode.as_str(), "none" | "host") && !shares_network(host);
    if older_than(44) {
        if mac_address.is_empty() {
            networking.endpoints_config.values_mut().for_each(|endpoint| endpoint.mac_address.clear());
            return Ok(None);
        }
        if !has_network {
            return Err(Error::invalid("conflicting options: mac-address and the network mode"));
        }
        main_endpoint(host, networking, older_than)?.mac_address = mac_address;
        return Ok(None);
    }
    if mac_address.is_empty() {
        return Ok(None);
    }
    if has_network {
        let endpoint = main_endpoint(host, networking, older_than).map_err(|error| Error {
            message: format!("unable to migrate container-wide MAC address to a specific network: {}", error.message),
            ..error
        })?;
        if endpoint.mac_address.is_empty() {
            endpoint.mac_address = mac_address;
        } else if endpoint.mac_address != mac_address {
            return Err(Error::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, \
                 or be left empty",
            ));
        }
    }
    Ok(Some(
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
            .to_owned(),
    ))
}

/// Sysctls that name an interface belong to that interface's network.
fn move_sysctls(
    host: &mut HostConfig,
    networking: &mut NetworkingConfig,
    older_than: &impl Fn(u32) -> bool,
) -> Result<Option<String>> {
    if host.network_mode == "host" || shares_network(host) {
        return Ok(None);
    }
    let mut moved = Vec::new();
    for (name, value) in &host.sysctls {
        let parts: Vec<_> = name.splitn(5, '.').collect();
        let &["net", family, table, interface, key] = parts.as_slice() else { continue };
        if !interface.starts_with("eth") {
            continue;
        }
        if !older_than(48) {
            return Err(Error::invalid(format!(
                "interface specific sysctl setting {name:?} must be supplied using driver option '{ENDPOINT_SYSCTLS}'"
            )));
        }
        if interface != "eth0" {
            return Err(Error::invalid(format!(
                "unable to determine network endpoint for sysctl {name}, use driver option '{ENDPOINT_SYSCTLS}' to set \
                 per-interface sysctls"
            )));
        }
        moved.push((name.clone(), format!("net.{family}.{table}.IFNAME.{key}={value}")));
    }
    if moved.is_empty() {
        return Ok(None);
    }
    let endpoint = main_endpoint(host, networking, older_than)?;
    let mut settings: Vec<_> = moved.iter().map(|(_, setting)| setting.clone()).collect();
    settings.extend(endpoint.driver_opts.get(ENDPOINT_SYSCTLS).cloned());
    endpoint.driver_opts.insert(ENDPOINT_SYSCTLS.into(), settings.join(","));
    for (name, _) in &moved {
        host.sysctls.remove(name);
    }
    let names: Vec<_> = moved.iter().map(|(name, _)| name.as_str()).collect();
    let settings: Vec<_> = moved.iter().map(|(_, setting)| setting.as_str()).collect();
    Ok(Some(format!(
        "Migrated sysctl {:?} to DriverOpts{{{ENDPOINT_SYSCTLS:?}:{:?}}}.",
        names.join(","),
        settings.join(",")
    )))
}

/// The endpoint on the network of the container's network mode; made if there is none at all.
fn main_endpoint<'a>(
    host: &HostConfig,
    networking: &'a mut NetworkingConfig,
    older_than: &impl Fn(u32) -> bool,
) -> Result<&'a mut EndpointSettings> {
    let endpoints = &mut networking.endpoints_config;
    let network = if endpoints.is_empty() || endpoints.contains_key(&host.network_mode) {
        host.network_mode.clone()
    } else if older_than(44) {
        // These versions know one endpoint only.
        endpoints.keys().next().cloned().unwrap_or_default()
    } else {
        return Err(Error::invalid(
            "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
        ));
    };
    Ok(endpoints.entry(network).or_default())
}

fn shares_network(host: &HostConfig) -> bool {
    host.network_mode.starts_with("container:")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn adapted(body: serde_json::Value, minor: u32) -> Result<(ContainerCreateRequest, Vec<String>)> {
        adapt(serde_json::from_value(body).unwrap(), ApiVersion::v1(minor))
    }

    #[test]
    fn nothing_is_not_a_config() {
        for body in [json!({}), json!({"HostConfig": {"Memory": 5}})] {
            assert!(adapted(body, 51).unwrap_err().message.starts_with("config cannot be empty"));
        }
    }

    #[test]
    fn the_default_network_is_the_bridge() {
        let body = json!({"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"default": {"MacAddress": "a"}}}});
        let (body, _) = adapted(body, 51).unwrap();
        assert_eq!(body.host_config.unwrap().network_mode, "bridge");
        assert_eq!(body.networking_config.unwrap().endpoints_config["bridge"].mac_address, "a");
    }

    #[test]
    fn a_mac_address_moves_to_its_endpoint() {
        let (body, warnings) = adapted(json!({"Image": "x", "MacAddress": "m"}), 51).unwrap();
        assert_eq!(body.networking_config.unwrap().endpoints_config["bridge"].mac_address, "m");
        assert_eq!((body.config.mac_address.as_str(), warnings.len()), ("", 1));
        let (_, warnings) = adapted(json!({"Image": "x", "MacAddress": "m"}), 43).unwrap();
        assert!(warnings.is_empty());
        let body = json!({"Image": "x", "MacAddress": "m", "HostConfig": {"NetworkMode": "host"}});
        assert!(adapted(body, 43).is_err());
        let body = json!({"Image": "x", "MacAddress": "m", "NetworkingConfig": {"EndpointsConfig": {"n": {}}}});
        assert!(adapted(body, 51).is_err());
    }

    #[test]
    fn an_interfaces_sysctls_move_in_old_versions_only() {
        let body =
            json!({"Image": "x", "HostConfig": {"Sysctls": {"net.ipv4.conf.eth0.forwarding": "1", "kernel.a": "b"}}});
        assert!(adapted(body.clone(), 51).is_err());
        let (body, warnings) = adapted(body, 46).unwrap();
        let endpoint = &body.networking_config.unwrap().endpoints_config["bridge"];
        assert_eq!(endpoint.driver_opts[ENDPOINT_SYSCTLS], "net.ipv4.conf.IFNAME.forwarding=1");
        assert_eq!(body.host_config.unwrap().sysctls.len(), 1);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn options_of_another_kind_of_mount_are_refused() {
        let body = json!({"Image": "x", "HostConfig": {"Mounts": [{"Type": "bind", "TmpfsOptions": {}}]}});
        let error = adapted(body.clone(), 51).unwrap_err();
        assert_eq!(error.message, "TmpfsOptions must not be specified on mount type \"bind\"");
        assert!(adapted(body, 41).is_ok());
    }

    #[test]
    fn no_pids_limit_is_none() {
        for limit in [0, -1, -5] {
            let body = json!({"Image": "x", "HostConfig": {"PidsLimit": limit}});
            assert_eq!(adapted(body, 51).unwrap().0.host_config.unwrap().resources.pids_limit, None);
        }
    }
}
