//! What all parts of the crate share: the tables in memory, the database behind them, and who may remove what.
//!
//! In memory is what the database has, plus what an operation that has not ended yet is making (layers and blobs under a
//! [`Lease`]). A layer's directory and an image's blobs get their final names before they are recorded. So: what is
//! recorded is whole, what is not recorded is nobody's and is removed at start. After a power cut that holds as well
//! (`durable.rs`).

mod chores;
mod collect;
mod durable;
mod lease;
mod load;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rusqlite::{Connection, OptionalExtension, params};

use crate::config::ImageConfig;
use crate::content::Content;
use crate::{Digest, Error, Reference, Result};

use self::chores::Chores;
pub(crate) use self::chores::remove_tree;
pub(crate) use self::collect::set_apart;
pub(crate) use self::lease::Lease;

/// Directories of operations that have not ended.
pub(crate) const STAGING_PREFIX: &str = ".staging-";
/// Directories that are being removed.
pub(crate) const REMOVED_PREFIX: &str = ".removed-";
/// Suffix of the layer with the mount points every container gets.
pub(crate) const INIT_SUFFIX: &str = "-init";
/// Stands for "no layers" in the name of an init layer.
const SCRATCH: &str = "scratch";

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE images (id TEXT PRIMARY KEY, parent TEXT, last_tagged_ns INTEGER);
    CREATE TABLE image_references (reference TEXT PRIMARY KEY, image TEXT NOT NULL);
    CREATE TABLE image_layers (
        chain_id TEXT PRIMARY KEY, diff_id TEXT NOT NULL, parent TEXT,
        blob TEXT NOT NULL, blob_bytes INTEGER NOT NULL, media_type TEXT NOT NULL, bytes INTEGER NOT NULL
    );
    CREATE TABLE image_layer_repositories (blob TEXT, repository TEXT, PRIMARY KEY (blob, repository));
    CREATE TABLE image_container_layers (container TEXT PRIMARY KEY, image TEXT, chain_id TEXT);
",
    "
    CREATE TABLE image_unsynced_layers (chain_id TEXT PRIMARY KEY, boot_id TEXT NOT NULL);
",
];

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
    chores: Chores,
    me: Weak<Shared>,
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
        let (known, unsynced) = state.load(&content, &overlay)?;
        content.clear_ingest();
        let leftovers = load::set_leftovers_apart(&content, &overlay, &known);
        let shared = Arc::new_cyclic(|me| Self {
            content,
            overlay,
            state: Mutex::new(state),
            chores: Chores::default(),
            me: me.clone(),
        });
        shared.delete_later(leftovers);
        shared.sync_later(unsynced);
        Ok(shared)
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
        let boot_id = durable::boot_id()?;
        let mut state = self.state();
        let state = &mut *state;
        for chain in &chains {
            if !state.layers.contains_key(chain) {
                return Err(Error::Invalid(format!("failed to get layer {chain}: layer does not exist")));
            }
        }
        let tx = state.db.transaction()?;
        let mut fresh = Vec::new();
        for layer in chains.iter().filter_map(|chain| state.layers.get(chain)).filter(|layer| !layer.recorded) {
            fresh.push(layer.chain_id.clone());
            tx.execute(
                "INSERT OR REPLACE INTO image_unsynced_layers VALUES (?1, ?2)",
                [layer.chain_id.as_str(), &boot_id],
            )?;
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
        self.sync_later(fresh);
        Ok(id)
    }
}

impl State {
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

    /// Whether a blob was ever in a registry's repository.
    pub(crate) fn has_layer_repository(&self, blob: &Digest) -> Result<bool> {
        let mut statement = self.db.prepare_cached("SELECT 1 FROM image_layer_repositories WHERE blob = ?1")?;
        Ok(statement.exists([blob.as_str()])?)
    }

    /// Gives a layer another blob of the same tar. The old one goes when nobody uses it any more.
    pub(crate) fn set_blob(&mut self, layer: &Layer) -> Result<()> {
        self.db.execute(
            "UPDATE image_layers SET blob = ?2, blob_bytes = ?3, media_type = ?4 WHERE chain_id = ?1",
            params![layer.chain_id.as_str(), layer.blob.as_str(), layer.blob_bytes as i64, layer.media_type],
        )?;
        if let Some(known) = self.layers.get_mut(&layer.chain_id) {
            known.blob = layer.blob.clone();
            known.blob_bytes = layer.blob_bytes;
            known.media_type.clone_from(&layer.media_type);
        }
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
}
