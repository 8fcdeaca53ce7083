//! Volumes.

use super::time::Timestamp;
use super::wire::{List, Map, omit, wire};

wire! {
    pub struct Volume {
        #[serde(skip_serializing_if = "omit")]
        created_at: Timestamp,
        driver: String,
        labels: Map<String>,
        mountpoint: String,
        name: String,
        options: Map<String>,
        /// `local`.
        scope: String,
        #[serde(skip_serializing_if = "omit")]
        status: Map<serde_json::Value>,
        #[serde(skip_serializing_if = "omit")]
        usage_data: Option<VolumeUsageData>,
    }

    pub struct VolumeUsageData {
        /// -1: not known.
        ref_count: i64,
        /// Bytes; -1: not known.
        size: i64,
    }

    pub struct VolumeListResponse {
        volumes: Vec<Volume>,
        warnings: List<String>,
    }

    pub struct VolumeCreateRequest {
        #[serde(skip_serializing_if = "omit")]
        cluster_volume_spec: Option<serde_json::Value>,
        #[serde(skip_serializing_if = "omit")]
        driver: String,
        #[serde(skip_serializing_if = "omit")]
        driver_opts: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        labels: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        name: String,
    }

    pub struct VolumesPruneResponse {
        volumes_deleted: List<String>,
        space_reclaimed: u64,
    }
}
