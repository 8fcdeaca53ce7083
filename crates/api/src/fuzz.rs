//! Entry points for fuzzing: everything in this crate that reads what somebody else wrote. None may panic or hang.

use crate::request::parse_json;
use crate::types;
use crate::version::ApiVersion;

/// The `filters` parameter.
pub fn filters(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = crate::Filters::parse(text);
    }
}

/// The `X-Registry-Auth` header.
pub fn registry_auth(data: &[u8]) {
    let _ = crate::registry_auth::decode(data);
}

/// The body of a create, as clients of all ages send it. What was read is stored and read again.
pub fn create_body(data: &[u8]) {
    let Ok(request) = parse_json::<types::ContainerCreateRequest>(data) else { return };
    for minor in [24, 39, 41, 43, 51] {
        let _ = crate::routes::create::adapt(request.clone(), ApiVersion::v1(minor));
    }
    // Fields that Go omits when they are empty come back as null: what is written is what must last.
    let write = |request: &types::ContainerCreateRequest| serde_json::to_value(request).expect("it is JSON");
    let written = write(&request);
    let again = parse_json::<types::ContainerCreateRequest>(written.to_string().as_bytes());
    assert_eq!(write(&again.expect("what was written can be read")), written);
}

/// All other bodies.
pub fn bodies(data: &[u8]) {
    let _ = parse_json::<types::CheckpointCreateRequest>(data);
    let _ = parse_json::<types::ContainerConfig>(data);
    let _ = parse_json::<types::ContainerUpdateRequest>(data);
    let _ = parse_json::<types::ExecCreateRequest>(data);
    let _ = parse_json::<types::ExecStartRequest>(data);
    let _ = parse_json::<types::NetworkConnectRequest>(data);
    let _ = parse_json::<types::NetworkCreateRequest>(data);
    let _ = parse_json::<types::NetworkDisconnectRequest>(data);
    let _ = parse_json::<types::VolumeCreateRequest>(data);
    let _ = crate::registry_auth::from_json(data);
}

/// A path with its query.
pub fn target(data: &[u8]) {
    if let Ok(uri) = http::Uri::try_from(data) {
        for segment in crate::request::split_path(uri.path()).unwrap_or_default() {
            let _ = ApiVersion::parse(&segment);
        }
        let query = crate::query::Query::parse(uri.query());
        let _ = query.bool("all");
        let _ = query.time("since");
        let _ = query.filters();
    }
}
