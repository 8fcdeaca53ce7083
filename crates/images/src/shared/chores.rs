//! What is done after the answer: deleting what was set apart, and the sync that makes new layers durable.
//!
//! One thread, which is there only while there is something to do. Killed at any point it leaves names that the next start
//! deletes, and rows that the next start syncs. Deleting comes first: what is gone need not be written.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Shared;
use crate::Digest;

/// More than this many trees do not wait: who removes faster than the disk deletes has to wait for it.
const MAX_WAITING: usize = 64;

/// What waits to be done.
#[derive(Default)]
pub(super) struct Chores {
    waiting: Mutex<Waiting>,
    idle: Condvar,
}

#[derive(Default)]
struct Waiting {
    delete: VecDeque<PathBuf>,
    sync: Vec<Digest>,
    working: bool,
}

enum Chore {
    Delete(PathBuf),
    Sync(Vec<Digest>),
}

impl Chores {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next chore; with none left the thread is done.
    fn next(&self) -> Option<Chore> {
        let mut waiting = self.lock();
        if let Some(path) = waiting.delete.pop_front() {
            return Some(Chore::Delete(path));
        }
        if !waiting.sync.is_empty() {
            return Some(Chore::Sync(std::mem::take(&mut waiting.sync)));
        }
        waiting.working = false;
        self.idle.notify_all();
        None
    }
}

impl Shared {
    /// Deletes what was set apart, soon.
    pub(crate) fn delete_later(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut waiting = self.chores.lock();
        let mut now = Vec::new();
        for path in paths {
            if waiting.delete.len() < MAX_WAITING { waiting.delete.push_back(path) } else { now.push(path) }
        }
        self.work(waiting);
        now.iter().for_each(|path| remove_tree(path));
    }

    /// Makes new layers durable, soon.
    pub(super) fn sync_later(&self, mut chains: Vec<Digest>) {
        let mut waiting = self.chores.lock();
        waiting.sync.append(&mut chains);
        self.work(waiting);
    }

    /// Waits until there is nothing to do.
    #[cfg(test)]
    pub(crate) fn rest(&self) {
        let waiting = self.chores.lock();
        drop(self.chores.idle.wait_while(waiting, |waiting| waiting.working).unwrap());
    }

    /// Starts the thread, unless it runs or there is nothing for it.
    fn work(&self, mut waiting: MutexGuard<'_, Waiting>) {
        if waiting.working || (waiting.delete.is_empty() && waiting.sync.is_empty()) {
            return;
        }
        let Some(shared) = self.me.upgrade() else { return };
        let started = std::thread::Builder::new().name("image-chores".into()).spawn(move || {
            while let Some(chore) = shared.chores.next() {
                shared.do_chore(chore);
            }
        });
        match started {
            Ok(_) => waiting.working = true,
            // Tried again with the next chore, and at the next start.
            Err(error) => tracing::warn!(%error, "cannot start the thread that deletes and syncs"),
        }
    }

    fn do_chore(&self, chore: Chore) {
        match chore {
            Chore::Delete(path) => remove_tree(&path),
            Chore::Sync(chains) => {
                if let Err(error) = self.sync_layers(&chains) {
                    tracing::warn!(%error, "new layers would not survive a power cut yet");
                }
            }
        }
    }
}

/// Deletes a tree or a file; what cannot be deleted now is reported and is tried again at the next start.
pub(crate) fn remove_tree(path: &Path) {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot delete what is no longer used");
        }
        _ => {}
    }
}
