//! What becomes of layers when the machine loses power.
//!
//! Nobody waits for the disk when an image is made: a layer is recorded, and until a `syncfs` after that (`chores.rs`) it
//! is recorded as *unsynced*, too, with the boot it was made in. The ends that this can come to:
//!
//! - dockerd is killed: what was written is in the kernel's cache and loses nothing. The next dockerd finds rows of its own
//!   boot and syncs again.
//! - The machine loses power: the next boot finds rows of another boot. Of such a layer any file may be empty or absent,
//!   but its blob has a digest. If the blob is whole the layer is unpacked from it again; if not, the layer and the images
//!   with it are set aside and said to be so. Nothing damaged is ever run, and a row whose deletion the power cut took
//!   back costs time, not the image.
//!
//! An image's configuration needs none of this: it is checked against its digest whenever it is read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use archive::DigestReader;
use archive::compression::decompress;

use super::chores::remove_tree;
use super::{Layer, STAGING_PREFIX, Shared, State, set_apart};
use crate::content::Content;
use crate::extract::unpack_layer;
use crate::{Digest, Error, Result};

/// What the kernel calls the time since it was started.
pub(super) fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let read = std::fs::read_to_string(path).map_err(Error::io(format!("read {path}")))?;
    Ok(read.trim().to_owned())
}

impl Shared {
    /// Makes everything written until now survive a power cut, and takes back what was said of these layers.
    pub(super) fn sync_layers(&self, chains: &[Digest]) -> Result<()> {
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
        let mut state = self.state();
        let tx = state.db.transaction()?;
        for chain in chains {
            tx.execute("DELETE FROM image_unsynced_layers WHERE chain_id = ?1", [chain.as_str()])?;
        }
        Ok(tx.commit()?)
    }
}

impl State {
    /// The layers that no sync has followed yet, with the boot they were made in.
    pub(super) fn read_unsynced(&self) -> Result<Vec<(Digest, String)>> {
        let mut statement = self.db.prepare("SELECT chain_id, boot_id FROM image_unsynced_layers")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        rows.map(|row| row.map_err(Error::from).and_then(|(chain, boot)| Ok((Digest::parse(&chain)?, boot)))).collect()
    }
}

/// Unpacks a layer again from its blob, which is checked first by being read.
pub(super) fn rebuild(content: &Content, overlay: &Path, layer: &Layer) -> Result<()> {
    let staging = tempfile::Builder::new()
        .prefix(STAGING_PREFIX)
        .tempdir_in(overlay)
        .map_err(Error::io(format!("make a directory in {}", overlay.display())))?;
    let diff = staging.path().join("diff");
    std::fs::create_dir(&diff).map_err(Error::io(format!("make {}", diff.display())))?;
    let mut raw = DigestReader::new(content.open_blob(&layer.blob)?);
    let mut plain = DigestReader::new(decompress(&mut raw)?);
    unpack_layer(&mut plain, &diff)?;
    let (diff_id, _) = plain.finish().map_err(archive::Error::from)?;
    let (blob, _) = raw.finish().map_err(archive::Error::from)?;
    if diff_id != layer.diff_id.hex() || blob != layer.blob.hex() {
        return Err(Error::Corrupt(format!("blob {} is damaged on disk", layer.blob)));
    }
    let old = set_apart(overlay, layer.chain_id.hex());
    let target = overlay.join(layer.chain_id.hex());
    std::fs::rename(staging.keep(), &target).map_err(Error::io(format!("rename to {}", target.display())))?;
    old.iter().for_each(|dir| remove_tree(dir));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use errors::{Kind, Kinded};

    use crate::Images;
    use crate::tests::{data_root, import};

    /// Says of all layers that they were made in another boot and never synced.
    fn cut_power(images: Images) {
        images.shared.rest();
        let state = images.shared.state();
        let rows = "INSERT OR REPLACE INTO image_unsynced_layers SELECT chain_id, 'another boot' FROM image_layers";
        state.db.execute(rows, []).unwrap();
    }

    #[test]
    fn a_layer_that_a_power_cut_damaged_is_made_again_from_its_blob() {
        let root = data_root();
        let images = Images::open(root.path()).unwrap();
        let id = import(&images, "whole", &[("a/", ""), ("a/b", "content"), ("c", "more")]);
        let diff = images.inspect("whole").unwrap().graph_driver.unwrap().upper;
        cut_power(images);
        fs::write(diff.join("a/b"), "").unwrap();
        fs::remove_file(diff.join("c")).unwrap();
        let images = Images::open(root.path()).unwrap();
        assert_eq!(images.resolve("whole").unwrap(), id);
        assert_eq!(fs::read(diff.join("a/b")).unwrap(), b"content");
        assert_eq!(fs::read(diff.join("c")).unwrap(), b"more");
        // And it is on disk now: nothing is made again next time.
        images.shared.rest();
        assert!(images.shared.state().read_unsynced().unwrap().is_empty());

        cut_power(images);
        fs::remove_dir_all(diff.parent().unwrap()).unwrap();
        let images = Images::open(root.path()).unwrap();
        assert_eq!(fs::read(diff.join("c")).unwrap(), b"more", "even its directory may not have reached the disk");
        drop(images);
    }

    #[test]
    fn an_image_whose_blob_was_damaged_too_is_set_aside_and_can_be_had_again() {
        let root = data_root();
        let images = Images::open(root.path()).unwrap();
        import(&images, "lost", &[("f", "x")]);
        import(&images, "kept", &[("f", "y")]);
        let blob = {
            let state = images.shared.state();
            let chain = &state.find("lost").unwrap().chains[0];
            images.shared.content.path(&state.layers[chain].blob)
        };
        cut_power(images);
        let length = fs::metadata(&blob).unwrap().len();
        fs::write(&blob, vec![0; length as usize]).unwrap();
        let images = Images::open(root.path()).unwrap();
        assert_eq!(images.resolve("lost").unwrap_err().kind(), Kind::NotFound);
        assert!(images.resolve("kept").is_ok());
        import(&images, "lost", &[("f", "x")]);
        let diff = images.inspect("lost").unwrap().graph_driver.unwrap().upper;
        assert_eq!(fs::read(diff.join("f")).unwrap(), b"x");
        cut_power(images);
        assert!(Images::open(root.path()).unwrap().resolve("lost").is_ok(), "its blob is whole again");
    }

    #[test]
    fn a_killed_engine_has_lost_nothing_and_its_successor_syncs() {
        let root = data_root();
        let images = Images::open(root.path()).unwrap();
        import(&images, "kept", &[("f", "x")]);
        images.shared.rest();
        let row = "INSERT INTO image_unsynced_layers SELECT chain_id, ?1 FROM image_layers";
        images.shared.state().db.execute(row, [super::boot_id().unwrap()]).unwrap();
        drop(images);
        let images = Images::open(root.path()).unwrap();
        images.shared.rest();
        assert!(images.shared.state().read_unsynced().unwrap().is_empty());
        assert!(images.resolve("kept").is_ok());
    }
}
