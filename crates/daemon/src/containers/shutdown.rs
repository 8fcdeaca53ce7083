//! The daemon's own end.

use std::sync::Arc;
use std::time::Duration;

use crate::Daemon;
use crate::error::Result;

impl Daemon {
    /// Is the daemon on its way out?
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Stops all containers, side by side, unless they are to live on. Their policies start them again at the next boot.
    pub async fn shutdown(self: &Arc<Self>) -> Result<()> {
        self.stopping.cancel();
        if self.config.live_restore {
            return Ok(());
        }
        let stops = self.containers.all().into_iter().filter(|c| c.record().state.is_active()).map(|container| {
            let daemon = self.clone();
            async move {
                let stopped = daemon.stop(&container, None, None, false).await;
                if let Err(e) = stopped {
                    tracing::error!("stopping {}: {e}", container.record().short_id());
                }
            }
        });
        let all = futures::future::join_all(stops);
        let longest = u64::try_from(self.config.shutdown_timeout_seconds).map_or(Duration::MAX, Duration::from_secs);
        if tokio::time::timeout(longest, all).await.is_err() {
            tracing::error!("some containers did not stop within {} s", longest.as_secs());
        }
        Ok(())
    }
}
