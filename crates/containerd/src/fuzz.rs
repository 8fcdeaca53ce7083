//! The parsers of what somebody else wrote, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use bytes::BytesMut;

/// The bytes of an HTTP/2 client.
pub fn authority(data: &[u8]) {
    let mut whole = BytesMut::new();
    crate::authority::rewrite(&[data], &mut whole);
    let mut pieces = BytesMut::new();
    let cut: Vec<&[u8]> = data.chunks(7).collect();
    crate::authority::rewrite(&cut, &mut pieces);
    assert_eq!(whole, pieces, "the result depends on how the bytes arrive");
}

/// A bundle's configuration.
pub fn bundle(data: &[u8]) {
    let _ = crate::bundle::check(data);
}

/// One line of the journal.
pub fn journal(data: &[u8]) {
    let _ = serde_json::from_slice::<crate::events::Event>(data);
}

/// `state.json`, `process.json` and a checkpoint's `config.json`.
pub fn state_files(data: &[u8]) {
    let _ = serde_json::from_slice::<crate::statedir::ContainerRecord>(data);
    if let Ok(record) = serde_json::from_slice::<crate::statedir::ProcessRecord>(data) {
        record.to_api("init", 1);
        record.stdio();
    }
    let _ = serde_json::from_slice::<crate::supervisor::CheckpointRecord>(data);
}

/// Names that become parts of paths.
pub fn names(data: &[u8]) {
    let Ok(name) = std::str::from_utf8(data) else { return };
    let inside = |name: &str| std::path::Path::new(name).components().count() == 1 && !name.contains(['/', '\0']);
    let dir = std::path::Path::new("/state");
    assert!(crate::names::container_id(dir, name).is_err() || inside(name));
    assert!(crate::names::process_id(name).is_err() || inside(name));
    assert!(crate::names::checkpoint(name).is_err() || inside(name));
}
