//! Removing what nothing uses any more: layers top first, then blobs. Here they lose their names, which is quick; they are
//! deleted after the answer (`chores.rs`), or at the next start if that is cut short.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{Layer, REMOVED_PREFIX, Shared, State};
use crate::{Digest, Result};

impl Shared {
    /// Removes layers and blobs that nothing uses any more. Returns the chain IDs that went, top first.
    pub(crate) fn collect(&self) -> Result<Vec<Digest>> {
        let (gone, blobs, dirs) = {
            let mut state = self.state();
            state.collect(&self.overlay)?
        };
        self.delete_later(dirs);
        for blob in &blobs {
            // Somebody may have come to need it meanwhile.
            let state = self.state();
            let apart = if state.uses_blob(blob) { None } else { self.content.set_apart(blob) };
            drop(state);
            self.delete_later(apart);
        }
        Ok(gone)
    }
}

impl State {
    pub(super) fn uses_blob(&self, blob: &Digest) -> bool {
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
            tx.execute("DELETE FROM image_unsynced_layers WHERE chain_id = ?1", [layer.chain_id.as_str()])?;
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

/// Renames a directory of the overlay folder to one that is deleted soon or at the next start; `None` if there is none.
pub(crate) fn set_apart(overlay: &Path, name: &str) -> Option<PathBuf> {
    // Another of that name may be waiting to be deleted.
    let apart = tempfile::Builder::new()
        .prefix(&format!("{REMOVED_PREFIX}{name}-"))
        .make_in(overlay, |to| std::fs::rename(overlay.join(name), to));
    match apart.and_then(|apart| apart.into_temp_path().keep().map_err(|error| error.error)) {
        Ok(apart) => Some(apart),
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(%error, name, "cannot set a directory apart");
            }
            None
        }
    }
}
