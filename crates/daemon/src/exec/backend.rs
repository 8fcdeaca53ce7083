//! Exec'd processes as the API sees them.

use api::backend::{Attached, ExecBackend};
use api::types::{ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest, IdResponse};
use async_trait::async_trait;

use super::registry::ExecState;
use crate::Daemon;
use crate::error::Error;

type Result<T> = std::result::Result<T, api::Error>;

#[async_trait]
impl ExecBackend for Daemon {
    async fn create(&self, container: &str, request: ExecCreateRequest) -> Result<IdResponse> {
        Ok(IdResponse { id: self.exec_create(container, request)? })
    }

    async fn start_detached(&self, id: &str, _request: ExecStartRequest) -> Result<()> {
        Ok(self.arc().exec_start_detached(id).await?)
    }

    async fn start_attached(&self, id: &str, request: ExecStartRequest) -> Result<Attached> {
        Ok(self.arc().exec_start_attached(id, request).await?)
    }

    async fn resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let exec = self.execs.get(id)?;
        if !matches!(*exec.state.borrow(), ExecState::Running { .. }) {
            return Err(Error::Conflict(format!("cannot resize a stopped exec: {id}")).into());
        }
        Ok(self.containerd.resize(&exec.container_id, &exec.id, width, height).await?)
    }

    async fn inspect(&self, id: &str) -> Result<ExecInspect> {
        let exec = self.execs.get(id)?;
        let state = *exec.state.borrow();
        let config = &exec.config;
        let mut words = config.cmd.iter().cloned();
        Ok(ExecInspect {
            id: exec.id.clone(),
            running: matches!(state, ExecState::Starting | ExecState::Running { .. }),
            exit_code: exec.exit_code(),
            process_config: ExecProcessConfig {
                tty: config.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: Some(config.privileged),
                user: config.user.clone(),
                working_dir: Some(config.working_dir.clone()).filter(|d| !d.is_empty()),
            },
            open_stdin: config.attach_stdin,
            open_stderr: config.attach_stderr,
            open_stdout: config.attach_stdout,
            can_remove: exec.exit_code().is_some(),
            container_id: exec.container_id.clone(),
            detach_keys: Some(config.detach_keys.clone()),
            pid: match state {
                ExecState::Running { pid } => pid.into(),
                _ => 0,
            },
        })
    }
}
