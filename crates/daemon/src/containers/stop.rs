//! `stop`, `kill`, `restart`, `pause`, `unpause`: everything that is done to a running process.

use std::sync::Arc;
use std::time::Duration;

use api::backend::Changed;

use super::container::Container;
use super::state::{State, not_running};
use crate::Daemon;
use crate::containerd::INIT;
use crate::error::{Error, Result};

/// Seconds between the stop signal and SIGKILL when nothing else is said.
const DEFAULT_TIMEOUT_SECONDS: i64 = 10;
const SIGKILL: u32 = libc::SIGKILL as u32;

/// `KILL`, `SIGKILL`, `9`, `RTMIN+3`.
pub fn parse_signal(text: &str) -> Result<u32> {
    let invalid = || Error::InvalidParameter(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return match number {
            1..=64 => Ok(number),
            0 => Err(invalid()),
            _ => Err(Error::InvalidParameter(format!("the linux daemon does not support signal {number}"))),
        };
    }
    let upper = text.to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (real_time_min, real_time_max) = (34_u32, 64_u32);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let offset: u32 = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+').and_then(|n| n.parse().ok()).ok_or_else(invalid)?
        };
        return real_time_min.checked_add(offset).filter(|s| *s <= real_time_max).ok_or_else(invalid);
    }
    if let Some(rest) = bare.strip_prefix("RTMAX") {
        let offset: u32 = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('-').and_then(|n| n.parse().ok()).ok_or_else(invalid)?
        };
        return real_time_max.checked_sub(offset).filter(|s| *s >= real_time_min).ok_or_else(invalid);
    }
    let alias = match bare {
        "CLD" => "CHLD",
        "POLL" => "IO",
        name => name,
    };
    let signal: nix::sys::signal::Signal = format!("SIG{alias}").parse().map_err(|_| invalid())?;
    Ok(signal as u32)
}

impl Daemon {
    /// Stops a container in the time it is given.
    pub(crate) async fn container_stop(
        self: &Arc<Self>,
        name: &str,
        signal: Option<String>,
        timeout: Option<i64>,
    ) -> Result<Changed> {
        let container = self.container(name)?;
        let signal = signal.filter(|s| !s.is_empty()).map(|s| parse_signal(&s)).transpose()?;
        if !container.record().state.is_active() {
            return Ok(false);
        }
        self.stop(&container, signal, timeout, true).await?;
        self.container_event(&container.record(), "stop", &[]);
        Ok(true)
    }

    /// Ends a container's process and waits until its remains are gone. `for_good`: the restart policy shall not start
    /// it again, not even at the next boot.
    pub(crate) async fn stop(
        &self,
        container: &Arc<Container>,
        signal: Option<u32>,
        timeout: Option<i64>,
        for_good: bool,
    ) -> Result<()> {
        container.cancel_restart();
        let mut watch = container.watch();
        let record = container.change(|r| {
            r.manually_stopped |= for_good;
            r.state = r.state.restart_given_up();
            Ok(())
        })?;
        let record = match record.state.running() {
            Some(_) => record,
            None => {
                // A restart that was under way already has the lock; what it started is stopped, too.
                drop(container.op.lock().await);
                let now = container.record();
                if now.state.running().is_none() {
                    return Ok(());
                }
                now
            }
        };
        let exits = record.exits;
        let signal = match signal {
            Some(signal) => signal,
            None => stop_signal(&record.config.stop_signal)?,
        };
        let seconds = timeout.or(record.config.stop_timeout).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        self.signal_init(container, signal).await?;
        self.container_event(&record, "kill", &[("signal", signal.to_string())]);
        let ended = async { watch.wait_for(|r| r.exits > exits).await.is_ok() };
        let in_time = match u64::try_from(seconds) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok(),
            Err(_) => ended.await,
        };
        if !in_time {
            self.signal_init(container, SIGKILL).await?;
            self.container_event(&record, "kill", &[("signal", SIGKILL.to_string())]);
            self.wait_gone(container, exits).await?;
        }
        // Whoever has the lock is taking back what the run left.
        drop(container.op.lock().await);
        Ok(())
    }

    /// Waits for the end after a SIGKILL; a process that cannot be killed is said to be so.
    async fn wait_gone(&self, container: &Arc<Container>, exits: u64) -> Result<()> {
        let mut watch = container.watch();
        let ended = watch.wait_for(|r| r.exits > exits);
        match tokio::time::timeout(Duration::from_secs(30), ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::System(format!(
                "cannot stop container: {}: tried to kill container, but did not receive an exit event",
                container.record().name
            ))),
        }
    }

    /// Sends a signal to the first process, thawing the container so that it can act upon it.
    async fn signal_init(&self, container: &Arc<Container>, signal: u32) -> Result<()> {
        let record = container.record();
        let sent = self.containerd.signal(&record.id, INIT, signal).await;
        if let Some(true) = record.state.running().map(|r| r.paused) {
            self.thaw(container).await?;
        }
        match sent {
            // It ended by itself; the exit is on its way.
            Err(e)
                if ["no such process", "process not found", "container not found"]
                    .iter()
                    .any(|w| e.to_string().contains(w)) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Sends a signal; SIGKILL is waited for.
    pub(crate) async fn container_kill(&self, name: &str, signal: Option<String>) -> Result<()> {
        let signal = match signal.filter(|s| !s.is_empty()) {
            Some(text) => parse_signal(&text)?,
            None => SIGKILL,
        };
        let container = self.container(name)?;
        let record = container.record();
        if record.state.running().is_none() {
            return Err(Error::Conflict(format!("container {} is not running", record.id)));
        }
        let exits = record.exits;
        let ends = signal == SIGKILL || signal == stop_signal(&record.config.stop_signal)?;
        if ends {
            container.cancel_restart();
            container.change(|r| {
                r.manually_stopped = true;
                Ok(())
            })?;
            self.signal_init(&container, signal).await?;
        } else {
            self.containerd.signal(&record.id, INIT, signal).await?;
        }
        self.container_event(&record, "kill", &[("signal", signal.to_string())]);
        if signal == SIGKILL {
            self.wait_gone(&container, exits).await?;
            drop(container.op.lock().await);
        }
        Ok(())
    }

    /// Stops and starts.
    pub(crate) async fn container_restart(
        self: &Arc<Self>,
        name: &str,
        signal: Option<String>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let container = self.container(name)?;
        let signal = signal.filter(|s| !s.is_empty()).map(|s| parse_signal(&s)).transpose()?;
        if container.record().state.is_active() {
            // A `--rm` container outlives its restart.
            let keep = container.record().host_config.auto_remove;
            if keep {
                container.change(|r| {
                    r.host_config.auto_remove = false;
                    Ok(())
                })?;
            }
            let stopped = self.stop(&container, signal, timeout, true).await;
            if keep {
                container.change(|r| {
                    r.host_config.auto_remove = true;
                    Ok(())
                })?;
            }
            stopped?;
        }
        let _op = container.op.lock().await;
        container.change(|r| {
            r.manually_stopped = false;
            Ok(())
        })?;
        container.record().state.check_start()?;
        self.start_held(&container, None).await?;
        self.container_event(&container.record(), "restart", &[]);
        Ok(())
    }

    /// Freezes a container.
    pub(crate) async fn container_pause(&self, name: &str) -> Result<()> {
        let container = self.container(name)?;
        let _op = container.op.lock().await;
        container.record().state.paused(&container.id)?;
        self.containerd.set_paused(&container.id, true).await?;
        let record = container.change(|r| {
            r.state = r.state.paused(&r.id)?;
            Ok(())
        })?;
        self.container_event(&record, "pause", &[]);
        Ok(())
    }

    /// Thaws a container.
    pub(crate) async fn container_unpause(&self, name: &str) -> Result<()> {
        let container = self.container(name)?;
        let _op = container.op.lock().await;
        container.record().state.unpaused(&container.id)?;
        self.thaw(&container).await
    }

    async fn thaw(&self, container: &Arc<Container>) -> Result<()> {
        self.containerd.set_paused(&container.id, false).await?;
        let record = container.change(|r| {
            if let State::Running(running) = &r.state
                && running.paused
            {
                r.state = r.state.unpaused(&r.id)?;
            }
            Ok(())
        })?;
        self.container_event(&record, "unpause", &[]);
        Ok(())
    }

    /// A running container, or Docker's words for one that is not.
    pub(crate) fn running(&self, name: &str) -> Result<Arc<Container>> {
        let container = self.container(name)?;
        match &container.record().state {
            State::Running(_) => {}
            State::Restarting(_) => {
                return Err(Error::Conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => return Err(not_running(&container.id)),
        }
        Ok(container)
    }
}

fn stop_signal(configured: &str) -> Result<u32> {
    if configured.is_empty() { Ok(libc::SIGTERM as u32) } else { parse_signal(configured) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in
            [("KILL", 9), ("sigterm", 15), ("15", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("usr1", 10)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "FOO", "RTMIN+99", "RTMAX-99", "-9"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
