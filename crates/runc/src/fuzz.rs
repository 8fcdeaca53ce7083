//! What docker-runc's caller and the processes of a container say, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use crate::checkpoint::dump::Capture;
use crate::commands::update;
use crate::state;

/// The document of `update --resources`.
pub fn resources(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice(data) {
        let _ = update::resources(value);
    }
}

/// Arguments, and what a process of the container can name itself.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = update::parse_bytes(&text);
    let _ = state::parse_stat(&text);
    if let Ok(capture) = Capture::parse(&text) {
        assert!(capture.path.is_absolute() && !capture.name.contains(['/', '.']), "{capture:?}");
    }
    if state::check_id(&text).is_ok() {
        assert_eq!(std::path::Path::new(&*text).components().count(), 1);
    }
}
