//! Health checks: a command run in the container again and again, and what its exit codes come to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::types::{ExecCreateRequest, Health, HealthConfig, HealthcheckResult, Timestamp};
use futures::StreamExt;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::container::Container;
use crate::Daemon;
use crate::error::{Error, Result};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: i64 = 3;
/// How long a probe may take to end when the container is to be checkpointed; it is killed then.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
/// How long one that was killed may take.
const KILL_PATIENCE: Duration = Duration::from_secs(12);
/// How many results are kept, and how much of each one's output.
const KEPT: usize = 5;
const KEPT_OUTPUT_BYTES: usize = 4096;

/// What is known of a container's health; empty without a check.
#[derive(Default)]
pub struct HealthState {
    known: Mutex<Option<Known>>,
    running: Mutex<Option<CancellationToken>>,
    /// Held while a probe's process lives.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Known {
    status: &'static str,
    streak: i64,
    log: VecDeque<HealthcheckResult>,
}

impl HealthState {
    fn known(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `none`, `starting`, `healthy`, `unhealthy`.
    pub fn status(&self) -> &'static str {
        self.known().as_ref().map_or("none", |k| k.status)
    }

    /// As inspect shows it.
    pub fn show(&self) -> Option<Health> {
        self.known().as_ref().map(|k| Health {
            status: k.status.into(),
            failing_streak: k.streak,
            log: k.log.iter().cloned().collect(),
        })
    }

    /// Takes a result in; gives the new status when it changed.
    fn take(&self, result: HealthcheckResult, retries: i64, in_start_period: bool) -> Option<&'static str> {
        let mut known = self.known();
        let known = known.as_mut()?;
        let before = known.status;
        if result.exit_code == 0 {
            known.streak = 0;
            known.status = "healthy";
        } else if !(in_start_period && known.status == "starting") {
            known.streak += 1;
            if known.streak >= retries {
                known.status = "unhealthy";
            }
        }
        if known.log.len() == KEPT {
            known.log.pop_front();
        }
        known.log.push_back(result);
        (known.status != before).then_some(known.status)
    }
}

/// The command of a check, if there is one to run.
fn command(config: &HealthConfig, shell: &[String]) -> Option<Vec<String>> {
    let (kind, rest) = config.test.split_first()?;
    match kind.as_str() {
        "CMD" => Some(rest.to_vec()),
        "CMD-SHELL" => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = if shell.is_empty() { &default[..] } else { shell };
            Some(shell.iter().cloned().chain(rest.first().cloned()).collect())
        }
        _ => None,
    }
}

impl Daemon {
    /// Begins to check a container that has just started, or was found running.
    pub(crate) fn start_health_checks(self: &Arc<Self>, container: &Arc<Container>) {
        *container.health.known() = None;
        self.resume_health_checks(container);
    }

    /// Goes on to check a container whose checks were stopped; what is known of it stays known.
    pub(crate) fn resume_health_checks(self: &Arc<Self>, container: &Arc<Container>) {
        self.stop_health_checks(container);
        let record = container.record();
        let Some(config) = record.config.healthcheck.clone() else { return };
        let Some(command) = command(&config, &record.config.shell) else { return };
        let unknown = || Known { status: "starting", streak: 0, log: VecDeque::new() };
        container.health.known().get_or_insert_with(unknown);
        let stop = CancellationToken::new();
        *container.health.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop.clone());
        let (daemon, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = daemon.check_health(&container, &config, command) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Ends the checks; the last status stays to be seen.
    pub(crate) fn stop_health_checks(&self, container: &Container) {
        if let Some(stop) = container.health.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            stop.cancel();
        }
    }

    /// Ends the checks, and sees to it that no probe's process is left in the container: a checkpoint could not hold it.
    pub(crate) async fn rest_health_checks(&self, container: &Container) {
        // Most probes take no time, and are let finish.
        let turn = container.health.turn.clone();
        let finished = tokio::time::timeout(PROBE_PATIENCE, turn.lock()).await;
        self.stop_health_checks(container);
        if finished.is_err() {
            let _ = tokio::time::timeout(KILL_PATIENCE, turn.lock()).await;
        }
    }

    async fn check_health(self: &Arc<Self>, container: &Arc<Container>, config: &HealthConfig, command: Vec<String>) {
        let duration = |nanos: i64, default| if nanos > 0 { Duration::from_nanos(nanos as u64) } else { default };
        let interval = duration(config.interval, DEFAULT_INTERVAL);
        let timeout = duration(config.timeout, DEFAULT_TIMEOUT);
        let start_period = duration(config.start_period, Duration::ZERO);
        let start_interval = duration(config.start_interval, DEFAULT_START_INTERVAL);
        let retries = if config.retries > 0 { config.retries } else { DEFAULT_RETRIES };
        let started = tokio::time::Instant::now();
        loop {
            let starting = started.elapsed() < start_period && container.health.status() == "starting";
            tokio::time::sleep(if starting { start_interval.min(interval) } else { interval }).await;
            if container.record().state.running().is_none_or(|r| r.paused) {
                continue;
            }
            let turn = container.health.turn.clone().lock_owned().await;
            let start = Timestamp::now();
            let (exit_code, output) = match tokio::time::timeout(timeout, self.probe(container, &command, turn)).await {
                Ok(Ok(result)) => result,
                Ok(Err(e)) => (-1, e.to_string()),
                Err(_) => (-1, format!("Health check exceeded timeout ({})", humane(timeout))),
            };
            let result = HealthcheckResult { start, end: Timestamp::now(), exit_code, output };
            let in_start_period = started.elapsed() < start_period;
            if let Some(status) = container.health.take(result, retries, in_start_period) {
                self.container_event(&container.record(), &format!("health_status: {status}"), &[]);
            }
        }
    }

    /// Runs the command once.
    async fn probe(
        self: &Arc<Self>,
        container: &Arc<Container>,
        command: &[String],
        turn: OwnedMutexGuard<()>,
    ) -> Result<(i64, String)> {
        let request = ExecCreateRequest {
            cmd: command.to_vec().into(),
            attach_stdout: true,
            attach_stderr: true,
            user: container.record().config.user.clone(),
            ..ExecCreateRequest::default()
        };
        let id = self.exec_create(&container.id, request)?;
        let _kill = KillOnDrop { daemon: self.clone(), exec: id.clone(), turn: Some(turn) };
        let mut attached = self.exec_start_attached(&id, Default::default()).await?;
        let mut output = Vec::new();
        while let Some(chunk) = attached.output.next().await {
            let chunk = chunk.map_err(|e| Error::System(e.to_string()))?;
            let room = KEPT_OUTPUT_BYTES.saturating_sub(output.len());
            output.extend_from_slice(&chunk.data[..chunk.data.len().min(room)]);
        }
        let exit_code = self.execs.wait(&id).await?;
        Ok((exit_code, String::from_utf8_lossy(&output).into_owned()))
    }
}

/// A probe that takes too long is killed; its turn is over when its process is gone.
struct KillOnDrop {
    daemon: Arc<Daemon>,
    exec: String,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let (daemon, exec, turn) = (self.daemon.clone(), std::mem::take(&mut self.exec), self.turn.take());
        tokio::spawn(async move {
            daemon.exec_discard(&exec).await;
            drop(turn);
        });
    }
}

fn humane(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1.0 => format!("{}ms", duration.as_millis()),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_some_failures_and_one_success() {
        let health = HealthState::default();
        *health.known() = Some(Known { status: "starting", streak: 0, log: VecDeque::new() });
        let result = |exit_code| HealthcheckResult { exit_code, ..HealthcheckResult::default() };
        assert_eq!(health.take(result(1), 2, true), None);
        assert_eq!(health.show().unwrap().failing_streak, 0);
        assert_eq!(health.take(result(1), 2, false), None);
        assert_eq!(health.take(result(1), 2, false), Some("unhealthy"));
        assert_eq!(health.take(result(0), 2, false), Some("healthy"));
        for _ in 0..10 {
            health.take(result(0), 2, false);
        }
        assert_eq!(health.show().unwrap().log.len(), KEPT);
    }
}
