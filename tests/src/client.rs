//! What the machine's docker client can: Debian 12 has one of version 20.10.

use crate::engine::Engine;

impl Engine {
    /// Whether the client is of this major version, or a later one.
    #[track_caller]
    pub fn client_is_at_least(&self, major: u32) -> bool {
        let version = self.ok("docker version --format '{{.Client.Version}}'");
        let first = version.split('.').next().and_then(|number| number.parse::<u32>().ok());
        first.unwrap_or_else(|| panic!("no version: {version:?}")) >= major
    }

    /// Shell commands that print a terminal's size. An old client tells it only after the start.
    #[track_caller]
    pub fn size_command(&self) -> &'static str {
        match self.client_is_at_least(23) {
            true => "stty size",
            false => "while [ -z \"$(stty size 2>/dev/null)\" ]; do sleep 0.1; done; stty size",
        }
    }
}
