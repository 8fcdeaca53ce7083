//! Containers. `create`, `start`, `stop`, … are named after their verbs; [`state`] is the only place that says which state
//! may follow which.

mod archive;
pub mod attach;
mod backend;
pub mod container;
mod create;
mod exit;
#[doc(hidden)]
pub mod fuzz;
pub mod health;
mod index;
mod inspect;
mod links;
mod list;
mod logs;
pub mod mounts;
pub mod names;
pub mod network;
pub mod record;
mod recover;
mod remove;
pub mod restart;
mod shutdown;
pub mod spec;
mod start;
pub mod state;
mod stats;
pub mod stdio;
mod stop;
mod top;
mod update;
mod validate;
mod view;
mod wait;

pub(crate) use archive::stream_out;
pub(crate) use backend::detached;
pub use container::Container;
pub use index::Containers;
pub(crate) use start::own_shm;
pub(crate) use wait::wait;

use std::sync::Arc;

use api::types::Map;

use crate::Daemon;
use crate::containers::record::Record;
use crate::error::{Error, Result};

impl Daemon {
    /// A container by id, name or the start of an id.
    pub fn container(&self, name: &str) -> Result<Arc<Container>> {
        let found = self.containers.get(name);
        match &found {
            Err(Error::NotFound(_)) if name.contains('/') => self.by_link_name(name).map_or(found, Ok),
            _ => found,
        }
    }

    /// The directory of a container's own files.
    pub fn container_dir(&self, id: &str) -> std::path::PathBuf {
        self.config.data_root.join("containers").join(id)
    }

    /// Tells what a container's start or end means for its networks and volumes.
    pub fn attachment_events(&self, record: &Record, network: &str, volume: &str) {
        // Docker's order: files before the network, and the other way round at the end.
        if volume == "mount" {
            self.volume_events(record, volume);
            self.network_events(record, network);
        } else {
            self.network_events(record, network);
            self.volume_events(record, volume);
        }
    }

    fn network_events(&self, record: &Record, network: &str) {
        for name in record.networks.keys() {
            if let Ok(found) = self.networks.get(name) {
                let attributes = [
                    ("container", record.id.clone()),
                    ("name", found.name.clone()),
                    ("type", found.driver.name().to_owned()),
                ];
                self.events.emit("network", network, &found.id, Map::from_iter(attributes));
            }
        }
    }

    fn volume_events(&self, record: &Record, volume: &str) {
        for plan in &record.mounts {
            if let Some(name) = plan.volume() {
                let mut attributes = Map::from_iter([("container", record.id.clone()), ("driver", "local".to_owned())]);
                if volume == "mount" {
                    attributes.insert("destination".into(), plan.destination.clone());
                    attributes.insert("read/write".into(), (!plan.read_only).to_string());
                    attributes.insert("propagation".into(), plan.propagation.clone());
                }
                self.events.emit("volume", volume, name, attributes);
            }
        }
    }

    /// Tells that something happened to a container.
    pub fn container_event(&self, record: &Record, action: &str, more: &[(&str, String)]) {
        let mut attributes: Map<String> = record.config.labels.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.events.emit("container", action, &record.id, attributes);
    }
}
