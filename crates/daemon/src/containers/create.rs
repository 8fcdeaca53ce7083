//! `create`: from a request to a record, a writable layer and a directory. Nothing stays of a create that failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::types::{
    ContainerConfig, ContainerCreateRequest, ContainerCreateResponse, EndpointSettings, HostConfig, Map, StrSlice,
};
use chrono::Utc;

use super::container::Container;
use super::mounts::{self, MountPlan, NewVolume, Source};
use super::record::Record;
use super::state::State;
use super::{names, validate};
use crate::Daemon;
use crate::error::{Context, Error, Result, blocking};

impl Daemon {
    /// Makes a container.
    pub(crate) async fn container_create(
        self: &Arc<Self>,
        name: Option<String>,
        platform: Option<String>,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse> {
        let ContainerCreateRequest { mut config, host_config, networking_config } = request;
        let mut host = host_config.unwrap_or_default();
        let endpoints = networking_config.unwrap_or_default().endpoints_config;
        let mut warnings = Vec::new();
        validate::discard_unsupported(&mut host.resources, &mut warnings);
        warnings.extend(validate::check(&config, &host, &self.config)?);
        validate::check_asked(&config, &host)?;
        if let Some(platform) = platform.filter(|p| !p.is_empty()) {
            check_platform(&platform)?;
        }

        let image = match config.image.as_str() {
            "" => return Err(Error::InvalidParameter("no command specified".into())),
            name => self.image(name)?,
        };
        merge(&mut config, &image.config)?;
        let (path, args) = command(&config)?;
        self.fill_defaults(&mut host)?;

        let id = names::random_id();
        if config.hostname.is_empty() {
            config.hostname = match host.network_mode.as_str() {
                "host" => host_name(),
                mode => match mode.strip_prefix("container:") {
                    Some(other) => self.container(&self.joined(other)?)?.record().config.hostname.clone(),
                    None => id[..12].to_owned(),
                },
            };
        }
        let networks = self.wanted_networks(&config, &host, endpoints)?;
        self.resolve_links(&mut host)?;
        let mut inherited = Vec::new();
        for from in &host.volumes_from {
            let (other, mode) = from.split_once(':').unwrap_or((from, ""));
            let other = self.container(other).map_err(|e| Error::InvalidParameter(e.to_string()))?;
            inherited.extend(mounts::inherit(&other.record().mounts, mode)?);
        }
        let plans = mounts::plan(&config, &host, inherited)?;

        let name = self.take_name(name, &id)?;
        let mut record = Record {
            runtime: if host.runtime.is_empty() { self.config.default_runtime.clone() } else { host.runtime.clone() },
            id: id.clone(),
            name,
            created: Utc::now(),
            image_id: image.id.to_string(),
            path,
            args,
            config,
            host_config: host,
            networks,
            mounts: Vec::new(),
            state: State::Created { failed: None },
            restart_count: 0,
            manually_stopped: false,
            asleep: false,
            making: None,
            last_checkpoint: None,
            last_wake: None,
            runs: 0,
            exits: 0,
        };
        let made = self.make(&mut record, plans).await;
        if let Err(e) = made {
            self.unmake(&record).await;
            return Err(e);
        }
        let container = Container::new(record, self.records.clone());
        self.containers.add(container.clone());
        let record = container.record();
        self.container_event(&record, "create", &[]);
        Ok(ContainerCreateResponse { id, warnings })
    }

    /// Volumes, directory, layer, row: in this order, so that the row is last and whatever has none is swept at boot.
    async fn make(self: &Arc<Self>, record: &mut Record, plans: Vec<MountPlan>) -> Result<()> {
        for mut plan in plans {
            if let Source::Volume { name, making, .. } = &mut plan.source {
                let NewVolume { driver, options, labels } = std::mem::take(making);
                let driver = if driver.is_empty() { &record.host_config.volume_driver } else { &driver };
                let (volume, new) = self.volumes.create(name, driver, options, labels)?;
                if new {
                    let driver = Map::from_iter([("driver", "local".to_owned())]);
                    self.events.emit("volume", "create", &volume.name, driver);
                }
                *name = volume.name;
            }
            record.mounts.push(plan);
        }
        let dir = self.container_dir(&record.id);
        std::fs::create_dir_all(dir.join("checkpoints")).context(|| format!("mkdir {}", dir.display()))?;
        let (images, id, image) = (self.images.clone(), record.id.clone(), ::images::Digest::parse(&record.image_id)?);
        blocking(move || Ok(images.create_layer(&id, Some(&image))?)).await?;
        self.records.put(record)
    }

    /// Takes back what [`Daemon::make`] made.
    async fn unmake(self: &Arc<Self>, record: &Record) {
        self.containers.free_name(&record.name, &record.id);
        for plan in &record.mounts {
            if let Source::Volume { name, anonymous: true, .. } = &plan.source {
                let _ = self.volumes.remove(name);
            }
        }
        let _ = self.records.delete(&record.id);
        let (images, id) = (self.images.clone(), record.id.clone());
        let _ = blocking(move || Ok(images.remove_layer(&id)?)).await;
        let _ = std::fs::remove_dir_all(self.container_dir(&record.id));
    }

    fn take_name(&self, wanted: Option<String>, id: &str) -> Result<String> {
        if let Some(wanted) = wanted.filter(|w| !w.is_empty()) {
            let name = names::check(&wanted)?;
            self.containers.take_name(name, id)?;
            return Ok(name.to_owned());
        }
        for attempt in 0..10 {
            let name = names::random_name(attempt);
            if self.containers.take_name(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id[..12].to_owned();
        self.containers.take_name(&name, id)?;
        Ok(name)
    }

    /// The id of a container whose namespace is to be joined; that it is missing is a fault of the request.
    fn joined(&self, name: &str) -> Result<String> {
        match self.container(name) {
            Ok(container) => Ok(container.id.clone()),
            Err(e) => Err(Error::InvalidParameter(e.to_string())),
        }
    }

    fn fill_defaults(&self, host: &mut HostConfig) -> Result<()> {
        let set = |field: &mut String, value: &str| {
            if field.is_empty() {
                *field = value.to_owned();
            }
        };
        if host.network_mode.is_empty() || host.network_mode == "default" {
            host.network_mode = "bridge".into();
        }
        if let Some(other) = host.network_mode.strip_prefix("container:") {
            let other = self
                .joined(other)
                .map_err(|e| Error::InvalidParameter(format!("joining network namespace of container: {e}")))?;
            host.network_mode = format!("container:{other}");
        }
        for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(other) = mode.strip_prefix("container:") {
                *mode = format!("container:{}", self.joined(other)?);
            }
        }
        set(&mut host.ipc_mode, "private");
        set(&mut host.cgroupns_mode, "host");
        set(&mut host.restart_policy.name, "no");
        set(&mut host.runtime, &self.config.default_runtime);
        if host.shm_size == 0 {
            host.shm_size = self.config.default_shm_size as i64;
        }
        if host.log_config.r#type.is_empty() {
            let given = std::mem::take(&mut host.log_config.config);
            host.log_config = self.config.log_config.clone();
            host.log_config.config.extend(given);
        }
        host.log_config.config = std::mem::take(&mut host.log_config.config).or_empty();
        if host.resources.memory > 0 && host.resources.memory_swap == 0 {
            host.resources.memory_swap = host.resources.memory.saturating_mul(2);
        }
        // -1 is how clients say "nothing".
        host.resources.memory_swappiness = host.resources.memory_swappiness.filter(|s| *s != -1);
        let masked = |list: &mut api::types::List<String>, default: &[&str], privileged: bool| {
            if list.is_null() && !privileged {
                *list = default.iter().map(|&p| p.to_owned()).collect();
            }
        };
        let open = host.privileged || host.security_opt.iter().any(|o| o == "systempaths=unconfined");
        masked(&mut host.masked_paths, super::spec::MASKED, open);
        masked(&mut host.readonly_paths, super::spec::READONLY, open);
        Ok(())
    }

    /// The networks a container is to be on: that of its mode, and those it names settings for.
    fn wanted_networks(
        &self,
        config: &ContainerConfig,
        host: &HostConfig,
        endpoints: Map<EndpointSettings>,
    ) -> Result<BTreeMap<String, EndpointSettings>> {
        let mut networks = BTreeMap::new();
        let mode = host.network_mode.as_str();
        if config.network_disabled || mode.starts_with("container:") {
            return Ok(networks);
        }
        // A network that does not exist (yet) is the start's to complain about, as in Docker: a "not found" here would
        // tell the CLI that the image is missing.
        let canonical = |name: &str| match name {
            "default" => "bridge".to_owned(),
            name => self.networks.get(name).map_or_else(|_| name.to_owned(), |network| network.name),
        };
        for (name, settings) in endpoints {
            networks.insert(canonical(&name), settings);
        }
        networks.entry(canonical(mode)).or_default();
        let several = |alone: &str| networks.len() > 1 && networks.contains_key(alone);
        if several("host") {
            return Err(Error::InvalidParameter(
                "cannot connect container to host network - container must be created in host network mode".into(),
            ));
        }
        if several("none") {
            return Err(Error::InvalidParameter(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                    .into(),
            ));
        }
        for (name, settings) in &networks {
            if let Some(mac) = [&settings.mac_address, &config.mac_address].into_iter().find(|mac| !mac.is_empty()) {
                super::network::parse_mac(mac)
                    .map_err(|e| Error::InvalidParameter(format!("invalid config for network {name}: {e}")))?;
            }
            let Ok(network) = self.networks.get(name) else { continue };
            if let Some(ipam) = &settings.ipam_config {
                super::network::check_addresses(&network, ipam).map_err(|e| {
                    Error::InvalidParameter(format!(
                        "invalid config for network {name}: invalid endpoint settings:\n{e}"
                    ))
                })?;
            }
            if !settings.aliases.is_empty() && !network.has_name_service() {
                return Err(Error::InvalidParameter(
                    "network-scoped alias is supported only for containers in user defined networks".into(),
                ));
            }
        }
        Ok(networks)
    }
}

fn check_platform(platform: &str) -> Result<()> {
    let mut parts = platform.split('/');
    let (os, arch) = (parts.next().unwrap_or_default(), parts.next());
    let native = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let matches = os == "linux" && arch.is_none_or(|a| a == native || a == std::env::consts::ARCH);
    if matches { Ok(()) } else { Err(Error::NotFound(format!("image with platform {platform} was not found"))) }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The image's configuration under the request's.
fn merge(config: &mut ContainerConfig, image: &ContainerConfig) -> Result<()> {
    let set = |field: &mut String, value: &String| {
        if field.is_empty() {
            field.clone_from(value);
        }
    };
    set(&mut config.user, &image.user);
    set(&mut config.working_dir, &image.working_dir);
    set(&mut config.stop_signal, &image.stop_signal);
    for (port, _) in &image.exposed_ports {
        config.exposed_ports.insert(port.clone(), api::types::Empty {});
    }
    for (volume, _) in &image.volumes {
        config.volumes.insert(volume.clone(), api::types::Empty {});
    }
    if config.volumes.is_empty() {
        config.volumes = Map::null();
    }
    for (key, value) in &image.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    config.labels = std::mem::take(&mut config.labels).or_empty();
    let name = |e: &str| e.split('=').next().unwrap_or_default().to_owned();
    let given: Vec<String> = config.env.iter().map(|e| name(e)).collect();
    for inherited in image.env.iter().filter(|e| !given.contains(&name(e))) {
        config.env.push(inherited.clone());
    }
    // An entrypoint of the request drops the image's command, because that was meant for the image's entrypoint.
    if config.entrypoint.is_empty() {
        if config.cmd.is_empty() {
            config.cmd = image.cmd.clone();
            config.args_escaped = image.args_escaped;
        }
        config.entrypoint = image.entrypoint.clone();
    } else if config.entrypoint.as_slice() == [String::new()] {
        config.entrypoint = StrSlice::default();
    }
    if let Some(from) = &image.healthcheck {
        let own = config.healthcheck.get_or_insert_with(Default::default);
        if own.test.is_empty() {
            own.test = from.test.clone();
        }
        for (own, from) in [
            (&mut own.interval, from.interval),
            (&mut own.timeout, from.timeout),
            (&mut own.start_period, from.start_period),
            (&mut own.start_interval, from.start_interval),
            (&mut own.retries, from.retries),
        ] {
            if *own == 0 {
                *own = from;
            }
        }
    }
    Ok(())
}

/// The program and its arguments.
fn command(config: &ContainerConfig) -> Result<(String, Vec<String>)> {
    let mut words = config.entrypoint.iter().chain(config.cmd.iter()).cloned();
    let path = words.next().ok_or_else(|| Error::InvalidParameter("no command specified".into()))?;
    Ok((path, words.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> StrSlice {
        list.iter().map(|&w| w.to_owned()).collect::<Vec<_>>().into()
    }

    #[test]
    fn entrypoint_and_command() {
        let image = ContainerConfig { entrypoint: words(&["ep"]), cmd: words(&["a"]), ..ContainerConfig::default() };
        let run = |entrypoint: &[&str], cmd: &[&str]| {
            let mut config =
                ContainerConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..ContainerConfig::default() };
            merge(&mut config, &image).unwrap();
            command(&config).map(|(p, a)| format!("{p} {}", a.join(" "))).unwrap_or_default()
        };
        assert_eq!(run(&[], &[]), "ep a");
        assert_eq!(run(&[], &["b"]), "ep b");
        assert_eq!(run(&["own"], &[]), "own ");
        assert_eq!(run(&[""], &["b", "c"]), "b c");
        assert_eq!(run(&[""], &[]), "");
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let image = ContainerConfig {
            env: vec!["A=1".to_owned(), "B=2".to_owned()].into(),
            working_dir: "/srv".into(),
            ..ContainerConfig::default()
        };
        let mut config = ContainerConfig { env: vec!["A=9".to_owned()].into(), ..ContainerConfig::default() };
        merge(&mut config, &image).unwrap();
        assert_eq!(config.env[..2], ["A=9", "B=2"]);
        assert!(config.env.len() == 2 && config.working_dir == "/srv");
    }

    #[test]
    fn a_foreign_platform_is_refused() {
        assert!(check_platform("linux/s390x").is_err() && check_platform("linux").is_ok());
    }
}
