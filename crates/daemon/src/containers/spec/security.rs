//! `--security-opt`: what may be said there, and what it means.

use api::types::HostConfig;

use super::seccomp::Profile;
use crate::error::{Error, Result};

/// The meaning of a container's security options.
#[derive(Debug, Default)]
pub struct Security {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// The filter; `None` is unconfined.
    pub seccomp: Option<Profile>,
    /// `systempaths=unconfined`: nothing in /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// `apparmor=…`, where the kernel has AppArmor; where it has none nothing is confined by it.
    pub apparmor: Option<String>,
}

impl Security {
    /// Reads the options of a container.
    pub fn parse(host: &HostConfig) -> Result<Self> {
        let mut security =
            Self { seccomp: if host.privileged { None } else { Some(Profile::docker_default()) }, ..Self::default() };
        for option in &host.security_opt {
            let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
            match (key, value) {
                ("no-new-privileges", "") => security.no_new_privileges = true,
                ("no-new-privileges", v) => {
                    security.no_new_privileges = v.parse().map_err(|_| invalid(option))?;
                }
                ("seccomp", "unconfined") => security.seccomp = None,
                ("seccomp", "builtin") => security.seccomp = Some(Profile::docker_default()),
                ("seccomp", text) => security.seccomp = Some(Profile::parse(text)?),
                ("systempaths", "unconfined") => security.unmasked = true,
                ("apparmor", profile) => security.apparmor = Some(profile.to_owned()),
                ("label", _) => {}
                ("writable-cgroups", _) => {
                    return Err(Error::NotImplemented("security option writable-cgroups is not implemented".into()));
                }
                _ if key == option => {
                    return Err(Error::InvalidParameter(format!("invalid --security-opt 1: \"{option}\"")));
                }
                _ => return Err(invalid(option)),
            }
        }
        if !has_apparmor() {
            security.apparmor = None;
        }
        Ok(security)
    }
}

/// Says what is asked of this kernel in vain.
pub fn warnings(host: &HostConfig) -> Vec<String> {
    let profile =
        host.security_opt.iter().filter_map(|o| o.strip_prefix("apparmor").and_then(|o| o.get(1..))).next_back();
    match profile {
        Some(profile) if profile != "unconfined" && !has_apparmor() => {
            vec![format!("This kernel has no AppArmor. Profile {profile} discarded.")]
        }
        _ => Vec::new(),
    }
}

fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn invalid(option: &str) -> Error {
    Error::InvalidParameter(format!("invalid --security-opt 2: \"{option}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Security> {
        Security::parse(&HostConfig {
            security_opt: options.iter().map(|&s| s.to_owned()).collect(),
            ..HostConfig::default()
        })
    }

    #[test]
    fn options() {
        assert!(parse(&[]).unwrap().seccomp.is_some());
        assert!(parse(&["seccomp=unconfined"]).unwrap().seccomp.is_none());
        assert!(parse(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(!parse(&["no-new-privileges:false"]).unwrap().no_new_privileges);
        assert!(parse(&["nonsense=1"]).is_err());
        let privileged = HostConfig { privileged: true, ..HostConfig::default() };
        assert!(Security::parse(&privileged).unwrap().seccomp.is_none());
    }
}
