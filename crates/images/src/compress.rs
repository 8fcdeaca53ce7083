//! Layers that were made here are kept plain; a registry is to get them compressed, as from Docker. That is done once, at
//! the first push, and the compressed blob then takes the plain one's place: it is smaller, and the next push and another
//! registry get the same bytes.

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::extract::{LAYER_GZIP, LAYER_OCI_PLAIN};
use crate::shared::{Layer, Lease};
use crate::{Error, Images, Result};

impl Images {
    /// The layer as it is to be pushed; `lease` has it, and keeps its new blob.
    pub(crate) fn compressed(&self, layer: Layer, lease: &mut Lease) -> Result<Layer> {
        // What a registry gave us plain goes to others as it came.
        if layer.media_type != LAYER_OCI_PLAIN || self.shared.state().has_layer_repository(&layer.blob)? {
            return Ok(layer);
        }
        let mut plain = self.shared.content.open_blob(&layer.blob)?;
        let mut gzip = GzEncoder::new(self.shared.content.writer()?, Compression::fast());
        std::io::copy(&mut plain, &mut gzip).map_err(Error::io(format!("compress blob {}", layer.blob)))?;
        let blob = gzip.finish().map_err(Error::io("write a blob"))?.finish()?;
        // The row is about to name it, and the plain one is about to go.
        blob.sync()?;
        let layer =
            Layer { blob: blob.digest.clone(), blob_bytes: blob.bytes, media_type: LAYER_GZIP.to_owned(), ..layer };
        lease.add_blob(blob)?;
        self.shared.state().set_blob(&layer)?;
        Ok(layer)
    }
}
