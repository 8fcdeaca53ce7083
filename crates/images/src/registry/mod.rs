//! Registries: pull, push, login, search, by the OCI distribution specification and Docker's token service.
//!
//! Written on `reqwest` rather than `oci-client`: that crate bounds neither manifests nor bodies by their descriptors,
//! cannot tell progress inside a blob or go on with a broken one by itself, sets TLS and plain HTTP for a whole client
//! instead of a host, and keeps no registry's own words in its errors, all of which a user of Docker sees.
//!
//! Everything here is asynchronous and is cancelled by dropping it: downloads end with the future, and what they left is
//! removed. Unpacking and reading layers happens on tokio's blocking threads; one layer that is being unpacked when its
//! pull is dropped is unpacked to its end and then removed.

mod auth;
mod download;
mod failure;
mod fetch;
#[doc(hidden)]
pub mod fuzz;
mod inspect;
mod pull;
mod push;
mod search;
mod session;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::mpsc;

use crate::{Images, Progress};

pub use auth::Login;
pub use fetch::Fetched;
pub use inspect::RemoteImage;
pub use pull::{PullRequest, Pulled};
pub use push::Pushed;
pub use search::SearchResult;

/// Docker's registry has another address than its name.
const DOCKER_DOMAIN: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Hosts, `host:port`s or networks (`10.0.0.0/8`) that may be spoken to without TLS or with a certificate that cannot
    /// be verified. Loopback addresses always may.
    pub insecure: Vec<String>,
    /// URLs that are tried before Docker's own registry.
    pub mirrors: Vec<String>,
    /// Where certificates for single hosts are: `<dir>/<host[:port]>/{ca.crt,client.cert,client.key}`.
    pub certs_dir: PathBuf,
    /// Layers downloaded at a time.
    pub concurrent_downloads: usize,
    /// Layers uploaded at a time.
    pub concurrent_uploads: usize,
    /// How often a download that broke is taken up again.
    pub attempts: u32,
    /// What this client calls itself.
    pub user_agent: String,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            certs_dir: PathBuf::from("/etc/docker/certs.d"),
            concurrent_downloads: 3,
            concurrent_uploads: 5,
            attempts: 5,
            user_agent: concat!("dormouse/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// Who asks a registry. All empty: nobody in particular.
#[derive(Clone, Default)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A refresh token, used instead of a password.
    pub identity_token: String,
    /// A bearer token to use as it is.
    pub registry_token: String,
}

/// Passwords do not appear in logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The way to registries, and the images that come and go. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    images: Images,
    options: Arc<RegistryOptions>,
    locks: Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>,
}

impl Registry {
    /// Pulls into and pushes from `images`.
    pub fn new(images: Images, options: RegistryOptions) -> Self {
        Self { images, options: Arc::new(options), locks: Arc::default() }
    }

    /// Waits until nobody else does `what`, and keeps others waiting until the guard is dropped. Whoever waited finds
    /// done what the other did, or takes over when the other was cancelled.
    async fn alone(&self, what: String) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(&what).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(what, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

/// Where a transfer's progress goes.
///
/// Counts of bytes are dropped when the receiver is slow; everything else waits for it.
#[derive(Clone)]
pub struct ProgressSender(mpsc::Sender<Progress>);

impl ProgressSender {
    /// A sender and what receives from it.
    pub fn channel() -> (Self, mpsc::Receiver<Progress>) {
        let (sender, receiver) = mpsc::channel(256);
        (Self(sender), receiver)
    }

    async fn status(&self, id: &str, status: impl Into<String>) {
        // A receiver that has gone is told by the future being dropped.
        let _ = self.0.send(Progress::status(id, status)).await;
    }

    async fn aux(&self, value: serde_json::Value) {
        let _ = self.0.send(Progress::aux(value)).await;
    }

    fn bytes(&self, id: &str, status: &str, current: u64, total: u64) {
        let _ = self.0.try_send(Progress::bytes(id, status, current, Some(total)));
    }
}

/// Tells counts of bytes not more often than people can read.
struct Throttle {
    told: Option<std::time::Instant>,
}

impl Throttle {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

    fn new() -> Self {
        Self { told: None }
    }

    fn due(&mut self) -> bool {
        let due = self.told.is_none_or(|told| told.elapsed() >= Self::PAUSE);
        if due {
            self.told = Some(std::time::Instant::now());
        }
        due
    }
}

/// The daemon runs transfers as tasks of their own.
#[cfg(test)]
fn _transfers_can_be_spawned(
    registry: &'static Registry,
    request: &'static PullRequest,
    progress: &'static ProgressSender,
) {
    fn sendable(_: impl Future + Send) {}
    sendable(registry.pull(request, progress));
    sendable(registry.push(&request.reference, Credentials::default(), progress));
    sendable(registry.login("", Credentials::default()));
    sendable(registry.inspect(&request.reference, Credentials::default()));
}
