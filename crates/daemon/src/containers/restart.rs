//! The restart policy: whether a container that ended is started again, and after how long.

use std::time::Duration;

use api::types::RestartPolicy;

/// The wait before the first restart; it doubles each time the container did not stay up.
pub const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A container that ran this long starts again with the shortest wait.
pub const STAYED_UP: Duration = Duration::from_secs(10);

/// Shall it run again?
pub fn wanted(policy: &RestartPolicy, exit_code: i64, manually_stopped: bool, restarts: u64) -> bool {
    if manually_stopped {
        return false;
    }
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let left = policy.maximum_retry_count == 0 || restarts < policy.maximum_retry_count as u64;
            exit_code != 0 && left
        }
        _ => false,
    }
}

/// Shall it run when the daemon starts?
pub fn wanted_at_boot(policy: &RestartPolicy, manually_stopped: bool, was_running: bool, exit_code: i64) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !manually_stopped,
        "on-failure" => was_running || (exit_code != 0 && !manually_stopped),
        _ => false,
    }
}

/// The wait after the present one, for a container that ran `uptime`.
pub fn next_wait(present: Duration, uptime: Duration) -> Duration {
    if uptime >= STAYED_UP { FIRST_WAIT } else { (present * 2).min(LONGEST_WAIT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = |name: &str, maximum_retry_count| RestartPolicy { name: name.into(), maximum_retry_count };
        assert!(!wanted(&policy("no", 0), 1, false, 0));
        assert!(wanted(&policy("always", 0), 0, false, 9) && !wanted(&policy("always", 0), 1, true, 0));
        assert!(wanted(&policy("on-failure", 2), 1, false, 1) && !wanted(&policy("on-failure", 2), 1, false, 2));
        assert!(!wanted(&policy("on-failure", 0), 0, false, 0));
        assert!(wanted_at_boot(&policy("always", 0), true, false, 0));
        assert!(!wanted_at_boot(&policy("unless-stopped", 0), true, true, 0));
    }

    #[test]
    fn waits_grow_and_fall_back() {
        assert_eq!(next_wait(FIRST_WAIT, Duration::ZERO), FIRST_WAIT * 2);
        assert_eq!(next_wait(LONGEST_WAIT, Duration::ZERO), LONGEST_WAIT);
        assert_eq!(next_wait(LONGEST_WAIT, STAYED_UP), FIRST_WAIT);
    }
}
