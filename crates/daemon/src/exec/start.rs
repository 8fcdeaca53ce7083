//! Making, starting and ending an exec'd process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::backend::{Attached, BoxStream, Output, StreamKind};
use api::types::{ExecCreateRequest, ExecStartRequest};
use containerd_api::types as wire;
use futures::{FutureExt, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::registry::{Exec, ExecState};
use crate::Daemon;
use crate::containers::attach::{detach_keys, live, with_detach_keys};
use crate::containers::names;
use crate::containers::record::Record;
use crate::containers::spec;
use crate::containers::stdio::{Fifos, Hub};
use crate::error::{Error, Result};

/// How long the rest of the output may take after the end.
const DRAIN: Duration = Duration::from_secs(10);
/// How long one that was killed may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Daemon {
    /// Prepares a process.
    pub(crate) fn exec_create(&self, container: &str, request: ExecCreateRequest) -> Result<String> {
        let container = self.running(container)?;
        let record = container.record();
        if record.state.running().is_some_and(|r| r.paused) {
            return Err(Error::Conflict(format!(
                "Container {} is paused, unpause the container before exec",
                record.name
            )));
        }
        if request.cmd.is_empty() {
            return Err(Error::InvalidParameter("No exec command specified".into()));
        }
        detach_keys(Some(&request.detach_keys))?;
        // An unknown user is told here, where the client can still show an error.
        let named = if request.user.is_empty() { &record.config.user } else { &request.user };
        let rootfs = self.images.graph_driver(&record.id)?.merged;
        spec::user::resolve(&rootfs, named, &record.host_config.group_add)?;
        let exec = Arc::new(Exec {
            id: names::random_id(),
            container_id: container.id.clone(),
            config: request,
            hub: Arc::new(Hub::default()),
            state: watch::Sender::new(ExecState::Created),
            copying: Mutex::default(),
        });
        self.exec_event(&exec, &format!("exec_create: {}", exec.command()), &[]);
        self.execs.add(exec.clone());
        Ok(exec.id.clone())
    }

    fn exec_event(&self, exec: &Exec, action: &str, more: &[(&str, String)]) {
        if let Some(container) = self.containers.by_id(&exec.container_id) {
            let mut attributes = vec![("execID", exec.id.clone())];
            attributes.extend(more.iter().cloned());
            self.container_event(&container.record(), action, &attributes);
        }
    }

    /// Starts it with nobody attached.
    pub(crate) async fn exec_start_detached(self: &Arc<Self>, id: &str) -> Result<()> {
        let exec = self.execs.get(id)?;
        self.begin(&exec)?;
        self.launch_exec(&exec, false, None).await
    }

    /// Starts it and connects to its stdio. A program that cannot be run is told on the stream, as Docker does, and its exit
    /// code says so.
    pub(crate) async fn exec_start_attached(self: &Arc<Self>, id: &str, request: ExecStartRequest) -> Result<Attached> {
        let exec = self.execs.get(id)?;
        self.begin(&exec)?;
        let config = &exec.config;
        let detached = CancellationToken::new();
        let output = live(&exec.hub, config.attach_stdout, config.attach_stderr);
        let stdin = config.attach_stdin.then(|| {
            let (daemon, held) = (self.clone(), exec.clone());
            let writer = exec.hub.stdin(async move {
                if !held.config.tty {
                    held.hub.close_stdin();
                    if let Err(e) = daemon.containerd.close_stdin(&held.container_id, &held.id).await {
                        tracing::debug!("closing stdin of exec {}: {e}", held.id);
                    }
                }
            });
            match (config.tty, detach_keys(Some(&config.detach_keys))) {
                (true, Ok(keys)) => with_detach_keys(writer, keys, detached.clone()),
                _ => writer,
            }
        });
        let size = request.console_size.or(config.console_size);
        // It runs when its output is asked for, or nobody is there to ask: an answer's headers are out by then. Clients
        // exist that lose what comes along with them.
        let (asked, told) = oneshot::channel::<()>();
        let (daemon, held) = (self.clone(), exec.clone());
        let launched = tokio::spawn(async move {
            let _ = told.await;
            daemon.launch_exec(&held, true, size).await
        });
        let output = async move {
            drop(asked);
            let error = match launched.await {
                Ok(Ok(())) => return output,
                Ok(Err(e)) => e.to_string(),
                Err(e) => format!("the launch failed: {e}"),
            };
            let told = Output { stream: StreamKind::Stdout, data: format!("{error}\r\n").into() };
            let told: BoxStream<Output> = Box::pin(futures::stream::iter([Ok(told)]));
            told
        };
        let output = output.flatten_stream().take_until(detached.cancelled_owned());
        Ok(Attached { tty: config.tty, stdin, output: Box::pin(output) })
    }

    /// Only one may start it.
    fn begin(&self, exec: &Exec) -> Result<()> {
        let container = self.running(&exec.container_id)?;
        if container.record().state.running().is_some_and(|r| r.paused) {
            return Err(Error::Conflict(format!(
                "Container {} is paused, unpause the container before exec",
                container.record().name
            )));
        }
        let mut outcome = Ok(());
        exec.state.send_if_modified(|state| {
            outcome = match state {
                ExecState::Created => Ok(()),
                ExecState::Exited { .. } => {
                    Err(Error::Conflict(format!("Error: Exec command {} has already run", exec.id)))
                }
                _ => Err(Error::Conflict(format!("Error: Exec command {} is already running", exec.id))),
            };
            if outcome.is_ok() {
                *state = ExecState::Starting;
            }
            outcome.is_ok()
        });
        outcome
    }

    async fn launch_exec(self: &Arc<Self>, exec: &Arc<Exec>, attached: bool, size: Option<[u32; 2]>) -> Result<()> {
        let started = self.try_launch(exec, attached, size).await;
        let pid = match started {
            Ok(pid) => pid,
            Err(e) => {
                let text = e.to_string();
                let lower = text.to_lowercase();
                let has = |words: &str| lower.contains(words);
                let code = match () {
                    () if has("permission denied") || has("is a directory") => 126,
                    () if has("executable file not found") || has("no such file or directory") => 127,
                    () => 126,
                };
                exec.exited(code);
                exec.hub.close_stdin();
                exec.hub.end_output();
                let text = text.trim_end();
                let text = text.strip_prefix("oci runtime error: ").unwrap_or(text);
                return Err(Error::InvalidParameter(format!("OCI runtime exec failed: {text}")));
            }
        };
        // It may have ended already; then it stays ended.
        exec.state.send_if_modified(|state| {
            let starting = matches!(state, ExecState::Starting);
            if starting {
                *state = ExecState::Running { pid };
            }
            starting
        });
        self.exec_event(exec, &format!("exec_start: {}", exec.command()), &[]);
        Ok(())
    }

    async fn try_launch(self: &Arc<Self>, exec: &Arc<Exec>, attached: bool, size: Option<[u32; 2]>) -> Result<i32> {
        let container = self.running(&exec.container_id)?;
        let record = container.record();
        let config = &exec.config;
        let bundle = Record::bundle(&self.config.exec_root, &record.id);
        let outputs = attached && (config.attach_stdout || config.attach_stderr);
        let fifos = Fifos::make(&bundle, &exec.id, attached && config.attach_stdin, outputs, config.tty)?;
        let mut request = self.add_process_request(&record, exec, &fifos)?;
        [request.console_height, request.console_width] = size.unwrap_or_default();
        let added = self.containerd.add_process(request).await;
        if added.is_ok() {
            let copying = fifos.connect(exec.hub.clone(), None);
            *exec.copying.lock().unwrap_or_else(PoisonError::into_inner) = Some(copying);
        } else {
            self.remove_fifos(exec);
        }
        added
    }

    fn add_process_request(&self, record: &Record, exec: &Exec, fifos: &Fifos) -> Result<wire::AddProcessRequest> {
        let config = &exec.config;
        let rootfs = self.images.graph_driver(&record.id)?.merged;
        let named = if config.user.is_empty() { &record.config.user } else { &config.user };
        let user = spec::user::resolve(&rootfs, named, &record.host_config.group_add)?;
        let host = &record.host_config;
        let capabilities =
            spec::tweak_capabilities(host.privileged || config.privileged, &host.cap_add, &host.cap_drop)?;
        let security = spec::security::Security::parse(host)?;
        let mut env = spec::environment(record, &user, &self.link_environment(record)?);
        if config.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
            env.push("TERM=xterm".into());
        }
        spec::merge_environment(&mut env, &config.env);
        let cwd = [config.working_dir.as_str(), record.config.working_dir.as_str(), "/"];
        let path = |p: &std::path::Path| p.to_string_lossy().into_owned();
        let rlimits = spec::rlimits(&host.resources.ulimits, &self.config.default_ulimits)?
            .into_iter()
            .map(|r| wire::Rlimit {
                r#type: r["type"].as_str().unwrap_or_default().to_owned(),
                soft: r["soft"].as_u64().unwrap_or_default(),
                hard: r["hard"].as_u64().unwrap_or_default(),
            })
            .collect();
        Ok(wire::AddProcessRequest {
            id: record.id.clone(),
            terminal: config.tty,
            user: Some(wire::User { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids }),
            args: config.cmd.to_vec(),
            env,
            cwd: cwd.into_iter().find(|c| !c.is_empty()).unwrap_or("/").to_owned(),
            pid: exec.id.clone(),
            stdin: path(&fifos.paths.stdin),
            stdout: path(&fifos.paths.stdout),
            stderr: path(&fifos.paths.stderr),
            capabilities,
            apparmor_profile: security.apparmor.unwrap_or_default(),
            no_new_privileges: security.no_new_privileges,
            rlimits,
            ..Default::default()
        })
    }

    /// docker-containerd says that one ended.
    pub(crate) fn exec_exited(self: &Arc<Self>, container_id: &str, id: &str, code: i64) {
        let Ok(exec) = self.execs.get(id) else { return };
        if exec.container_id != container_id {
            return;
        }
        let daemon = self.clone();
        tokio::spawn(async move {
            // A short process may end before its launch has taken hold of its output.
            let mut state = exec.state.subscribe();
            let _ = tokio::time::timeout(DRAIN, state.wait_for(|s| !matches!(s, ExecState::Starting))).await;
            let copying = exec.copying.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(copying) = copying
                && tokio::time::timeout(DRAIN, copying).await.is_err()
            {
                tracing::warn!("the output of exec {} did not end", exec.id);
            }
            // The code first: whoever sees the end of the output asks for it.
            if exec.exited(code) {
                daemon.exec_event(&exec, "exec_die", &[("exitCode", code.to_string())]);
            }
            exec.hub.close_stdin();
            exec.hub.end_output();
            daemon.remove_fifos(&exec);
        });
    }

    fn remove_fifos(&self, exec: &Exec) {
        let bundle = Record::bundle(&self.config.exec_root, &exec.container_id);
        for name in ["stdin", "stdout", "stderr"] {
            let _ = std::fs::remove_file(bundle.join(format!("{}-{name}", exec.id)));
        }
    }

    /// Their container ended: whatever was not told of is over.
    pub(crate) fn execs_of_ended(&self, container_id: &str) {
        for exec in self.execs.ended(container_id) {
            if exec.exited(137) {
                self.exec_event(&exec, "exec_die", &[("exitCode", "137".to_owned())]);
            }
            exec.hub.close_stdin();
            exec.hub.end_output();
        }
    }

    /// Ends one that nobody waits for any more, and forgets it.
    pub(crate) async fn exec_discard(&self, id: &str) {
        let Ok(exec) = self.execs.get(id) else { return };
        if exec.exit_code().is_none() {
            let _ = self.containerd.signal(&exec.container_id, &exec.id, libc::SIGKILL as u32).await;
            let _ = tokio::time::timeout(KILL_LIMIT, self.execs.wait(id)).await;
        }
        self.execs.remove(id);
    }
}
