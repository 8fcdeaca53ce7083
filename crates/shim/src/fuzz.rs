//! What docker-containerd, shims and runtimes say, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use crate::protocol::{Call, parse_message, parse_request};
use crate::runtime;

/// A packet of docker-containerd's. What was understood means the same after it was written and read.
pub fn request(data: &[u8]) {
    let Ok(request) = parse_request(data) else { return };
    if let Call::Exec { process, .. } = &request.call {
        assert_eq!(std::path::Path::new(process).components().count(), 1, "{process:?} is no file name");
    }
    let text = serde_json::to_vec(&request).unwrap_or_default();
    let again = parse_request(&text);
    assert_eq!(again.map(|again| format!("{again:?}")).ok(), Some(format!("{request:?}")));
}

/// A packet of a shim's.
pub fn message(data: &[u8]) {
    let Ok(message) = parse_message(data) else { return };
    let text = serde_json::to_vec(&message).unwrap_or_default();
    let again = parse_message(&text);
    assert_eq!(again.map(|again| format!("{again:?}")).ok(), Some(format!("{message:?}")));
}

/// A runtime's log and what it printed.
pub fn runtime(data: &[u8]) {
    let _ = runtime::first_error(data);
    let text = runtime::exit_status_text(1, &String::from_utf8_lossy(data));
    assert!(!text.contains(char::is_control), "output of a runtime writes to the terminal");
}
