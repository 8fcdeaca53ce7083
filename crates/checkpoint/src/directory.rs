//! A directory of checkpoints: beginning, listing, opening, removing, and settling what was left half-made.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};
use crate::manifest::Manifest;
use crate::seal::{self, Depth, Key, Origin};
use crate::staging::Staging;

const STAGING: &str = ".staging-";
const REMOVED: &str = "removed-";

/// Docker's rule for names of checkpoints; a name never leads out of its directory.
pub fn check_name(name: &str) -> Result<&str> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.len() > 1 && name.len() <= 255 && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest && !name.ends_with('.') { Ok(name) } else { Err(Error::InvalidName(name.to_owned())) }
}

/// A directory with checkpoints in it; it need not exist.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    key: Key,
    origin: Origin,
}

/// A checkpoint that is there.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its manifest, or what is wrong with it or its files.
    pub manifest: Result<Manifest>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// The options that the runtime has chosen.
    pub options: BTreeMap<String, String>,
}

impl Directory {
    /// One where only this engine puts checkpoints.
    pub fn own(path: impl Into<PathBuf>, key: &Key) -> Self {
        Self { path: path.into(), key: key.clone(), origin: Origin::Own }
    }

    /// One with checkpoints that may have come from anywhere.
    pub fn foreign(path: impl Into<PathBuf>, key: &Key) -> Self {
        Self { origin: Origin::Anywhere, ..Self::own(path, key) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose the checkpoints in it have to be.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Where a checkpoint of that name is or would be.
    pub fn place(&self, name: &str) -> Result<PathBuf> {
        Ok(self.path.join(check_name(name)?))
    }

    /// Is there one of that name?
    pub fn contains(&self, name: &str) -> bool {
        self.place(name).is_ok_and(|p| fs::symlink_metadata(p).is_ok_and(|m| m.is_dir()))
    }

    /// Begins a checkpoint: gives the directory to hand to docker-containerd, which makes `<name>` in it.
    pub fn stage(&self, name: &str) -> Result<Staging> {
        check_name(name)?;
        if self.contains(name) {
            return Err(Error::Exists(name.to_owned()));
        }
        let path = &self.path;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io(format!("mkdir {}", path.display())))?;
        let dir = path.join(format!("{STAGING}{name}-{}-{}", std::process::id(), unique()));
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(io(format!("mkdir {}", dir.display())))?;
        Ok(Staging { dir, name: name.to_owned(), home: path.clone(), key: self.key.clone() })
    }

    /// Looks at a checkpoint and its files, and reads its manifest.
    pub fn check(&self, name: &str, depth: Depth) -> Result<Manifest> {
        let place = self.place(name)?;
        if !self.contains(name) {
            return Err(Error::NotFound { name: name.to_owned(), dir: self.path.display().to_string() });
        }
        seal::check(&place, name, &self.key, self.origin, depth)
            .map_err(|why| Error::Unusable { name: name.to_owned(), why })
    }

    /// All checkpoints, by name. What is no checkpoint is passed over.
    pub fn list(&self, depth: Depth) -> Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io(format!("read {}", self.path.display()))(e)),
        };
        let mut found: Vec<Found> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok().filter(|n| check_name(n).is_ok())?;
                entry.file_type().ok().filter(|t| t.is_dir())?;
                let manifest = self.check(&name, depth);
                let place = entry.path();
                Some(Found { manifest, size_bytes: tree_bytes(&place), options: seal::options_of(&place), name })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Bytes on disk of everything in it.
    pub fn size_bytes(&self) -> u64 {
        if self.path.exists() { tree_bytes(&self.path) } else { 0 }
    }

    /// Removes a checkpoint: out of sight by a rename first, so that half a checkpoint is never seen.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        if !self.contains(name) {
            return Err(Error::NotFound { name: name.to_owned(), dir: self.path.display().to_string() });
        }
        let grave = self.path.join(format!("{STAGING}{REMOVED}{name}-{}-{}", std::process::id(), unique()));
        fs::rename(&place, &grave).map_err(io(format!("rename {}", place.display())))?;
        fs::remove_dir_all(&grave).map_err(io(format!("remove {}", grave.display())))
    }

    /// After the maker was killed, or could not finish: a checkpoint whose dump was complete is put in place, because its
    /// container may have ended with it; everything else that was in the making, or half removed, goes. What cannot be put
    /// in place now stays for the next time: then the answer is false. Only when nobody is making one.
    pub fn settle(&self) -> bool {
        let mut settled = true;
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let Some(rest) = entry.file_name().to_str().and_then(|n| n.strip_prefix(STAGING)).map(str::to_owned) else {
                continue;
            };
            let left = match rest.starts_with(REMOVED) {
                true => None,
                false => Staging::left_behind(entry.path(), &self.path, &self.key),
            };
            let Some((staging, manifest)) = left else {
                let _ = fs::remove_dir_all(entry.path());
                continue;
            };
            let name = manifest.name.clone();
            match staging.seal(manifest).and_then(|_| staging.commit()) {
                Ok(_) => tracing::info!("checkpoint {name} was complete when its maker ended; it is kept"),
                Err(e) => {
                    let dir = staging.keep();
                    tracing::warn!("checkpoint {name} stays in {} for now: {e}", dir.display());
                    settled = false;
                }
            }
        }
        settled
    }
}

/// Bytes on disk of a tree, links not followed. It may be anybody's: however deep it is, it takes no stack.
fn tree_bytes(path: &Path) -> u64 {
    let (mut ahead, mut bytes) = (vec![path.to_owned()], 0);
    while let Some(path) = ahead.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            ahead.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    bytes
}

/// A number that no other directory of this process has.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
