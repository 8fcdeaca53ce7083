//! Images: names, content, layers, what containers write on top of them, archives, registries.
//!
//! # On disk, below the data root
//!
//! | path | what |
//! |---|---|
//! | `content/blobs/sha256/<hex>` | image configurations and the layers' tars, compressed as they came |
//! | `content/ingest/` | blobs being written; emptied at start |
//! | `overlay2/<chain id>/diff` | a layer, unpacked |
//! | `overlay2/<chain id>-init/diff` | the mount points every container of an image with that top layer gets |
//! | `overlay2/<container id>/{diff,work,merged}` | a container's writable layer |
//! | `overlay2/l/` | short names of layers, only where the kernel needs them |
//! | `dormouse.db`, tables `images`, `image_*` | which of these there are, and names |
//!
//! **Why the compressed tars are kept** next to the unpacked layers: `save` and `push` then give byte for byte what came,
//! under the digests it came with, without packing and compressing anything again. It costs about a third of an image's
//! size. A layer made here (commit, import, a plain tar in an archive) is compressed with gzip once, when it is made.
//!
//! **An image's id** is the digest of its configuration, as in Docker's own store.
//!
//! # Invariants
//!
//! - What the database names is whole: an image is recorded after one `syncfs`, names and layers in one transaction.
//! - What the database does not name belongs to nobody and is removed at start; a damaged image is reported and left out.
//! - A layer is never changed once it has its name, and not removed while an image, a container's layer or an operation
//!   under way uses it.
//!
//! Everything but the registry client is synchronous and may block on disk: call it where that does no harm
//! (`spawn_blocking`).
#![forbid(unsafe_code)]

mod changes;
mod compress;
pub mod config;
mod containers;
mod content;
mod digest;
mod error;
mod extract;
#[doc(hidden)]
pub mod fuzz;
mod instructions;
mod load;
mod make;
pub mod manifest;
mod overlay;
mod platform;
mod progress;
mod query;
mod reference;
pub mod registry;
mod remove;
mod save;
mod shared;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use changes::{Change, ChangeKind};
pub use config::{ContainerConfig, ImageConfig};
pub use containers::{GraphDriver, LayerSize};
pub use digest::Digest;
pub use error::{Error, Result};
pub use load::Loaded;
pub use make::{CommitOptions, ImportOptions};
pub use platform::Platform;
pub use progress::{Progress, ProgressSink};
pub use query::{DiskUsage, HistoryItem, ImageDetails, ImageSummary, ListFilter};
pub use reference::Reference;
pub use remove::{ImageUser, PruneFilter, Removed};

/// The images of one data root. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    pub(crate) shared: Arc<shared::Shared>,
}

impl Images {
    /// Opens (or makes) the store in `data_root`, and removes what interrupted operations left in it.
    pub fn open(data_root: &Path) -> Result<Self> {
        Ok(Self { shared: shared::Shared::open(data_root)? })
    }
}
