//! What users and images say of a container, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use std::io;
use std::path::Path;

use api::types::ContainerCreateRequest;

use super::record::Record;
use super::spec::{self, seccomp, security, user};
use super::{mounts, network, top, validate};

/// The body of a create: everything that is checked and planned before anything is made.
pub fn create(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<ContainerCreateRequest>(data) else { return };
    let (config, host) = (request.config, request.host_config.unwrap_or_default());
    if validate::check_by_itself(&config, &host, &[]).is_err() {
        return;
    }
    for plan in mounts::plan(&config, &host, Vec::new()).unwrap_or_default() {
        let inside = Path::new(&plan.destination);
        let plain = inside.components().skip(1).all(|c| matches!(c, std::path::Component::Normal(_)));
        assert!(inside.is_absolute() && plain, "a mount at {inside:?}");
    }
    let _ = spec::resources::to_oci(&host.resources, host.oom_score_adj);
    let _ = spec::resources::to_update(&host.resources);
    if let Ok(security) = security::Security::parse(&host) {
        let _ = security;
    }
}

/// A container's row in the database, and what a start makes of it.
pub fn record(data: &[u8]) {
    let Some(record) = std::str::from_utf8(data).ok().and_then(|text| crate::records::parse(ID, text)) else { return };
    let _ = (record.short_id(), record.network_mode(), record.tty());
    for (name, settings) in &record.networks {
        let _ = network::endpoint_request(&record, name, settings, true, None);
    }
    let text = serde_json::to_string(&record).unwrap_or_default();
    let again: Option<Record> = crate::records::parse(ID, &text);
    assert!(again.is_some_and(|again| again.mounts.len() == record.mounts.len()), "a record cannot be read again");
}

/// The id of the row.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A seccomp profile, as a user gives it.
pub fn seccomp_profile(data: &[u8]) {
    if let Some(profile) = std::str::from_utf8(data).ok().and_then(|text| seccomp::Profile::parse(text).ok()) {
        let _ = profile.resolve(&["CAP_SYS_ADMIN".to_owned()]);
        let _ = profile.resolve(&[]);
    }
}

/// An image's `/etc/passwd` and `/etc/group`, and who is asked for in its first line; `dir` is a scratch directory.
pub fn users(data: &[u8], dir: &Path) -> io::Result<()> {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let asked = String::from_utf8_lossy(&data[..end]);
    std::fs::create_dir_all(dir.join("etc"))?;
    for file in ["passwd", "group"] {
        std::fs::write(dir.join("etc").join(file), &data[end..])?;
    }
    if let Ok(user) = user::resolve(dir, &asked, &["wheel".to_owned()]) {
        assert!(user.additional_gids.contains(&user.gid));
    }
    Ok(())
}

/// The output of a `ps` with a user's arguments.
pub fn processes(data: &[u8]) {
    let _ = top::parse(&String::from_utf8_lossy(data), &[1, 2, 7]);
}
