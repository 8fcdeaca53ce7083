//! Checkpoints that nobody finished: dockerd was killed, docker-containerd was, or the disk was full.
//!
//! Before one is begun the container's record says so (`making`), wherever it is going to be. Whoever next has to do with
//! the container's checkpoints settles it: a dump that was complete is put in place, any other is removed.

use std::path::Path;
use std::sync::Arc;

use checkpoint::Directory;

use crate::Daemon;
use crate::containers::Container;
use crate::error::{Result, blocking};

impl Daemon {
    /// Settles what is noted in a container's record. Its operation lock is held.
    pub(crate) async fn settle_making(self: &Arc<Self>, container: &Container) -> Result<()> {
        let record = container.record();
        let Some(making) = record.making.clone() else { return Ok(()) };
        if record.state.running().is_some() {
            // docker-containerd goes on with it without us.
            self.containerd.quiesce(&record.id).await?;
        }
        let directory = self.checkpoints_of(&record.id, making.dir.as_deref());
        let (settled, there) = blocking(move || Ok((directory.settle(), directory.contains(&making.name)))).await?;
        let record = container.change(|r| {
            if settled {
                r.making = None;
            }
            // Without it nothing can be woken: the restart policy has its say again.
            r.asleep = r.asleep && (there || !settled);
            Ok(())
        })?;
        if !record.asleep {
            self.unreserve(&record).await;
        }
        Ok(())
    }

    /// The same for who does not hold the lock; free when there is nothing to settle.
    pub(crate) async fn settle_unfinished(self: &Arc<Self>, container: &Container) -> Result<()> {
        if container.record().making.is_none() {
            return Ok(());
        }
        let _op = container.op.lock().await;
        self.settle_making(container).await
    }

    /// At boot, for a container that runs on: docker-containerd may be making its checkpoint at this moment.
    pub(crate) fn settle_later(self: &Arc<Self>, container: &Arc<Container>) {
        if container.record().making.is_none() {
            return;
        }
        let (daemon, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            if let Err(e) = daemon.settle_unfinished(&container).await {
                tracing::warn!("settling a checkpoint of {}: {e}", container.record().short_id());
            }
        });
    }

    /// At boot, below the directory of all containers: what no record tells of, such as a removal that was cut short.
    pub(crate) fn settle_all(&self, containers: &Path) {
        for entry in std::fs::read_dir(containers).into_iter().flatten().flatten() {
            let id = entry.file_name().into_string().unwrap_or_default();
            let making = self.containers.by_id(&id).is_some_and(|container| container.record().making.is_some());
            if !making {
                Directory::own(entry.path().join("checkpoints"), &self.seal_key).settle();
            }
        }
    }
}
