//! Events.

use super::wire::{Map, omit, wire};

wire! {
    pub struct EventMessage {
        /// The action again, for old clients; only of containers and images.
        #[serde(rename = "status", skip_serializing_if = "omit")]
        status: String,
        /// The actor's id again, likewise.
        #[serde(rename = "id", skip_serializing_if = "omit")]
        id: String,
        /// The image of a container, likewise.
        #[serde(rename = "from", skip_serializing_if = "omit")]
        from: String,
        /// `container`, `image`, `volume`, `network`, `daemon`, …
        r#type: String,
        action: String,
        actor: EventActor,
        /// `local`.
        #[serde(rename = "scope", skip_serializing_if = "omit")]
        scope: String,
        /// Seconds since the epoch.
        #[serde(rename = "time", skip_serializing_if = "omit")]
        time: i64,
        /// Nanoseconds since the epoch.
        #[serde(rename = "timeNano", skip_serializing_if = "omit")]
        time_nano: i64,
    }

    pub struct EventActor {
        #[serde(rename = "ID")]
        id: String,
        attributes: Map<String>,
    }
}
