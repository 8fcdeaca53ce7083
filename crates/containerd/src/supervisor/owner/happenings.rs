//! What the owner of the table hears: starts that have come to their end, exits, shims that have gone.

use std::sync::Arc;

use containerd_api::types;
use shim::protocol::Exit;
use tracing::{debug, info};

use super::{Entry, Owner, Phase, Process, refuse};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::metrics::Metrics;
use crate::shims::{Key, Notice};
use crate::statedir::{INIT, ProcessDir};
use crate::supervisor::exits::{self, Cause, Ended};
use crate::supervisor::restore::Adopted;
use crate::supervisor::{Internal, Reply, Shared, exec, start};

impl Owner {
    pub(super) fn internal(&mut self, message: Internal) {
        match message {
            Internal::Started { key, result, reply } => self.started(&key, result, reply),
            Internal::Added { key, pid, result, reply } => self.added(&key, &pid, result, reply),
            Internal::Ended { key, ended, reported } => self.ended(&key, ended, reported),
            Internal::Oom(key) => {
                if let Some(Entry { phase: Phase::Running(_) | Phase::Ending(_), .. }) = self.entry(&key) {
                    info!(id = %key.id, "a container is out of memory");
                    self.shared.hub.publish(EventKind::Oom, &key.id, "", 0);
                }
            }
            Internal::Adopt { adopted, done } => {
                self.adopt(adopted);
                // The restorer waits for it unless the program ends.
                let _ = done.send(());
            }
        }
    }

    fn entry(&mut self, key: &Key) -> Option<&mut Entry> {
        self.table.get_mut(&key.id).filter(|entry| entry.key == *key)
    }

    fn started(&mut self, key: &Key, result: Result<start::Started>, reply: Reply<types::CreateContainerResponse>) {
        let started = match result {
            Ok(started) => started,
            Err(error) => {
                debug!(id = %key.id, %error, "a container was not started");
                self.table.remove(&key.id);
                return refuse(reply, error);
            }
        };
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else { return refuse(reply, Error::Closing) };
        let start::Started { container, process, restore_stats } = started;
        let host = container.init();
        entry.processes.insert(INIT.to_owned(), Process::Running { api: Box::new(process), host });
        let api = entry.to_api(&container);
        entry.phase = Phase::Running(Arc::clone(&container));
        let early = entry.early.take();
        let status = entry.early_status;
        shared.hub.publish(EventKind::StartContainer, &key.id, "", 0);
        container.dir.process(INIT).mark_announced();
        // A client that has gone meanwhile sees the container in the next State.
        let _ = reply.send(Ok(types::CreateContainerResponse { container: Some(api), restore_stats }));
        if let Some(cause) = early {
            self.end(key, cause, status);
        }
    }

    fn added(&mut self, key: &Key, pid: &str, result: Result<exec::Added>, reply: Reply<types::AddProcessResponse>) {
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else {
            return refuse(reply, result.err().unwrap_or(Error::ContainerNotFound));
        };
        let early = match entry.processes.remove(pid) {
            Some(Process::Starting { exit }) => exit,
            _ => None,
        };
        let added = match result {
            Ok(added) => added,
            Err(error) => return refuse(reply, error),
        };
        let system_pid = added.process.system_pid;
        let process = Process::Running { api: Box::new(added.process), host: added.host };
        entry.processes.insert(pid.to_owned(), process);
        let dir = shared.config.state_dir.container(&key.id).process(pid);
        shared.hub.publish(EventKind::StartProcess, &key.id, pid, 0);
        dir.mark_announced();
        let _ = reply.send(Ok(types::AddProcessResponse { system_pid }));
        if let Some(status) = early {
            self.process_exited(key, pid, status);
        }
    }

    pub(super) fn notice(&mut self, key: &Key, notice: Notice) {
        match notice {
            Notice::Exit(Exit { process, status, .. }) if process == INIT => {
                self.end(key, Cause::Reported, Some(u32::from(status)));
            }
            Notice::Exit(Exit { process, status, .. }) => self.process_exited(key, &process, u32::from(status)),
            Notice::Gone => self.end(key, Cause::Orphaned, None),
        }
    }

    /// A process that was added has ended.
    fn process_exited(&mut self, key: &Key, pid: &str, status: u32) {
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else { return };
        match entry.processes.get_mut(pid) {
            None => return,
            Some(Process::Starting { exit }) => {
                *exit = Some(status);
                return;
            }
            Some(Process::Running { .. }) => drop(entry.processes.remove(pid)),
        }
        let _time = Metrics::time(&shared.metrics.exit_process);
        let dir = shared.config.state_dir.container(&key.id).process(pid);
        announce_process_exit(&shared, &key.id, pid, status, &dir);
    }

    /// The first process has ended, or the shim has.
    fn end(&mut self, key: &Key, cause: Cause, status: Option<u32>) {
        let shared = Arc::clone(&self.shared);
        let Some(entry) = self.entry(key) else { return };
        let container = match &entry.phase {
            Phase::Running(container) => Arc::clone(container),
            Phase::Starting => {
                // A reported exit is followed by the end of the shim.
                entry.early.get_or_insert(cause);
                entry.early_status = entry.early_status.or(status);
                return;
            }
            Phase::Ending(_) => return,
        };
        entry.phase = Phase::Ending(Arc::clone(&container));
        let processes = entry.processes.keys().cloned().collect();
        let key = key.clone();
        tokio::spawn(async move {
            let ended = exits::finish(&shared, &container, processes, cause).await;
            let _ = shared.internal.send(Internal::Ended { key, ended, reported: status }).await;
        });
    }

    /// Nothing is left of the container but to say so.
    fn ended(&mut self, key: &Key, ended: Ended, reported: Option<u32>) {
        if self.entry(key).is_none() {
            return;
        }
        let Some(entry) = self.table.remove(&key.id) else { return };
        let shared = &self.shared;
        let _time = Metrics::time(&shared.metrics.exit_process);
        for (pid, process) in &entry.processes {
            if pid == INIT || matches!(process, Process::Starting { .. }) {
                continue;
            }
            let status = ended.statuses.get(pid).copied().unwrap_or(exits::UNKNOWN_STATUS);
            shared.hub.publish(EventKind::Exit, &key.id, pid, status);
        }
        let status = exits::init_status(&ended, reported);
        info!(id = %key.id, status, "container ended");
        shared.hub.publish_end(EventKind::Exit, &key.id, INIT, status, ended.reason);
        if let Some(retired) = ended.retired {
            remove_later(move || retired.remove());
        }
    }

    /// Enters a container that was running before this program was started.
    fn adopt(&mut self, adopted: Adopted) {
        self.generation = self.generation.max(adopted.container.key.generation);
        let processes = adopted
            .processes
            .into_iter()
            .map(|(pid, api, host)| (pid, Process::Running { api: Box::new(api), host }))
            .collect();
        let key = adopted.container.key.clone();
        let entry = Entry {
            key: key.clone(),
            phase: Phase::Running(adopted.container),
            processes,
            early: None,
            early_status: None,
        };
        self.table.insert(key.id, entry);
    }
}

/// Moves the process's directory aside, announces the exit, removes the directory: see [`exits`] for the order.
fn announce_process_exit(shared: &Shared, id: &str, pid: &str, status: u32, dir: &ProcessDir) {
    let retired = dir.retire();
    shared.hub.publish(EventKind::Exit, id, pid, status);
    if let Ok(retired) = retired {
        remove_later(move || retired.remove());
    }
}

fn remove_later(remove: impl FnOnce() -> Result<()> + Send + 'static) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = remove() {
            tracing::warn!(%error, "cannot remove the state of what has ended");
        }
    });
}
