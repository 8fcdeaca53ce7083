//! Reading the tables at start, and removing what they do not know: of operations that were interrupted.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ContainerLayer, INIT_SUFFIX, Image, Layer, REMOVED_PREFIX, STAGING_PREFIX, State, durable, set_apart};
use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::content::Content;
use crate::{Digest, Error, Reference, Result};

impl State {
    /// Reads the database. What is damaged is reported and left out. Returns every name on disk that a record knows, and
    /// the layers that have to be synced.
    pub(super) fn load(&mut self, content: &Content, overlay: &Path) -> Result<(Known, Vec<Digest>)> {
        let mut known = Known::default();
        let boot_id = durable::boot_id()?;
        let unsynced: HashMap<Digest, String> = self.read_unsynced()?.into_iter().collect();
        let mut to_sync = Vec::new();
        for layer in self.read_layers()? {
            known.directories.insert(layer.chain_id.hex().to_owned());
            known.blobs.insert(layer.blob.hex().to_owned());
            if let Some(made_in) = unsynced.get(&layer.chain_id) {
                if *made_in != boot_id {
                    tracing::warn!(layer = %layer.chain_id, "the machine went down before this layer was on disk");
                    if let Err(error) = durable::rebuild(content, overlay, &layer) {
                        tracing::warn!(layer = %layer.chain_id, %error, "it cannot be made again and is set aside");
                        continue;
                    }
                }
                to_sync.push(layer.chain_id.clone());
            }
            if !overlay.join(layer.chain_id.hex()).join("diff").is_dir() {
                tracing::warn!(layer = %layer.chain_id, "a layer's directory is missing; images with it are set aside");
                continue;
            }
            self.layers.insert(layer.chain_id.clone(), layer);
        }
        for (id, parent, last_tagged_ns) in self.read_images()? {
            known.blobs.insert(id.hex().to_owned());
            let read = content.read_small(&id, MAX_CONFIG_BYTES).and_then(|json| {
                let config = ImageConfig::parse(&json)?;
                let chains = Digest::chains(&config.rootfs.diff_ids);
                match chains.iter().find(|chain| !self.layers.contains_key(chain)) {
                    Some(chain) => Err(Error::Corrupt(format!("layer {chain} is missing"))),
                    None => Ok((config, chains, json.len() as u64)),
                }
            });
            match read {
                Ok((config, chains, raw_bytes)) => {
                    let image = Image { id: id.clone(), config, raw_bytes, chains, parent, last_tagged_ns };
                    self.images.insert(id, Arc::new(image));
                }
                Err(error) => tracing::warn!(image = %id, %error, "an image cannot be read and is set aside"),
            }
        }
        for (name, image) in self.read_references()? {
            match Reference::parse(&name) {
                Ok(reference) if self.images.contains_key(&image) => {
                    self.references.insert(reference, image);
                }
                _ => tracing::warn!(name, image = %image, "an image name points to nothing and is set aside"),
            }
        }
        for (container, layer) in self.read_containers()? {
            known.directories.insert(container.clone());
            self.containers.insert(container, layer);
        }
        Ok((known, to_sync))
    }

    fn read_layers(&self) -> Result<Vec<Layer>> {
        let mut statement = self.db.prepare("SELECT * FROM image_layers")?;
        let rows = statement.query_map([], |row| {
            Ok((
                [row.get::<_, String>(0)?, row.get(1)?, row.get(3)?],
                row.get::<_, Option<String>>(2)?,
                row.get::<_, i64>(4)?,
                row.get::<_, String>(5)?,
                row.get::<_, i64>(6)?,
            ))
        })?;
        let mut layers = Vec::new();
        for row in rows {
            let ([chain, diff, blob], parent, blob_bytes, media_type, bytes) = row?;
            layers.push(Layer {
                chain_id: Digest::parse(&chain)?,
                diff_id: Digest::parse(&diff)?,
                parent: parent.as_deref().map(Digest::parse).transpose()?,
                blob: Digest::parse(&blob)?,
                blob_bytes: blob_bytes as u64,
                media_type,
                bytes: bytes as u64,
                recorded: true,
            });
        }
        Ok(layers)
    }

    #[expect(clippy::type_complexity, reason = "one row, for one caller")]
    fn read_images(&self) -> Result<Vec<(Digest, Option<Digest>, Option<i64>)>> {
        let mut statement = self.db.prepare("SELECT id, parent, last_tagged_ns FROM images")?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?)))?;
        let mut images = Vec::new();
        for row in rows {
            let (id, parent, last_tagged_ns) = row?;
            images.push((Digest::parse(&id)?, parent.as_deref().map(Digest::parse).transpose()?, last_tagged_ns));
        }
        Ok(images)
    }

    fn read_references(&self) -> Result<Vec<(String, Digest)>> {
        let mut statement = self.db.prepare("SELECT reference, image FROM image_references")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let mut references = Vec::new();
        for row in rows {
            let (name, image) = row?;
            references.push((name, Digest::parse(&image)?));
        }
        Ok(references)
    }

    fn read_containers(&self) -> Result<Vec<(String, ContainerLayer)>> {
        let mut statement = self.db.prepare("SELECT container, image, chain_id FROM image_container_layers")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?))
        })?;
        let mut containers = Vec::new();
        for row in rows {
            let (container, image, chain) = row?;
            let image = image.as_deref().map(Digest::parse).transpose()?;
            let chain = chain.as_deref().map(Digest::parse).transpose()?;
            containers.push((container, ContainerLayer { image, chain }));
        }
        Ok(containers)
    }
}

/// Names on disk that a record knows.
#[derive(Default)]
pub(super) struct Known {
    directories: HashSet<String>,
    blobs: HashSet<String>,
}

/// Sets apart what no record knows, of operations that were interrupted, and returns what is to be deleted. Only names
/// this program gives are looked at.
pub(super) fn set_leftovers_apart(content: &Content, overlay: &Path, known: &Known) -> Vec<PathBuf> {
    let mut apart = Vec::new();
    for entry in std::fs::read_dir(overlay).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let layer = name.strip_suffix(INIT_SUFFIX).unwrap_or(&name);
        let ours = crate::digest::is_full_hex(layer) && !known.directories.contains(layer);
        if ours || name.starts_with(STAGING_PREFIX) || name.starts_with(REMOVED_PREFIX) {
            for inner in ["merged", ""] {
                let path = entry.path().join(inner);
                if let Err(error) = crate::overlay::unmount(&path) {
                    tracing::warn!(%error, "a leftover stays mounted");
                }
            }
            tracing::info!(path = %entry.path().display(), "removing what an interrupted operation left");
            // A name of a layer may come to be wanted again before this is deleted.
            apart.extend(if ours { set_apart(overlay, &name) } else { Some(entry.path()) });
        }
    }
    for entry in std::fs::read_dir(content.blobs_dir()).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if crate::digest::is_full_hex(&name) && !known.blobs.contains(&name) {
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(%error, path = %entry.path().display(), "cannot remove a leftover");
            }
        }
    }
    apart
}
