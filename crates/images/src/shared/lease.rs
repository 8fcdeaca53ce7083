//! What an operation that has not ended yet is making, kept from being removed.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Layer, Shared, set_apart};
use crate::content::StagedBlob;
use crate::{Digest, Error, Result};

/// Keeps layers and blobs from being removed while an operation makes an image of them.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    layers: Vec<Digest>,
    blobs: Vec<Digest>,
}

impl Shared {
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        Lease { shared: Arc::clone(self), layers: Vec::new(), blobs: Vec::new() }
    }
}

impl Lease {
    /// Takes part in a layer that exists, and keeps the blob it has now, should it get another one.
    pub(crate) fn layer(&mut self, chain: &Digest) -> Option<Layer> {
        let mut state = self.shared.state();
        let layer = state.layers.get(chain).cloned()?;
        *state.layer_leases.entry(chain.clone()).or_default() += 1;
        self.layers.push(chain.clone());
        *state.blob_leases.entry(layer.blob.clone()).or_default() += 1;
        self.blobs.push(layer.blob.clone());
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
        shared.delete_later(old);
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
        let apart = {
            let mut unused = Vec::new();
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
            unused.iter().filter_map(|blob| self.shared.content.set_apart(blob)).collect::<Vec<_>>()
        };
        self.shared.delete_later(apart);
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
