//! dockerd: flags, daemon.json, signals, boot jobs.
