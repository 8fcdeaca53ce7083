//! What all parts of the crate share: the tables in memory, the database behind them, and who may remove what.
//!
//! In memory is what the database has, plus what an operation that has not ended yet is making (layers and blobs under a
//! [`Lease`]). A layer's directory and an image's blobs get their final names before they are recorded; the record is
//! written after a `syncfs`. So: what is recorded is whole, what is not recorded is nobody's and is removed at start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::content::{Content, StagedBlob};
use crate::{Digest, Error, Reference, Result};

/// Directories of operations that have not ended.
pub(crate) const STAGING_PREFIX: &str = ".staging-";
/// Directories that are being removed.
pub(crate) const REMOVED_PREFIX: &str = ".removed-";
/// Suffix of the layer with the mount points every container gets.
pub(crate) const INIT_SUFFIX: &str = "-init";
/// Stands for "no layers" in the name of an init layer.
const SCRATCH: &str = "scratch";

const MIGRATIONS: &[&str] = &["
    CREATE TABLE images (id TEXT PRIMARY KEY, parent TEXT, last_tagged_ns INTEGER);
    CREATE TABLE image_references (reference TEXT PRIMARY KEY, image TEXT NOT NULL);
    CREATE TABLE image_layers (
        chain_id TEXT PRIMARY KEY, diff_id TEXT NOT NULL, parent TEXT,
        blob TEXT NOT NULL, blob_bytes INTEGER NOT NULL, media_type TEXT NOT NULL, bytes INTEGER NOT NULL
    );
    CREATE TABLE image_layer_repositories (blob TEXT, repository TEXT, PRIMARY KEY (blob, repository));
    CREATE TABLE image_container_layers (container TEXT PRIMARY KEY, image TEXT, chain_id TEXT);
"];

/// One read-only layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) chain_id: Digest,
    pub(crate) diff_id: Digest,
    pub(crate) parent: Option<Digest>,
    /// The tar it was made from, as the content store has it.
    pub(crate) blob: Digest,
    pub(crate) blob_bytes: u64,
    pub(crate) media_type: String,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    pub(crate) recorded: bool,
}

/// One image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) id: Digest,
    pub(crate) config: ImageConfig,
    /// Its configuration as it came; the identity.
    pub(crate) raw_bytes: u64,
    /// Chain IDs, bottom first.
    pub(crate) chains: Vec<Digest>,
    pub(crate) parent: Option<Digest>,
    pub(crate) last_tagged_ns: Option<i64>,
}

/// A container's writable layer.
#[derive(Debug, Clone)]
pub(crate) struct ContainerLayer {
    pub(crate) image: Option<Digest>,
    /// Its top read-only layer; `None` for a container from nothing.
    pub(crate) chain: Option<Digest>,
}

/// The tables.
pub(crate) struct State {
    pub(crate) db: Connection,
    pub(crate) images: HashMap<Digest, Arc<Image>>,
    pub(crate) references: BTreeMap<Reference, Digest>,
    pub(crate) layers: HashMap<Digest, Layer>,
    pub(crate) containers: HashMap<String, ContainerLayer>,
    layer_leases: HashMap<Digest, usize>,
    blob_leases: HashMap<Digest, usize>,
    /// Configurations of images that were removed, until they are collected.
    orphans: Vec<Digest>,
}

/// The crate's one shared object.
pub(crate) struct Shared {
    pub(crate) content: Content,
    pub(crate) overlay: PathBuf,
    state: Mutex<State>,
}

/// Keeps layers and blobs from being removed while an operation makes an image of them.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    layers: Vec<Digest>,
    blobs: Vec<Digest>,
}

impl Shared {
    pub(crate) fn open(data_root: &Path) -> Result<Arc<Self>> {
        let overlay = data_root.join("overlay2");
        std::fs::create_dir_all(&overlay).map_err(Error::io(format!("make {}", overlay.display())))?;
        let content = Content::open(data_root)?;
        let db = store::open(data_root, "images", MIGRATIONS)?;
        let mut state = State {
            db,
            images: HashMap::new(),
            references: BTreeMap::new(),
            layers: HashMap::new(),
            containers: HashMap::new(),
            layer_leases: HashMap::new(),
            blob_leases: HashMap::new(),
            orphans: Vec::new(),
        };
        let known = state.load(&content, &overlay)?;
        content.clear_ingest();
        remove_leftovers(&content, &overlay, &known);
        Ok(Arc::new(Self { content, overlay, state: Mutex::new(state) }))
    }

    /// The tables. Held shortly: never while something is unpacked, hashed or sent.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory with a layer's files.
    pub(crate) fn layer_dir(&self, chain_id: &Digest) -> PathBuf {
        self.overlay.join(chain_id.hex()).join("diff")
    }

    /// Directory name of the init layer over `chain`.
    pub(crate) fn init_name(chain: Option<&Digest>) -> String {
        format!("{}{INIT_SUFFIX}", chain.map_or(SCRATCH, Digest::hex))
    }

    /// A directory that is removed when dropped, and at start.
    pub(crate) fn staging(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix(STAGING_PREFIX)
            .tempdir_in(&self.overlay)
            .map_err(Error::io(format!("make a directory in {}", self.overlay.display())))
    }

    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        Lease { shared: Arc::clone(self), layers: Vec::new(), blobs: Vec::new() }
    }

    /// Makes everything written until now survive a power cut.
    fn sync(&self) -> Result<()> {
        let mut synced = None;
        for dir in [&self.overlay, self.content.blobs_dir()] {
            let what = || format!("sync {}", dir.display());
            let fd = std::fs::File::open(dir).map_err(Error::io(what()))?;
            // Both are on one file system, unless somebody has mounted something there.
            let device = fd.metadata().map_err(Error::io(what()))?.dev();
            if synced.replace(device) != Some(device) {
                rustix::fs::syncfs(&fd).map_err(Error::io(what()))?;
            }
        }
        Ok(())
    }

    /// Records an image whose layers are all there, with those layers. An image that exists already stays as it is.
    pub(crate) fn record_image(&self, json: &[u8], parent: Option<Digest>, lease: &mut Lease) -> Result<Digest> {
        let config = ImageConfig::parse(json)?;
        let blob = self.content.stage_bytes(json)?;
        let id = blob.digest.clone();
        let chains = Digest::chains(&config.rootfs.diff_ids);
        lease.add_blob(blob)?;
        if self.state().images.contains_key(&id) {
            return Ok(id);
        }
        self.sync()?;
        let mut state = self.state();
        let state = &mut *state;
        for chain in &chains {
            if !state.layers.contains_key(chain) {
                return Err(Error::Invalid(format!("failed to get layer {chain}: layer does not exist")));
            }
        }
        let tx = state.db.transaction()?;
        for layer in chains.iter().filter_map(|chain| state.layers.get(chain)).filter(|layer| !layer.recorded) {
            tx.execute(
                "INSERT OR REPLACE INTO image_layers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    layer.chain_id.as_str(),
                    layer.diff_id.as_str(),
                    layer.parent.as_ref().map(Digest::as_str),
                    layer.blob.as_str(),
                    layer.blob_bytes as i64,
                    layer.media_type,
                    layer.bytes as i64
                ],
            )?;
        }
        let parent = parent.filter(|parent| state.images.contains_key(parent));
        tx.execute(
            "INSERT OR REPLACE INTO images (id, parent) VALUES (?1, ?2)",
            params![id.as_str(), parent.as_ref().map(Digest::as_str)],
        )?;
        tx.commit()?;
        for chain in &chains {
            if let Some(layer) = state.layers.get_mut(chain) {
                layer.recorded = true;
            }
        }
        let image =
            Image { id: id.clone(), config, raw_bytes: json.len() as u64, chains, parent, last_tagged_ns: None };
        state.images.insert(id.clone(), Arc::new(image));
        Ok(id)
    }

    /// Removes layers and blobs that nothing uses any more. Returns the chain IDs that went, top first.
    pub(crate) fn collect(&self) -> Result<Vec<Digest>> {
        let (gone, blobs, dirs) = {
            let mut state = self.state();
            state.collect(&self.overlay)?
        };
        for dir in dirs {
            remove_tree(&dir);
        }
        for blob in &blobs {
            // Somebody may have come to need it meanwhile.
            let state = self.state();
            if !state.uses_blob(blob) {
                self.content.remove(blob);
            }
        }
        Ok(gone)
    }
}

impl State {
    /// Reads the database. What is damaged is reported and left out. Returns every name on disk that a record knows.
    fn load(&mut self, content: &Content, overlay: &Path) -> Result<Known> {
        let mut known = Known::default();
        for layer in self.read_layers()? {
            known.directories.insert(layer.chain_id.hex().to_owned());
            known.blobs.insert(layer.blob.hex().to_owned());
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
        Ok(known)
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

    /// The chain IDs of a stack, top first.
    pub(crate) fn stack(&self, top: Option<&Digest>) -> Vec<Digest> {
        let mut stack = Vec::new();
        let mut next = top.cloned();
        while let Some(chain) = next {
            next = self.layers.get(&chain).and_then(|layer| layer.parent.clone());
            stack.push(chain);
        }
        stack
    }

    /// Names of an image, sorted.
    pub(crate) fn references_of(&self, image: &Digest) -> Vec<Reference> {
        self.references.iter().filter(|(_, id)| *id == image).map(|(name, _)| name.clone()).collect()
    }

    /// Whether another image was made from this one.
    pub(crate) fn has_children(&self, image: &Digest) -> bool {
        self.images.values().any(|other| other.parent.as_ref() == Some(image))
    }

    /// Points a name to an image; returns the image it pointed to before.
    pub(crate) fn set_reference(&mut self, name: &Reference, image: &Digest) -> Result<Option<Digest>> {
        if !self.images.contains_key(image) {
            return Err(Error::NoSuchImage(image.to_string()));
        }
        let now_ns = chrono::Utc::now().timestamp_nanos_opt();
        let tx = self.db.transaction()?;
        tx.execute(
            "INSERT OR REPLACE INTO image_references VALUES (?1, ?2)",
            params![name.to_string(), image.as_str()],
        )?;
        tx.execute("UPDATE images SET last_tagged_ns = ?2 WHERE id = ?1", params![image.as_str(), now_ns])?;
        tx.commit()?;
        if let Some(old) = self.images.get(image) {
            let image = Image {
                id: old.id.clone(),
                config: old.config.clone(),
                raw_bytes: old.raw_bytes,
                chains: old.chains.clone(),
                parent: old.parent.clone(),
                last_tagged_ns: now_ns,
            };
            self.images.insert(old.id.clone(), Arc::new(image));
        }
        Ok(self.references.insert(name.clone(), image.clone()))
    }

    /// Takes a name away.
    pub(crate) fn remove_reference(&mut self, name: &Reference) -> Result<()> {
        self.db.execute("DELETE FROM image_references WHERE reference = ?1", [name.to_string()])?;
        self.references.remove(name);
        Ok(())
    }

    /// Takes an image out of the tables; its layers stay until they are collected.
    pub(crate) fn remove_image(&mut self, id: &Digest) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute("DELETE FROM image_references WHERE image = ?1", [id.as_str()])?;
        tx.execute("DELETE FROM images WHERE id = ?1", [id.as_str()])?;
        tx.commit()?;
        self.images.remove(id);
        self.orphans.push(id.clone());
        self.references.retain(|_, image| image != id);
        Ok(())
    }

    /// Remembers that a repository has a blob.
    pub(crate) fn add_layer_repository(&self, blob: &Digest, repository: &str) -> Result<()> {
        self.db.execute(
            "INSERT OR IGNORE INTO image_layer_repositories VALUES (?1, ?2)",
            params![blob.as_str(), repository],
        )?;
        Ok(())
    }

    /// A repository at `domain` (`domain/`, say) that has had this blob, other than `except`.
    pub(crate) fn layer_repository(&self, blob: &Digest, domain: &str, except: &str) -> Result<Option<String>> {
        let found = self.db.query_row(
            "SELECT repository FROM image_layer_repositories
             WHERE blob = ?1 AND substr(repository, 1, length(?2)) = ?2 AND repository <> ?3 LIMIT 1",
            params![blob.as_str(), format!("{domain}/"), except],
            |row| row.get(0),
        );
        Ok(found.optional()?)
    }

    fn uses_blob(&self, blob: &Digest) -> bool {
        self.blob_leases.contains_key(blob)
            || self.images.contains_key(blob)
            || self.layers.values().any(|layer| layer.blob == *blob)
    }

    fn collect(&mut self, overlay: &Path) -> Result<(Vec<Digest>, Vec<Digest>, Vec<PathBuf>)> {
        let mut used: HashSet<Digest> = HashSet::new();
        let tops = self.images.values().filter_map(|image| image.chains.last());
        let tops =
            tops.chain(self.containers.values().filter_map(|c| c.chain.as_ref())).chain(self.layer_leases.keys());
        for top in tops {
            let mut next = Some(top);
            while let Some(chain) = next {
                if !used.insert(chain.clone()) {
                    break;
                }
                next = self.layers.get(chain).and_then(|layer| layer.parent.as_ref());
            }
        }
        let mut gone: Vec<Layer> =
            self.layers.values().filter(|layer| !used.contains(&layer.chain_id)).cloned().collect();
        if gone.is_empty() && self.orphans.is_empty() {
            return Ok((Vec::new(), Vec::new(), Vec::new()));
        }
        gone.sort_by_key(|layer| std::cmp::Reverse(self.stack(Some(&layer.chain_id)).len()));
        let tx = self.db.transaction()?;
        for layer in &gone {
            tx.execute("DELETE FROM image_layers WHERE chain_id = ?1", [layer.chain_id.as_str()])?;
        }
        tx.commit()?;
        let mut dirs = Vec::new();
        for layer in &gone {
            self.layers.remove(&layer.chain_id);
            for name in [layer.chain_id.hex().to_owned(), Shared::init_name(Some(&layer.chain_id))] {
                dirs.extend(set_apart(overlay, &name));
            }
        }
        let mut blobs = self.blobs_without_use(&gone);
        blobs.append(&mut self.orphans);
        for blob in &blobs {
            self.db.execute("DELETE FROM image_layer_repositories WHERE blob = ?1", [blob.as_str()])?;
        }
        Ok((gone.into_iter().map(|layer| layer.chain_id).collect(), blobs, dirs))
    }

    fn blobs_without_use(&self, gone: &[Layer]) -> Vec<Digest> {
        gone.iter().map(|layer| layer.blob.clone()).filter(|blob| !self.uses_blob(blob)).collect()
    }
}

impl Lease {
    /// Takes part in a layer that exists.
    pub(crate) fn layer(&mut self, chain: &Digest) -> Option<Layer> {
        let mut state = self.shared.state();
        let layer = state.layers.get(chain).cloned()?;
        *state.layer_leases.entry(chain.clone()).or_default() += 1;
        self.layers.push(chain.clone());
        Some(layer)
    }

    /// Gives a staged layer (`staging/diff`) its name, or joins the same layer when it came to exist meanwhile.
    pub(crate) fn add_layer(&mut self, layer: Layer, blob: StagedBlob, staging: tempfile::TempDir) -> Result<Layer> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let chain = layer.chain_id.clone();
        if let Some(existing) = state.layers.get(&chain).cloned() {
            *state.layer_leases.entry(chain.clone()).or_default() += 1;
            self.layers.push(chain);
            return Ok(existing);
        }
        // A directory of that name without a layer is one that was set aside.
        let target = shared.overlay.join(chain.hex());
        let old = set_apart(&shared.overlay, chain.hex());
        shared.content.place(blob)?;
        let from = staging.keep();
        std::fs::rename(&from, &target).map_err(Error::io(format!("rename to {}", target.display())))?;
        *state.layer_leases.entry(chain.clone()).or_default() += 1;
        self.layers.push(chain.clone());
        state.layers.insert(chain, layer.clone());
        drop(state);
        old.iter().for_each(|dir| remove_tree(dir));
        Ok(layer)
    }

    /// Keeps a blob that is in the store.
    pub(crate) fn keep_blob(&mut self, digest: &Digest) {
        let mut state = self.shared.state();
        *state.blob_leases.entry(digest.clone()).or_default() += 1;
        self.blobs.push(digest.clone());
    }

    /// Puts a blob in the store and keeps it there.
    pub(crate) fn add_blob(&mut self, blob: StagedBlob) -> Result<()> {
        let mut state = self.shared.state();
        *state.blob_leases.entry(blob.digest.clone()).or_default() += 1;
        self.blobs.push(blob.digest.clone());
        self.shared.content.place(blob)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut unused = Vec::new();
        {
            let mut state = self.shared.state();
            for chain in &self.layers {
                release(&mut state.layer_leases, chain);
            }
            for blob in &self.blobs {
                release(&mut state.blob_leases, blob);
                if !state.uses_blob(blob) {
                    unused.push(blob.clone());
                }
            }
            for blob in &unused {
                self.shared.content.remove(blob);
            }
        }
        if let Err(error) = self.shared.collect() {
            tracing::warn!(%error, "cannot remove what is no longer used");
        }
    }
}

fn release(leases: &mut HashMap<Digest, usize>, digest: &Digest) {
    if let Some(count) = leases.get_mut(digest) {
        *count -= 1;
        if *count == 0 {
            leases.remove(digest);
        }
    }
}

/// Names on disk that a record knows.
#[derive(Default)]
struct Known {
    directories: HashSet<String>,
    blobs: HashSet<String>,
}

/// Removes what no record knows: of operations that were interrupted. Only names this program gives are looked at.
fn remove_leftovers(content: &Content, overlay: &Path, known: &Known) {
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
            remove_tree(&entry.path());
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
}

/// Renames a directory of the overlay folder to one that is removed now or at the next start; `None` if there is none.
pub(crate) fn set_apart(overlay: &Path, name: &str) -> Option<PathBuf> {
    let apart = overlay.join(format!("{REMOVED_PREFIX}{name}"));
    match std::fs::rename(overlay.join(name), &apart) {
        Ok(()) => Some(apart),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            remove_tree(&apart);
            std::fs::rename(overlay.join(name), &apart).ok().map(|()| apart)
        }
        Err(error) => {
            tracing::warn!(%error, name, "cannot set a directory apart");
            None
        }
    }
}

/// Removes a tree; what cannot be removed now is reported and is tried again at the next start.
pub(crate) fn remove_tree(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot remove a directory");
        }
        _ => {}
    }
}
