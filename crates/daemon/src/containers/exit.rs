//! The end of a run: what is told, what is taken back, and what happens next.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::container::Container;
use super::restart;
use crate::Daemon;
use crate::containerd::{Event, EventKind, INIT};
use crate::error::Result;

/// How long the rest of the output may take after the end; the shim has drained its side by then.
const DRAIN: Duration = Duration::from_secs(10);

impl Daemon {
    /// Acts upon docker-containerd's events, one after the other; what may take long goes on beside.
    pub(crate) async fn follow_containerd(self: Arc<Self>, mut events: tokio::sync::mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event.kind {
                EventKind::Exit { process, status, reason } if process == INIT => {
                    if let Some(container) = self.containers.by_id(&event.id) {
                        let daemon = self.clone();
                        tokio::spawn(
                            async move { daemon.init_exited(&container, status.into(), event.at, reason).await },
                        );
                    }
                }
                EventKind::Exit { process, status, .. } => self.exec_exited(&event.id, &process, status.into()),
                EventKind::Oom => {
                    if let Some(container) = self.containers.by_id(&event.id) {
                        if let Ok(record) = container.change(|r| {
                            r.state = r.state.oom();
                            Ok(())
                        }) {
                            self.container_event(&record, "oom", &[]);
                        }
                    }
                }
                EventKind::Other => {}
            }
        }
    }

    /// A container's first process ended.
    pub(crate) async fn init_exited(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exit_code: i64,
        at: DateTime<Utc>,
        reason: String,
    ) {
        let _op = container.op.lock().await;
        let before = container.record();
        // Told twice (replayed after a reconnect), or of a run before this one.
        if before.state.running().is_none_or(|r| at < r.started_at) {
            return;
        }
        self.stop_health_checks(container);
        if let Some(copying) = container.take_copying()
            && tokio::time::timeout(DRAIN, copying).await.is_err()
        {
            tracing::warn!("the output of {} did not end", before.short_id());
        }
        if let Some(log) = container.opened_log()
            && let Err(e) = log.end()
        {
            tracing::warn!("ending the log of {}: {e}", before.short_id());
        }
        self.execs_of_ended(&before.id);

        let host = &before.host_config;
        let again = !self.stopping()
            && restart::wanted(
                &host.restart_policy,
                exit_code,
                before.manually_stopped || before.asleep,
                before.restart_count,
            );
        let changed = container.change(|r| {
            r.state = r.state.exited(exit_code, at, again, reason.clone());
            r.exits += 1;
            Ok(())
        });
        let record = match changed {
            Ok(record) => record,
            Err(e) => {
                tracing::error!("storing the end of {}: {e}", before.short_id());
                container.record()
            }
        };
        container.hub.close_stdin();
        container.hub.end_output();
        container.hub.reset_stdin();
        self.clean_up(&record).await;
        self.attachment_events(&record, "disconnect", "unmount");
        let ran = before.state.started_at().map_or(Duration::ZERO, |s| (at - s).to_std().unwrap_or_default());
        let mut told = vec![("exitCode", exit_code.to_string()), ("execDuration", ran.as_secs().to_string())];
        if !reason.is_empty() {
            told.push(("error", reason));
        }
        self.container_event(&record, "die", &told);

        if again {
            self.restart_later(container, ran);
        } else if host.auto_remove && !before.asleep {
            self.remove_later(container);
        }
    }

    /// Starts a container again after its policy's wait, unless somebody else does something with it first.
    pub(crate) fn restart_later(self: &Arc<Self>, container: &Arc<Container>, ran: Duration) {
        let (daemon, container) = (self.clone(), container.clone());
        let (wait, cancelled) = container.next_restart(ran);
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = cancelled.cancelled() => return,
            }
            if let Err(e) = daemon.restart_now(&container, &cancelled).await {
                tracing::error!("restarting {}: {e}", container.record().short_id());
            }
        });
    }

    async fn restart_now(self: &Arc<Self>, container: &Arc<Container>, cancelled: &CancellationToken) -> Result<()> {
        let _op = container.op.lock().await;
        if cancelled.is_cancelled() || container.record().state.status() != "restarting" {
            return Ok(());
        }
        container.change(|r| {
            r.restart_count += 1;
            Ok(())
        })?;
        self.start_held(container, None).await
    }
}
