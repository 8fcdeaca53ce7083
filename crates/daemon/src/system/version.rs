//! `docker version`.

use api::types::{ComponentVersion, Map, SystemVersion, VersionPlatform};

use crate::Daemon;

/// The commit this was built from, if the build was told.
const GIT_COMMIT: Option<&str> = option_env!("DORMOUSE_GIT_COMMIT");

impl Daemon {
    pub(super) fn system_version(&self) -> SystemVersion {
        let version = self.config.version;
        let commit = GIT_COMMIT.unwrap_or("unknown");
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let arch = architecture();
        let engine = Map::from_iter([
            ("ApiVersion", api::API_VERSION.to_owned()),
            ("Arch", arch.to_owned()),
            ("BuildTime", String::new()),
            ("Experimental", "true".to_owned()),
            ("GitCommit", commit.to_owned()),
            ("GoVersion", "none (Rust)".to_owned()),
            ("KernelVersion", kernel.clone()),
            ("MinAPIVersion", api::MIN_API_VERSION.to_owned()),
            ("Os", "linux".to_owned()),
        ]);
        let component = |name: &str, details| ComponentVersion { name: name.into(), version: version.into(), details };
        let details = || Map::from_iter([("GitCommit", commit.to_owned())]);
        SystemVersion {
            platform: VersionPlatform { name: "Dormouse Engine".into() },
            components: vec![
                component("Engine", engine),
                component("docker-containerd", details()),
                component("docker-runc", details()),
            ]
            .into(),
            version: version.into(),
            api_version: api::API_VERSION.into(),
            min_api_version: api::MIN_API_VERSION.into(),
            git_commit: commit.into(),
            go_version: "none (Rust)".into(),
            os: "linux".into(),
            arch: arch.into(),
            kernel_version: kernel,
            experimental: true,
            build_time: String::new(),
        }
    }
}

/// Go's name of this architecture, which clients expect.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
