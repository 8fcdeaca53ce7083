//! The options that Docker's dockerd has and this one refuses, so that nobody believes they do something.

/// Flags and keys of daemon.json, by their names there.
const NOT_IMPLEMENTED: [&str; 48] = [
    "allow-direct-routing",
    "allow-nondistributable-artifacts",
    "api-cors-header",
    "authorization-plugin",
    "authorization-plugins",
    "bip6",
    "bridge-accept-fwmark",
    "builder",
    "cdi-spec-dir",
    "cdi-spec-dirs",
    "containerd-namespace",
    "containerd-plugin-namespace",
    "containerd-plugins-namespace",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cri-containerd",
    "default-cgroupns-mode",
    "default-gateway",
    "default-gateway-v6",
    "default-ipc-mode",
    "default-network-opt",
    "default-network-opts",
    "default-stop-timeout",
    "feature",
    "features",
    "firewall-backend",
    "fixed-cidr-v6",
    "http-proxy",
    "https-proxy",
    "ip-forward-no-drop",
    "ip6tables",
    "ipv6",
    "max-download-attempts",
    "metrics-addr",
    "min-api-version",
    "network-control-plane-mtu",
    "network-diagnostic-port",
    "no-new-privileges",
    "no-proxy",
    "node-generic-resource",
    "node-generic-resources",
    "proxies",
    "rootless",
    "seccomp-profile",
    "selinux-enabled",
    "swarm-default-advertise-addr",
    "userland-proxy-path",
    "userns-remap",
];

/// Options that are storage's: there is one driver, and it has none.
const STORAGE: [&str; 2] = ["storage-opt", "storage-opts"];

/// Why this option is refused; `None` when Docker does not know it either.
pub fn reason(name: &str) -> Option<&'static str> {
    if NOT_IMPLEMENTED.contains(&name) {
        return Some("not implemented");
    }
    if STORAGE.contains(&name) {
        return Some("not implemented: the storage driver overlay2 has no options here");
    }
    (name == "restart").then_some("removed; use a restart policy on docker run")
}
