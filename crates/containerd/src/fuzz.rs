//! The parsers of what somebody else wrote, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use std::io;
use std::path::Path;

use bytes::BytesMut;

use crate::events::{Event, EventKind, Journal};

/// The bytes of an HTTP/2 client.
pub fn authority(data: &[u8]) {
    let mut whole = BytesMut::new();
    crate::authority::rewrite(&[data], &mut whole);
    let mut pieces = BytesMut::new();
    let cut: Vec<&[u8]> = data.chunks(7).collect();
    crate::authority::rewrite(&cut, &mut pieces);
    assert_eq!(whole, pieces, "the result depends on how the bytes arrive");
}

/// A bundle's configuration, of either generation; `dir` is a scratch directory. What was translated need not be again.
pub fn bundle(data: &[u8], dir: &Path) -> io::Result<()> {
    let path = dir.join("config.json");
    std::fs::write(&path, data)?;
    let Ok(first) = crate::bundle::open(dir) else { return Ok(()) };
    assert_eq!(std::fs::read(&path)?, data, "the bundle is its owner's");
    if let Some(translated) = first.translated {
        std::fs::write(&path, translated)?;
        let second = crate::bundle::open(dir).ok().filter(|second| second.translated.is_none());
        assert!(second.is_some_and(|second| second.process == first.process && second.root_uid == first.root_uid));
    }
    Ok(())
}

/// The journal; `dir` is a scratch directory. Whatever is in the file, what is appended afterwards is read again.
pub fn journal(data: &[u8], dir: &Path) -> io::Result<()> {
    let path = dir.join("events.log");
    std::fs::write(&path, data)?;
    let (mut journal, mut events) = Journal::open(&path)?;
    let more = Event {
        id: "c".into(),
        kind: EventKind::Exit,
        timestamp: chrono::DateTime::UNIX_EPOCH,
        pid: "init".into(),
        status: 3,
        reason: "r".into(),
    };
    journal.append(&more)?;
    events.push(more);
    assert_eq!(Journal::open(&path)?.1, events);
    journal.replace(events.iter())?;
    assert_eq!(Journal::open(&path)?.1, events);
    Ok(())
}

/// What a runtime writes: its log, its features, and `/proc/<pid>/stat` of a process with any name.
pub fn runtime(data: &[u8]) {
    let _ = crate::shims::first_error_in(data);
    let _ = crate::runtime::says_auto(data);
    let _ = crate::process::is_stat(data);
}

/// A request; the first byte says which.
pub fn request(data: &[u8]) {
    crate::supervisor::fuzz::request(data);
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
