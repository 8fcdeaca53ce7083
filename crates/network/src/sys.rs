//! Small things of the operating system: locks that shrug off poison, sysctls, random ids.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng;

use crate::{Error, Result};

/// Locks. A poisoned lock is taken all the same: every critical section here leaves its data whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes `/proc/sys/<name>`, in the network namespace of the calling thread, if the value differs.
pub(crate) fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(Error::io(path))
}

/// 64 random hexadecimal digits.
pub(crate) fn random_id() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill(&mut bytes);
    hex::encode(bytes)
}

/// A host-side interface name that nobody else is likely to have.
pub(crate) fn random_veth_name() -> String {
    format!("veth{:07x}", rand::rng().random::<u32>() & 0x0fff_ffff)
}

/// FNV-1a, 64 bits: tells names apart where nobody tries to make two of them collide.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A random, locally administered hardware address.
pub(crate) fn random_mac() -> [u8; 6] {
    let mut mac = [0u8; 6];
    rand::rng().fill(&mut mac);
    mac[0] = (mac[0] & 0xfe) | 0x02;
    mac
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Io { what: "network worker".to_owned(), source: std::io::Error::other(error) })?
}
