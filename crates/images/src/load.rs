//! `docker load`: images out of an archive of `docker save`, or out of an OCI layout.
//!
//! The archive is unpacked in a staging directory, everything in it is read from there through a [`Root`], and an image
//! is recorded only when all images of the archive are complete: a bad archive leaves nothing behind.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use archive::{Limits, Root, UnpackOptions, Whiteouts, unpack};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::extract::{Source, extract};
use crate::manifest::{self, Document, MAX_MANIFEST_BYTES, Manifest, SavedImage};
use crate::platform::Platform;
use crate::progress::{Progress, ProgressSink};
use crate::shared::Lease;
use crate::{Digest, Error, Images, Reference, Result};

const MAX_LIST_BYTES: u64 = 16 << 20;
/// How deep an index may name indexes.
const MAX_DEPTH: usize = 4;

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names it got.
    pub names: Vec<Reference>,
}

/// What an archive says about one image.
struct Found {
    config: Vec<u8>,
    /// Path, and the digest and size it must have if the archive says so.
    layers: Vec<(String, Option<(Digest, u64)>)>,
    names: Vec<Reference>,
    parent: Option<Digest>,
}

impl Images {
    /// Loads the images of an archive, compressed or not. Progress is a status for each layer and, at the end, the lines
    /// the docker CLI prints.
    pub fn load(&self, tar: impl Read + Send, progress: ProgressSink<'_>) -> Result<Vec<Loaded>> {
        let staging = self.shared.staging()?;
        let limits = Limits { max_entries: 1_000_000, ..Limits::default() };
        let archive = Archive::unpack(tar, staging.path(), limits)?;
        let found = archive.images()?;

        let mut lease = self.shared.lease();
        for image in &found {
            self.load_layers(&archive, image, &mut lease, progress)?;
        }
        let mut loaded = Vec::new();
        for image in found {
            let parent = image.parent.filter(|parent| self.is_parent(parent, &image.config));
            let id = self.shared.record_image(&image.config, parent, &mut lease)?;
            for name in &image.names {
                let old = self.shared.state().set_reference(name, &id)?;
                if let Some(old) = old.filter(|old| *old != id) {
                    progress(Progress::text(format!(
                        "The image {} already exists, renaming the old one with ID {old} to empty string\n",
                        name.familiar()
                    )));
                }
                progress(Progress::text(format!("Loaded image: {}\n", name.familiar())));
            }
            loaded.push(Loaded { id, names: image.names });
        }
        if loaded.iter().all(|image| image.names.is_empty()) {
            for image in &loaded {
                progress(Progress::text(format!("Loaded image ID: {}\n", image.id)));
            }
        }
        Ok(loaded)
    }

    fn load_layers(
        &self,
        archive: &Archive,
        image: &Found,
        lease: &mut Lease,
        progress: ProgressSink<'_>,
    ) -> Result<()> {
        let config = ImageConfig::parse(&image.config)?;
        if config.operating_system() != "linux" {
            return Err(Error::Invalid(format!("cannot load {} image on linux", config.operating_system())));
        }
        let diff_ids = &config.rootfs.diff_ids;
        if image.layers.len() != diff_ids.len() {
            return Err(Error::Invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                image.layers.len(),
                diff_ids.len()
            )));
        }
        let mut parent: Option<Digest> = None;
        for (diff_id, (path, expected)) in diff_ids.iter().zip(&image.layers) {
            let chain = Digest::chain(parent.as_ref(), diff_id);
            if lease.layer(&chain).is_none() {
                if let Some((digest, bytes)) = expected {
                    archive.verify(path, digest, *bytes)?;
                }
                let file = archive.open(path)?;
                let total = file.metadata().map_err(Error::io(format!("stat {path}")))?.len();
                let reader = Told { inner: &file, id: diff_id.short(), bytes: 0, told: 0, total, tell: progress };
                extract(&self.shared, lease, parent.as_ref(), Source::File(&file, Box::new(reader)), Some(diff_id))?;
            }
            parent = Some(chain);
        }
        Ok(())
    }

    /// Whether an image may be called the parent of another: it has one step less, and the same before it.
    fn is_parent(&self, parent: &Digest, child: &[u8]) -> bool {
        let (Ok(parent), Ok(child)) = (self.config(parent), ImageConfig::parse(child)) else { return false };
        child.rootfs.diff_ids.starts_with(&parent.rootfs.diff_ids)
            && child.history.len() == parent.history.len() + 1
            && child.history.starts_with(&parent.history)
    }
}

/// An unpacked archive.
struct Archive {
    root: Root,
}

impl Archive {
    fn unpack(tar: impl Read + Send, dir: &Path, limits: Limits) -> Result<Self> {
        let options = UnpackOptions {
            whiteouts: Whiteouts::None,
            limits,
            devices: false,
            contained_links: true,
            archive_owners: false,
            ..UnpackOptions::default()
        };
        unpack(archive::compression::decompress(tar)?, dir, &options)?;
        Ok(Self { root: Root::open(dir)? })
    }

    fn images(&self) -> Result<Vec<Found>> {
        if let Some(list) = self.read_optional("manifest.json", MAX_LIST_BYTES)? {
            return self.docker_images(&list);
        }
        if let Some(index) = self.read_optional("index.json", MAX_LIST_BYTES)? {
            return self.oci_images(&index);
        }
        Err(Error::Invalid("invalid archive: does not contain a manifest.json".into()))
    }

    fn docker_images(&self, list: &[u8]) -> Result<Vec<Found>> {
        let list: Option<Vec<SavedImage>> = serde_json::from_slice(list)
            .map_err(|error| Error::Invalid(format!("invalid archive: failed to decode manifest.json: {error}")))?;
        let list =
            list.ok_or_else(|| Error::Invalid("invalid manifest, manifest cannot be null (but can be [])".into()))?;
        let mut found = Vec::new();
        for image in list {
            let mut names = Vec::new();
            for name in image.repo_tags.unwrap_or_default() {
                let reference = Reference::parse(&name)?;
                if reference.tag().is_none() || reference.digest().is_some() {
                    return Err(Error::Invalid(format!("invalid tag {name:?}")));
                }
                names.push(reference);
            }
            found.push(Found {
                config: self.read(&image.config, MAX_CONFIG_BYTES)?,
                layers: image.layers.unwrap_or_default().into_iter().map(|path| (path, None)).collect(),
                names,
                parent: image.parent.as_deref().map(Digest::parse).transpose()?,
            });
        }
        Ok(found)
    }

    fn oci_images(&self, index: &[u8]) -> Result<Vec<Found>> {
        let Document::Index(index) = manifest::parse(index, manifest::OCI_INDEX)? else {
            return Err(Error::Invalid("invalid archive: index.json is no index".into()));
        };
        let mut found: Vec<Found> = Vec::new();
        let mut known = HashMap::new();
        for entry in &index.manifests {
            let Some(manifest) = self.image(entry, 0, &mut known)? else { continue };
            let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
            let name = names
                .iter()
                .filter_map(|key| entry.annotations.get(*key))
                .find_map(|name| Reference::parse(name).ok().filter(|name| name.tag().is_some()));
            let config = self.verified(&manifest.config, MAX_CONFIG_BYTES)?;
            if let Some(same) = found.iter_mut().find(|other| other.config == config) {
                same.names.extend(name);
                continue;
            }
            let layers = manifest.layers.into_iter();
            found.push(Found {
                config,
                layers: layers.map(|l| (blob_path(&l.digest), Some((l.digest, l.size)))).collect(),
                names: name.into_iter().collect(),
                parent: None,
            });
        }
        if found.is_empty() && !index.manifests.is_empty() {
            return Err(Error::NotFound(format!("no image for {} in the archive", Platform::host().spell())));
        }
        Ok(found)
    }

    /// The image that an entry of an index stands for: itself, or what fits best of an index. Signatures and the like are
    /// no images; neither are those of another platform. Every document is read once, however often it is named.
    fn image(
        &self,
        entry: &manifest::Descriptor,
        depth: usize,
        known: &mut HashMap<Digest, Option<Manifest>>,
    ) -> Result<Option<Manifest>> {
        if let Some(image) = known.get(&entry.digest) {
            return Ok(image.clone());
        }
        let image = match self.document(entry)? {
            Document::Manifest(manifest) => Some(manifest).filter(is_image),
            Document::Schema1 => None,
            Document::Index(_) if depth > MAX_DEPTH => {
                return Err(Error::Invalid("indexes name each other too deeply".into()));
            }
            Document::Index(index) => {
                let mut image = None;
                for entry in index.matching(&Platform::host()) {
                    image = self.image(entry, depth + 1, known)?;
                    if image.is_some() {
                        break;
                    }
                }
                image
            }
        };
        known.insert(entry.digest.clone(), image.clone());
        Ok(image)
    }

    fn document(&self, entry: &manifest::Descriptor) -> Result<Document> {
        manifest::parse(&self.verified(entry, MAX_MANIFEST_BYTES)?, &entry.media_type)
    }

    fn verified(&self, entry: &manifest::Descriptor, max_bytes: u64) -> Result<Vec<u8>> {
        let data = self.read(&blob_path(&entry.digest), max_bytes)?;
        if data.len() as u64 != entry.size || Digest::of(&data) != entry.digest {
            return Err(Error::Invalid(format!("invalid archive: blob {} does not match its digest", entry.digest)));
        }
        Ok(data)
    }

    fn verify(&self, path: &str, digest: &Digest, bytes: u64) -> Result<()> {
        let reader = archive::DigestReader::new(self.open(path)?);
        let (hex, length) = reader.finish().map_err(Error::io(format!("read {path}")))?;
        if hex != digest.hex() || length != bytes {
            return Err(Error::Invalid(format!("invalid archive: blob {digest} does not match its digest")));
        }
        Ok(())
    }

    fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>> {
        let found = self.read_optional(path, max_bytes)?;
        found.ok_or_else(|| Error::Invalid(format!("invalid archive: {path} is missing")))
    }

    fn read_optional(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.find(path)? else { return Ok(None) };
        let mut data = Vec::new();
        file.take(max_bytes + 1).read_to_end(&mut data).map_err(Error::io(format!("read {path}")))?;
        if data.len() as u64 > max_bytes {
            return Err(Error::TooLarge(format!("invalid archive: {path} is larger than {max_bytes} bytes")));
        }
        Ok(Some(data))
    }

    fn open(&self, path: &str) -> Result<std::fs::File> {
        self.find(path)?.ok_or_else(|| Error::Invalid(format!("invalid archive: {path} is missing")))
    }

    /// Opens a regular file; links in the archive are followed inside of it.
    fn find(&self, path: &str) -> Result<Option<std::fs::File>> {
        let what = || format!("open {path} of the archive");
        let file = match self.root.open_path(path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => std::fs::File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(Error::io(what())(errno)),
        };
        if !file.metadata().map_err(Error::io(what()))?.is_file() {
            return Err(Error::Invalid(format!("invalid archive: {path} is not a file")));
        }
        Ok(Some(file))
    }
}

/// The configurations of the images of a small archive, for fuzzing.
pub(crate) fn configurations(tar: impl Read + Send, dir: &Path) -> Result<Vec<Vec<u8>>> {
    let limits = Limits { max_entries: 1_000, max_bytes: 1 << 20 };
    let found = Archive::unpack(tar, dir, limits)?.images()?;
    Ok(found.into_iter().map(|image| image.config).collect())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn is_image(manifest: &Manifest) -> bool {
    matches!(manifest.config.media_type.as_str(), "" | manifest::OCI_CONFIG | manifest::DOCKER_CONFIG)
}

/// Tells how much of a layer was read.
struct Told<'a, R> {
    inner: R,
    id: &'a str,
    bytes: u64,
    told: u64,
    total: u64,
    tell: &'a mut (dyn FnMut(Progress) + Send),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        if self.bytes - self.told >= 512 << 10 || (n == 0 && self.bytes != self.told) {
            self.told = self.bytes;
            (self.tell)(Progress::bytes(self.id, "Loading layer", self.bytes, Some(self.total)));
        }
        Ok(n)
    }
}
