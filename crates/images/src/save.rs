//! `docker save`: images as an archive that is both Docker's own format (`manifest.json`, `repositories`) and an OCI
//! layout (`oci-layout`, `index.json`), as Docker has written it since 25. Written straight to the caller; the same
//! images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use archive::{Entry, EntryKind, TarWriter, Timestamp};
use serde_json::json;

use crate::config::MAX_CONFIG_BYTES;
use crate::extract::{LAYER_GZIP, LAYER_OCI_GZIP};
use crate::manifest::{Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, SavedImage};
use crate::reference::AnyReference;
use crate::shared::Layer;
use crate::{Digest, Error, Images, Reference, Result};

/// An image to be saved.
struct Chosen {
    id: Digest,
    names: Vec<Reference>,
    layers: Vec<Layer>,
    parent: Option<Digest>,
    created: Timestamp,
}

impl Images {
    /// Writes images as an archive. A name without a tag means all tags of it; the images found are returned.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<Vec<Digest>> {
        let mut chosen = self.choose(names)?;
        // Held until the end: a removal meanwhile must not take the blobs away.
        let mut lease = self.shared.lease();
        for image in &mut chosen {
            lease.keep_blob(&image.id);
            for layer in &mut image.layers {
                *layer = lease.layer(&layer.chain_id).ok_or_else(|| Error::NoSuchImage(image.id.to_string()))?;
            }
        }
        let mut writer = SaveWriter { tar: TarWriter::new(out), written: BTreeSet::new(), images: self };
        writer.directory("blobs/")?;
        writer.directory("blobs/sha256/")?;
        let mut index = Vec::new();
        let mut list = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for image in &chosen {
            let manifest = writer.image(image)?;
            let mut tags = Vec::new();
            for name in &image.names {
                let tag = name.tag().unwrap_or_default().to_owned();
                let mut entry = manifest.clone();
                entry.annotations.insert("io.containerd.image.name".into(), name.to_string());
                entry.annotations.insert("org.opencontainers.image.ref.name".into(), tag.clone());
                index.push(entry);
                tags.push(name.familiar());
                if let Some(top) = image.layers.last() {
                    repositories.entry(name.familiar_name()).or_default().insert(tag, top.blob.hex().to_owned());
                }
            }
            if image.names.is_empty() {
                index.push(manifest);
            }
            list.push(SavedImage {
                config: blob_path(&image.id),
                repo_tags: (!tags.is_empty()).then_some(tags),
                layers: Some(image.layers.iter().map(|layer| blob_path(&layer.blob)).collect()),
                parent: image.parent.as_ref().filter(|p| chosen.iter().any(|c| c.id == **p)).map(Digest::to_string),
            });
        }
        let index = Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: index };
        writer.json("index.json", &index)?;
        writer.json("manifest.json", &list)?;
        writer.json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        if !repositories.is_empty() {
            writer.json("repositories", &repositories)?;
        }
        writer.tar.finish()?;
        Ok(chosen.into_iter().map(|image| image.id).collect())
    }

    fn choose(&self, names: &[String]) -> Result<Vec<Chosen>> {
        let state = self.shared.state();
        let mut found: Vec<(Digest, Option<Reference>)> = Vec::new();
        for name in names {
            match AnyReference::parse(name)? {
                AnyReference::Named(reference) if reference.tag().is_none() && reference.digest().is_none() => {
                    let tags = state
                        .references
                        .iter()
                        .filter(|(other, _)| other.tag().is_some() && other.name() == reference.name());
                    let before = found.len();
                    found.extend(tags.map(|(name, id)| (id.clone(), Some(name.clone()))));
                    if found.len() == before {
                        found.push((state.find(name)?.id.clone(), None));
                    }
                }
                AnyReference::Named(reference) => {
                    let key = reference.key();
                    let id = state.find(name)?.id.clone();
                    let tag = Some(key).filter(|key| key.tag().is_some() && state.references.contains_key(key));
                    found.push((id, tag));
                }
                AnyReference::Id(_) => found.push((state.find(name)?.id.clone(), None)),
            }
        }
        let mut chosen: Vec<Chosen> = Vec::new();
        for (id, name) in found {
            let at = match chosen.iter().position(|image| image.id == id) {
                Some(at) => at,
                None => {
                    let image = state.images.get(&id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
                    let layers = image.chains.iter().filter_map(|chain| state.layers.get(chain)).cloned().collect();
                    let seconds = image.config.created_ns().map_or(0, |ns| (ns / 1_000_000_000) as i64);
                    chosen.push(Chosen {
                        id,
                        names: Vec::new(),
                        layers,
                        parent: image.parent.clone(),
                        created: Timestamp { seconds: seconds.max(0), nanoseconds: 0 },
                    });
                    chosen.len() - 1
                }
            };
            if let Some(name) = name.filter(|name| !chosen[at].names.contains(name)) {
                chosen[at].names.push(name);
            }
        }
        Ok(chosen)
    }
}

struct SaveWriter<'a, W> {
    tar: TarWriter<W>,
    written: BTreeSet<Digest>,
    images: &'a Images,
}

impl<W: Write> SaveWriter<'_, W> {
    /// Writes an image's blobs and its manifest; returns what names the manifest.
    fn image(&mut self, image: &Chosen) -> Result<Descriptor> {
        let content = &self.images.shared.content;
        let config = content.read_small(&image.id, MAX_CONFIG_BYTES)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            let media_type = if layer.media_type == LAYER_GZIP { LAYER_OCI_GZIP } else { &layer.media_type };
            layers.push(Descriptor::new(media_type, layer.blob.clone(), layer.blob_bytes));
            if self.written.insert(layer.blob.clone()) {
                let mut entry = Entry::new(blob_path(&layer.blob), EntryKind::File, 0o644);
                entry.size = layer.blob_bytes;
                entry.mtime = image.created;
                if self.tar.append_file(&entry, content.open_blob(&layer.blob)?)? > 0 {
                    return Err(Error::Corrupt(format!("blob {} is damaged on disk", layer.blob)));
                }
            }
        }
        self.bytes(&image.id, &config, image.created)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.into(),
            config: Descriptor::new(OCI_CONFIG, image.id.clone(), config.len() as u64),
            layers,
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| Error::Invalid(error.to_string()))?;
        let digest = Digest::of(&manifest);
        self.bytes(&digest, &manifest, Timestamp::default())?;
        Ok(Descriptor::new(OCI_MANIFEST, digest, manifest.len() as u64))
    }

    fn bytes(&mut self, digest: &Digest, data: &[u8], mtime: Timestamp) -> Result<()> {
        if self.written.insert(digest.clone()) {
            let entry = Entry { mtime, ..Entry::new(blob_path(digest), EntryKind::File, 0o644) };
            self.tar.append_bytes(&entry, data)?;
        }
        Ok(())
    }

    fn json(&mut self, path: &str, value: &impl serde::Serialize) -> Result<()> {
        let data = serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.tar.append_bytes(&Entry::new(path, EntryKind::File, 0o644), &data)?)
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        Ok(self.tar.append(&Entry::new(path, EntryKind::Directory, 0o755))?)
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
