//! What images and their archives say, for the fuzz targets. Not part of the crate's interface.
#![allow(missing_docs)]

use std::path::Path;

use crate::config::{ContainerConfig, ImageConfig};
use crate::manifest::{self, Document};
use crate::reference::AnyReference;
use crate::{Platform, Reference, Result, instructions, load};

/// A name. What was understood is written so that it is understood again.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = AnyReference::parse(text);
    let _ = Platform::parse(text);
    if let Ok(reference) = Reference::parse(text) {
        let spelled = reference.to_string();
        assert_eq!(Reference::parse(&spelled).ok(), Some(reference), "{spelled:?} is another name");
    }
}

/// A manifest or an index.
pub fn manifest(data: &[u8]) {
    match manifest::parse(data, manifest::OCI_MANIFEST) {
        Ok(Document::Index(index)) => drop(index.matching(&Platform::host()).len()),
        Ok(Document::Manifest(manifest)) => drop(serde_json::to_vec(&manifest)),
        _ => {}
    }
}

/// An image's configuration.
pub fn config(data: &[u8]) {
    if let Ok(config) = ImageConfig::parse(data) {
        let _ = (config.created_ns(), config.operating_system());
        let text = serde_json::to_vec(&config).unwrap_or_default();
        assert!(ImageConfig::parse(&text).is_ok_and(|again| again == config), "a configuration cannot be read again");
    }
}

/// The instructions of `--change`.
pub fn changes(data: &[u8]) {
    let _ = instructions::apply(&mut ContainerConfig::default(), &[String::from_utf8_lossy(data).into_owned()]);
}

/// An archive of `docker save`, or an OCI layout; `dir` is a scratch directory.
pub fn archive(data: &[u8], dir: &Path) -> Result<()> {
    for config in load::configurations(data, dir)? {
        ImageConfig::parse(&config)?;
    }
    Ok(())
}
