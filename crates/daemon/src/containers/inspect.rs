//! `inspect`.

use std::sync::Arc;

use api::types::{
    CheckpointTimings, ContainerInspect, ContainerState, DriverData, EndpointSettings, Map, NetworkSettings, Timestamp,
};

use super::container::Container;
use super::network::{hide_endpoint, port_map, show_endpoint};
use super::record::Record;
use crate::Daemon;
use crate::error::{Result, blocking};

fn show_checkpoints(record: &Record) -> Option<CheckpointTimings> {
    let show = |timing: &Option<super::record::Timing>| timing.as_ref().map(crate::checkpoints::show_timing);
    let shown =
        CheckpointTimings { last_checkpoint: show(&record.last_checkpoint), last_wake: show(&record.last_wake) };
    (shown != CheckpointTimings::default()).then_some(shown)
}

impl Daemon {
    /// Describes a container.
    pub(crate) async fn container_inspect(self: &Arc<Self>, name: &str, size: bool) -> Result<ContainerInspect> {
        let container = self.container(name)?;
        let record = container.record();
        let (size_rw, size_root_fs) = if size { self.sizes(&record).await } else { (None, None) };
        let dir = self.container_dir(&record.id);
        let file = |name: &str| {
            let path = dir.join(name);
            if record.state.started_at().is_some() { path.to_string_lossy().into_owned() } else { String::new() }
        };
        let exec_ids = self.execs.ids_of(&record.id);
        let log_path = self.log(&container)?.path().map(|p| p.to_string_lossy().into_owned());
        let log_path = log_path.filter(|_| record.state.started_at().is_some());
        let mut host_config = record.host_config.clone();
        host_config.links = self.shown_links(&record);
        Ok(ContainerInspect {
            id: record.id.clone(),
            created: record.created.into(),
            path: record.path.clone(),
            args: record.args.clone(),
            state: self.show_state(&container, &record),
            image: record.image_id.clone(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: log_path.unwrap_or_default(),
            name: format!("/{}", record.name),
            restart_count: record.restart_count as i64,
            driver: "overlay2".into(),
            platform: "linux".into(),
            exec_ids: if exec_ids.is_empty() { api::types::List::null() } else { exec_ids.into() },
            host_config,
            graph_driver: self.graph_driver(&record),
            size_rw,
            size_root_fs,
            mounts: record.mounts.iter().filter(|m| m.listed).map(|m| m.to_point(&self.volumes)).collect(),
            config: record.config.clone(),
            network_settings: self.network_settings(&record),
            checkpoints: show_checkpoints(&record),
            ..ContainerInspect::default()
        })
    }

    fn show_state(&self, container: &Container, record: &Record) -> ContainerState {
        let state = &record.state;
        let time = |at: Option<chrono::DateTime<chrono::Utc>>| at.map(Timestamp::from).unwrap_or_default();
        let status = state.status();
        let running = state.running();
        ContainerState {
            status: status.into(),
            // Docker says that a container between two runs of its policy runs, too.
            running: state.is_active(),
            paused: running.is_some_and(|r| r.paused),
            restarting: status == "restarting",
            oom_killed: match state {
                super::state::State::Running(r) => r.oom_killed,
                super::state::State::Exited(e) | super::state::State::Restarting(e) => e.oom_killed,
                _ => false,
            },
            dead: status == "dead",
            pid: running.map_or(0, |r| r.pid.into()),
            exit_code: state.exit_code(),
            error: state.error().into(),
            started_at: time(state.started_at()),
            finished_at: time(state.finished_at()),
            health: container.health.show(),
        }
    }

    fn graph_driver(&self, record: &Record) -> DriverData {
        let data = self.images.graph_driver(&record.id).map(|paths| {
            [
                ("ID", record.id.clone()),
                ("LowerDir", paths.lower.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join(":")),
                ("MergedDir", paths.merged.to_string_lossy().into_owned()),
                ("UpperDir", paths.upper.to_string_lossy().into_owned()),
                ("WorkDir", paths.work.to_string_lossy().into_owned()),
            ]
        });
        DriverData { name: "overlay2".into(), data: data.into_iter().flatten().collect::<Map<String>>() }
    }

    /// Bytes of the writable layer and of everything.
    pub(crate) async fn sizes(self: &Arc<Self>, record: &Record) -> (Option<i64>, Option<i64>) {
        let (images, id) = (self.images.clone(), record.id.clone());
        match blocking(move || Ok(images.layer_size(&id)?)).await {
            Ok(size) => (Some(size.writable_bytes as i64), Some(size.root_fs_bytes as i64)),
            Err(e) => {
                tracing::warn!("size of {}: {e}", record.short_id());
                (None, None)
            }
        }
    }

    /// A container's networks with what it has on them now.
    pub(crate) fn shown_networks(&self, record: &Record) -> Map<EndpointSettings> {
        let endpoints = self.networks.endpoints(&record.id);
        let mut networks = Map::empty();
        for (name, asked) in &record.networks {
            let mut settings = asked.clone();
            match endpoints.iter().find(|e| &e.network_name == name).filter(|_| record.state.running().is_some()) {
                Some(endpoint) => show_endpoint(&mut settings, endpoint),
                None => hide_endpoint(&mut settings, &asked.mac_address),
            }
            if let Ok(network) = self.networks.get(name) {
                if record.state.started_at().is_some() {
                    settings.network_id.clone_from(&network.id);
                }
                if network.has_name_service() {
                    let mut names = vec![record.name.clone()];
                    names.extend(asked.aliases.iter().cloned());
                    names.push(record.short_id().to_owned());
                    names.dedup();
                    settings.dns_names = names.into();
                }
            }
            networks.insert(name.clone(), settings);
        }
        networks
    }

    fn network_settings(&self, record: &Record) -> NetworkSettings {
        let endpoints = self.networks.endpoints(&record.id);
        let networks = self.shown_networks(record);
        let mut settings = NetworkSettings { ports: port_map(record, &endpoints), ..NetworkSettings::default() };
        if record.state.running().is_some() && record.network_mode() != "host" {
            settings.sandbox_id = record.id.clone();
            settings.sandbox_key = self.networks.sandbox_path(&record.id).to_string_lossy().into_owned();
        }
        // The flat fields are those of the default bridge.
        if let Some(bridge) = networks.get("bridge") {
            settings.endpoint_id.clone_from(&bridge.endpoint_id);
            settings.gateway.clone_from(&bridge.gateway);
            settings.ip_address.clone_from(&bridge.ip_address);
            settings.ip_prefix_len = bridge.ip_prefix_len;
            settings.mac_address.clone_from(&bridge.mac_address);
        }
        settings.networks = networks;
        settings
    }
}
