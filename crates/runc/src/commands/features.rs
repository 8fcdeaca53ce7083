//! `features`: what this runtime can do, as the OCI runtime specification's features document.

use serde_json::json;

use crate::error::{Doing, Result};
use crate::rootfs::options::WORDS;

/// The annotation by which engines learn that `checkpoint --auto` is there.
pub const AUTO_ANNOTATION: &str = "org.dormouse.checkpoint.auto";

/// The annotation by which engines learn that `checkpoint --preflight` is there.
pub const PREFLIGHT_ANNOTATION: &str = "org.dormouse.checkpoint.preflight";

/// `features`
pub fn features() -> Result<i32> {
    let capabilities: Vec<String> = {
        let mut names: Vec<_> = caps::runtime::thread_all_supported().iter().map(ToString::to_string).collect();
        names.sort();
        names
    };
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": WORDS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE"
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } }
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "org.opencontainers.runc.version": env!("CARGO_PKG_VERSION"),
            AUTO_ANNOTATION: "true",
            PREFLIGHT_ANNOTATION: "true"
        }
    });
    println!("{}", serde_json::to_string_pretty(&document).doing(|| "encode".into())?);
    Ok(0)
}
