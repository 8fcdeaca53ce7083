//! A value that one job makes and others wait for.

use tokio::sync::watch;

/// Empty until it is set, once.
#[derive(Debug, Clone)]
pub struct Shared<T>(watch::Sender<Option<T>>);

impl<T: Clone> Shared<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self(watch::channel(None).0)
    }

    /// Sets it; whoever waits goes on.
    pub fn set(&self, value: T) {
        self.0.send_replace(Some(value));
    }

    /// The value, if it has been set.
    pub fn get(&self) -> Option<T> {
        self.0.borrow().clone()
    }

    /// Waits for the value.
    pub async fn wait(&self) -> T {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(value) = receiver.borrow_and_update().clone() {
                return value;
            }
            if receiver.changed().await.is_err() {
                // The sender is held by `self`.
                std::future::pending::<()>().await;
            }
        }
    }
}
