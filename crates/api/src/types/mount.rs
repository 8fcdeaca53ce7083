//! Mounts, as asked for ([`Mount`]) and as they are ([`MountPoint`]).

use super::wire::{Empty, List, Map, omit, wire};

wire! {
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe`, `cluster`.
        #[serde(skip_serializing_if = "omit")]
        r#type: String,
        #[serde(skip_serializing_if = "omit")]
        source: String,
        #[serde(skip_serializing_if = "omit")]
        target: String,
        #[serde(skip_serializing_if = "omit")]
        read_only: bool,
        #[serde(skip_serializing_if = "omit")]
        consistency: String,
        #[serde(skip_serializing_if = "omit")]
        bind_options: Option<BindOptions>,
        #[serde(skip_serializing_if = "omit")]
        volume_options: Option<VolumeOptions>,
        #[serde(skip_serializing_if = "omit")]
        image_options: Option<ImageOptions>,
        #[serde(skip_serializing_if = "omit")]
        tmpfs_options: Option<TmpfsOptions>,
        #[serde(skip_serializing_if = "omit")]
        cluster_options: Option<Empty>,
    }

    pub struct BindOptions {
        #[serde(skip_serializing_if = "omit")]
        propagation: String,
        #[serde(skip_serializing_if = "omit")]
        non_recursive: bool,
        #[serde(skip_serializing_if = "omit")]
        create_mountpoint: bool,
        #[serde(skip_serializing_if = "omit")]
        read_only_non_recursive: bool,
        #[serde(skip_serializing_if = "omit")]
        read_only_force_recursive: bool,
    }

    pub struct VolumeOptions {
        #[serde(skip_serializing_if = "omit")]
        no_copy: bool,
        #[serde(skip_serializing_if = "omit")]
        labels: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        subpath: String,
        #[serde(skip_serializing_if = "omit")]
        driver_config: Option<MountDriver>,
    }

    pub struct ImageOptions {
        #[serde(skip_serializing_if = "omit")]
        subpath: String,
    }

    pub struct TmpfsOptions {
        #[serde(skip_serializing_if = "omit")]
        size_bytes: i64,
        /// Permission bits.
        #[serde(skip_serializing_if = "omit")]
        mode: u32,
        #[serde(skip_serializing_if = "omit")]
        options: List<List<String>>,
    }

    pub struct MountDriver {
        #[serde(skip_serializing_if = "omit")]
        name: String,
        #[serde(skip_serializing_if = "omit")]
        options: Map<String>,
    }

    pub struct MountPoint {
        #[serde(skip_serializing_if = "omit")]
        r#type: String,
        #[serde(skip_serializing_if = "omit")]
        name: String,
        source: String,
        destination: String,
        #[serde(skip_serializing_if = "omit")]
        driver: String,
        mode: String,
        #[serde(rename = "RW")]
        rw: bool,
        propagation: String,
    }
}
