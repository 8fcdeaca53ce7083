//! After a start of dockerd, however the last one ended: containers that run on are taken up again, those that ended
//! meanwhile get their exit status, what was half-made is taken back, what was half-removed is removed.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::Utc;

use super::container::Container;
use super::record::Record;
use super::restart;
use super::state::State;
use super::stdio::Fifos;
use crate::Daemon;
use crate::containerd::{EventKind, INIT, StdioPaths};
use crate::error::{Error, Result, blocking};

impl Daemon {
    /// Brings records, docker-containerd's containers, networks and directories in line, then follows events.
    pub(crate) async fn recover(self: Arc<Self>) -> Result<()> {
        // Followed from now on: an exit between the look and the follow is not missed.
        let events = self.containerd.follow_events(Utc::now());
        let mut live = HashSet::new();
        let mut ended = Vec::new();
        let mut was_running = HashSet::new();
        for container in self.containers.all() {
            let record = container.record();
            if record.state.is_active() {
                was_running.insert(record.id.clone());
            }
            if record.state.running().is_none() {
                continue;
            }
            let state = self.containerd.state(&record.id).await?;
            let pid = state.and_then(|c| c.processes.into_iter().find(|p| p.pid == INIT)).map(|p| p.system_pid);
            match pid {
                Some(pid) => {
                    live.insert(record.id.clone());
                    self.take_up(&container, pid).await;
                }
                None => ended.push(container),
            }
        }
        self.networks.reconcile(&live).await?;
        self.kill_unknown(&live).await?;
        for container in self.containers.all().iter().filter(|container| !live.contains(&container.id)) {
            if let Err(e) = self.settle_unfinished(container).await {
                tracing::warn!("settling a checkpoint of {}: {e}", container.record().short_id());
            }
        }
        for container in ended {
            let record = container.record();
            // What it wrote last is still in the FIFOs, or in the hands of its shim.
            self.connect_output(&container, true);
            let (status, at, reason) = self.last_exit(&record).await;
            self.init_exited(&container, status, at, reason).await;
        }
        let sleeping = |container: &Arc<Container>| container.record().asleep.then(|| container.id.clone());
        self.networks.unreserve_others(self.containers.all().iter().filter_map(sleeping).collect()).await?;
        self.sweep(&live).await;
        tokio::spawn(self.clone().follow_containerd(events));
        self.start_by_policy(&was_running);
        Ok(())
    }

    /// Connects to a container that runs on.
    async fn take_up(self: &Arc<Self>, container: &Arc<Container>, pid: u32) {
        self.connect_output(container, false);
        let record = container.record();
        if let State::Running(running) = &record.state
            && running.pid as u32 != pid
        {
            let stored = container.change(|r| {
                if let State::Running(running) = &mut r.state {
                    running.pid = pid as i32;
                }
                Ok(())
            });
            if let Err(e) = stored {
                tracing::error!("storing the pid of {}: {e}", record.short_id());
            }
        }
        self.start_health_checks(container);
        self.settle_later(container);
        tracing::info!("container {} runs on with pid {pid}", record.short_id());
    }

    /// Opens the FIFOs of a container that this dockerd did not start, and its log.
    fn connect_output(&self, container: &Arc<Container>, ended: bool) {
        let record = container.record();
        let bundle = Record::bundle(&self.config.exec_root, &record.id);
        let fifo = |name: &str, wanted: bool| {
            Some(bundle.join(format!("{INIT}-{name}"))).filter(|p| wanted && p.exists()).unwrap_or_default()
        };
        let paths = StdioPaths {
            stdin: fifo("stdin", record.config.open_stdin),
            stdout: fifo("stdout", true),
            stderr: fifo("stderr", !record.tty()),
        };
        let taken = Fifos::open(paths, ended).and_then(|fifos| {
            let log = self.log(container)?;
            log.begin()?;
            container.set_copying(fifos.connect(container.hub.clone(), Some(log)));
            Ok(())
        });
        if let Err(e) = taken {
            tracing::error!("the output of {} is not logged: {e}", record.short_id());
        }
    }

    /// How and when a container ended, as far as docker-containerd remembers; 255 when it does not.
    async fn last_exit(&self, record: &Record) -> (i64, chrono::DateTime<Utc>, String) {
        let since = record.state.started_at().unwrap_or(record.created);
        let events = self.containerd.past_events(&record.id, since).await.unwrap_or_else(|e| {
            tracing::warn!("asking how {} ended: {e}", record.short_id());
            Vec::new()
        });
        let exit = events.into_iter().rev().find_map(|e| match e.kind {
            EventKind::Exit { process, status, reason } if process == INIT => Some((i64::from(status), e.at, reason)),
            _ => None,
        });
        exit.unwrap_or((255, Utc::now(), String::new()))
    }

    /// Ends containers that docker-containerd runs and no record says are running: the start was cut short.
    async fn kill_unknown(&self, live: &HashSet<String>) -> Result<()> {
        for id in self.containerd.ids().await? {
            let ours = self.containers.by_id(&id).is_some() && Record::bundle(&self.config.exec_root, &id).exists();
            if ours && !live.contains(&id) {
                tracing::warn!("container {id} was being started when dockerd ended; it is stopped");
                if let Err(e) = self.containerd.signal(&id, INIT, libc::SIGKILL as u32).await {
                    tracing::warn!("stopping {id}: {e}");
                }
                self.containerd.wait_gone(&id, std::time::Duration::from_secs(10)).await?;
            }
        }
        Ok(())
    }

    /// Removes what no record names, and finishes removals.
    async fn sweep(self: &Arc<Self>, live: &HashSet<String>) {
        for container in self.containers.all() {
            let record = container.record();
            match &record.state {
                State::Removing(_) => {
                    let _op = container.op.lock().await;
                    if let Err(e) = self.remove_held(&container, true).await {
                        tracing::error!("finishing the removal of {}: {e}", record.short_id());
                    }
                }
                _ if !live.contains(&record.id) => self.clean_up(&record).await,
                _ => {}
            }
        }
        let daemon = self.clone();
        let swept = blocking(move || {
            let known: HashSet<String> = daemon.containers.all().iter().map(|c| c.id.clone()).collect();
            for layer in daemon.images.container_layers() {
                if !known.contains(&layer) {
                    daemon.images.remove_layer(&layer)?;
                }
            }
            let dir = daemon.config.data_root.join("containers");
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.to_str().is_some_and(|n| n.len() == 64 && !known.contains(n)) {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
            daemon.settle_all(&dir);
            Ok::<_, Error>(())
        });
        if let Err(e) = swept.await {
            tracing::warn!("sweeping what was left over: {e}");
        }
    }

    /// Starts what its policy says shall run.
    fn start_by_policy(self: &Arc<Self>, was_running: &HashSet<String>) {
        for container in self.containers.all() {
            let record = container.record();
            let state = &record.state;
            if state.running().is_some() || matches!(state, State::Removing(_) | State::Dead(_)) {
                continue;
            }
            let policy = &record.host_config.restart_policy;
            let before = was_running.contains(&record.id);
            let never_ran = matches!(state, State::Created { .. });
            let wanted = !never_ran
                && restart::wanted_at_boot(policy, record.manually_stopped, before, state.exit_code())
                && !record.asleep;
            if wanted {
                let daemon = self.clone();
                tokio::spawn(async move {
                    let _op = container.op.lock().await;
                    if container.record().state.check_start().is_err() {
                        return;
                    }
                    if let Err(e) = daemon.start_held(&container, None).await {
                        tracing::error!("starting {} by its restart policy: {e}", container.record().short_id());
                    }
                });
            } else if matches!(state, State::Restarting(_)) {
                let given_up = container.change(|r| {
                    r.state = r.state.restart_given_up();
                    Ok(())
                });
                if let Err(e) = given_up {
                    tracing::error!("storing the state of {}: {e}", record.short_id());
                }
            }
        }
    }
}
