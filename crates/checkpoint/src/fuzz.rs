//! What checkpoints say of themselves, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use crate::manifest;

/// A manifest. What was understood is understood again when it is written.
pub fn manifest(data: &[u8]) {
    let _ = crate::check_name(&String::from_utf8_lossy(data));
    let Ok(manifest) = manifest::parse(data) else { return };
    let text = serde_json::to_vec(&manifest).unwrap_or_default();
    let again = manifest::parse(&text);
    assert_eq!(again.map(|again| format!("{again:?}")), Ok(format!("{manifest:?}")));
}
