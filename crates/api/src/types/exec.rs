//! Further processes in a container.

use super::wire::{List, omit, wire};

wire! {
    /// `POST /containers/{id}/exec`.
    pub struct ExecCreateRequest {
        user: String,
        privileged: bool,
        tty: bool,
        /// Height, width.
        #[serde(skip_serializing_if = "omit")]
        console_size: Option<[u32; 2]>,
        attach_stdin: bool,
        attach_stderr: bool,
        attach_stdout: bool,
        /// Docker's Python client writes it with a small letter.
        #[serde(alias = "detachKeys")]
        detach_keys: String,
        env: List<String>,
        working_dir: String,
        cmd: List<String>,
        detach: bool,
    }

    /// `POST /exec/{id}/start`.
    pub struct ExecStartRequest {
        detach: bool,
        tty: bool,
        /// Height, width.
        #[serde(skip_serializing_if = "omit")]
        console_size: Option<[u32; 2]>,
    }

    /// `GET /exec/{id}/json`.
    pub struct ExecInspect {
        #[serde(rename = "ID")]
        id: String,
        running: bool,
        /// `null` until it has ended.
        exit_code: Option<i64>,
        process_config: ExecProcessConfig,
        open_stdin: bool,
        open_stderr: bool,
        open_stdout: bool,
        can_remove: bool,
        #[serde(rename = "ContainerID")]
        container_id: String,
        detach_keys: Option<String>,
        pid: i64,
    }

    pub struct ExecProcessConfig as "camelCase" {
        tty: bool,
        entrypoint: String,
        arguments: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        privileged: Option<bool>,
        #[serde(skip_serializing_if = "omit")]
        user: String,
        #[serde(skip_serializing_if = "omit")]
        working_dir: Option<String>,
    }

    pub struct IdResponse {
        id: String,
    }
}
