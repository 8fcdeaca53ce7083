//! Entry points for fuzzing: everything in this crate that reads what somebody else wrote. None may panic or hang.

use crate::types;

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

/// The body of a create. What was read must be readable again after it was written.
pub fn create_body(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<types::ContainerCreateRequest>(data) {
        if let Ok(text) = serde_json::to_vec(&request) {
            let again = serde_json::from_slice::<types::ContainerCreateRequest>(&text);
            assert!(again.is_ok_and(|again| again == request), "a create body does not survive writing and reading");
        }
    }
}

/// A path with its query.
pub fn target(data: &[u8]) {
    if let Ok(uri) = http::Uri::try_from(data) {
        let _ = crate::request::split_path(uri.path());
        let query = crate::query::Query::parse(uri.query());
        let _ = query.bool("all");
        let _ = query.time("since");
        let _ = query.filters();
    }
}
