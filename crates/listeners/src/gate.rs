//! The accept gate: listening begins at once, serving when the gate is opened.

use std::sync::Arc;

use tokio::sync::watch;

/// Opens once, for all listeners that were given a clone of it. Dropping all of them does not open it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A gate that is shut.
    pub fn closed() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    /// A gate that holds nobody up.
    pub fn opened() -> Self {
        Self(Arc::new(watch::channel(true).0))
    }

    /// Opens it, for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open.
    pub async fn wait(&self) {
        // The sender is held by `self`: this cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
