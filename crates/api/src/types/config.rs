//! What is independent of the host in a container's configuration.

use super::wire::{Empty, List, Map, StrSlice, omit, wire};

wire! {
    pub struct ContainerConfig {
        hostname: String,
        domainname: String,
        user: String,
        attach_stdin: bool,
        attach_stdout: bool,
        attach_stderr: bool,
        #[serde(skip_serializing_if = "omit")]
        exposed_ports: Map<Empty>,
        tty: bool,
        open_stdin: bool,
        stdin_once: bool,
        env: List<String>,
        cmd: StrSlice,
        #[serde(skip_serializing_if = "omit")]
        healthcheck: Option<HealthConfig>,
        #[serde(skip_serializing_if = "omit")]
        args_escaped: bool,
        image: String,
        volumes: Map<Empty>,
        working_dir: String,
        entrypoint: StrSlice,
        #[serde(skip_serializing_if = "omit")]
        network_disabled: bool,
        #[serde(skip_serializing_if = "omit")]
        mac_address: String,
        on_build: List<String>,
        labels: Map<String>,
        #[serde(skip_serializing_if = "omit")]
        stop_signal: String,
        /// Seconds.
        #[serde(skip_serializing_if = "omit")]
        stop_timeout: Option<i64>,
        #[serde(skip_serializing_if = "omit")]
        shell: StrSlice,
    }

    /// Durations are nanoseconds; zero inherits.
    pub struct HealthConfig {
        #[serde(skip_serializing_if = "omit")]
        test: List<String>,
        #[serde(skip_serializing_if = "omit")]
        interval: i64,
        #[serde(skip_serializing_if = "omit")]
        timeout: i64,
        #[serde(skip_serializing_if = "omit")]
        start_period: i64,
        #[serde(skip_serializing_if = "omit")]
        start_interval: i64,
        #[serde(skip_serializing_if = "omit")]
        retries: i64,
    }
}
