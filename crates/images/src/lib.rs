//! References, content store, layers and overlay, tar import and export, registry client.
