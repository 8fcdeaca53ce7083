//! Images and the progress of what is done to them.

use super::config::HealthConfig;
use super::time::Timestamp;
use super::wire::{Empty, List, Map, omit, wire};

wire! {
    /// A line of `docker images`.
    pub struct ImageSummary {
        /// -1: not computed.
        containers: i64,
        /// Seconds since the epoch.
        created: i64,
        id: String,
        labels: Map<String>,
        parent_id: String,
        #[serde(skip_serializing_if = "omit")]
        descriptor: Option<Descriptor>,
        repo_digests: Vec<String>,
        repo_tags: Vec<String>,
        /// Bytes; -1: not computed.
        shared_size: i64,
        size: i64,
        /// The size again; before 1.44 only.
        #[serde(skip_serializing_if = "omit")]
        virtual_size: Option<i64>,
    }

    /// `docker image inspect`.
    pub struct ImageInspect {
        id: String,
        repo_tags: Vec<String>,
        repo_digests: Vec<String>,
        parent: String,
        comment: String,
        #[serde(skip_serializing_if = "omit")]
        created: String,
        docker_version: String,
        author: String,
        config: Option<ImageConfig>,
        architecture: String,
        #[serde(skip_serializing_if = "omit")]
        variant: String,
        os: String,
        #[serde(skip_serializing_if = "omit")]
        os_version: String,
        /// Bytes.
        size: i64,
        /// The size again; before 1.44 only.
        #[serde(skip_serializing_if = "omit")]
        virtual_size: Option<i64>,
        graph_driver: DriverData,
        #[serde(rename = "RootFS")]
        root_fs: RootFs,
        metadata: ImageMetadata,
        #[serde(skip_serializing_if = "omit")]
        descriptor: Option<Descriptor>,
    }

    /// The part of an image's configuration that containers inherit (OCI, with Docker's additions).
    pub struct ImageConfig {
        user: String,
        #[serde(skip_serializing_if = "omit")]
        exposed_ports: Map<Empty>,
        env: List<String>,
        entrypoint: List<String>,
        cmd: List<String>,
        volumes: Map<Empty>,
        working_dir: String,
        labels: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        stop_signal: String,
        #[serde(skip_serializing_if = "omit")]
        args_escaped: bool,
        #[serde(skip_serializing_if = "omit")]
        healthcheck: Option<HealthConfig>,
        on_build: List<String>,
        #[serde(skip_serializing_if = "omit")]
        shell: List<String>,
    }

    pub struct RootFs {
        #[serde(skip_serializing_if = "omit")]
        r#type: String,
        #[serde(skip_serializing_if = "omit")]
        layers: List<String>,
    }

    pub struct ImageMetadata {
        last_tag_time: Timestamp,
    }

    pub struct DriverData {
        data: Map<String>,
        name: String,
    }

    /// OCI content descriptor.
    pub struct Descriptor as "camelCase" {
        media_type: String,
        digest: String,
        size: i64,
        #[serde(skip_serializing_if = "omit")]
        urls: List<String>,
        #[serde(skip_serializing_if = "omit")]
        annotations: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        platform: Option<Platform>,
        #[serde(skip_serializing_if = "omit")]
        artifact_type: String,
    }

    pub struct Platform as "camelCase" {
        architecture: String,
        os: String,
        #[serde(rename = "os.version", skip_serializing_if = "omit")]
        os_version: String,
        #[serde(rename = "os.features", skip_serializing_if = "omit")]
        os_features: List<String>,
        #[serde(skip_serializing_if = "omit")]
        variant: String,
    }

    pub struct ImageHistoryItem {
        comment: String,
        /// Seconds since the epoch.
        created: i64,
        created_by: String,
        /// `<missing>` where there is no image of its own.
        id: String,
        size: i64,
        tags: List<String>,
    }

    /// One of the two is set.
    pub struct ImageDeleteItem {
        #[serde(skip_serializing_if = "omit")]
        deleted: String,
        #[serde(skip_serializing_if = "omit")]
        untagged: String,
    }

    pub struct ImagesPruneResponse {
        images_deleted: List<ImageDeleteItem>,
        space_reclaimed: u64,
    }

    pub struct ImageSearchItem as "snake_case" {
        star_count: i64,
        is_official: bool,
        name: String,
        is_automated: bool,
        description: String,
    }

    pub struct DistributionInspect {
        descriptor: Descriptor,
        platforms: List<Platform>,
    }

    /// One message of a pull, push, load, import or build.
    pub struct Progress as "camelCase" {
        #[serde(skip_serializing_if = "omit")]
        stream: String,
        #[serde(skip_serializing_if = "omit")]
        status: String,
        #[serde(skip_serializing_if = "omit")]
        progress_detail: Option<ProgressDetail>,
        /// The bar as text, for old clients.
        #[serde(skip_serializing_if = "omit")]
        progress: String,
        /// Of the layer.
        #[serde(skip_serializing_if = "omit")]
        id: String,
        #[serde(skip_serializing_if = "omit")]
        error_detail: Option<ProgressError>,
        #[serde(skip_serializing_if = "omit")]
        error: String,
        #[serde(skip_serializing_if = "omit")]
        aux: Option<serde_json::Value>,
    }

    pub struct ProgressDetail as "lowercase" {
        #[serde(skip_serializing_if = "omit")]
        current: i64,
        #[serde(skip_serializing_if = "omit")]
        total: i64,
        #[serde(skip_serializing_if = "omit")]
        start: i64,
        #[serde(skip_serializing_if = "omit")]
        hidecounts: bool,
        #[serde(skip_serializing_if = "omit")]
        units: String,
    }

    pub struct ProgressError as "camelCase" {
        #[serde(skip_serializing_if = "omit")]
        code: i64,
        #[serde(skip_serializing_if = "omit")]
        message: String,
    }
}
