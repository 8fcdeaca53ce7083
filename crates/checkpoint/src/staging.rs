//! A checkpoint in the making: from an empty directory to a rename.
//!
//! ```text
//! <dir>/.staging-<name>-…/manifest.json    what it is going to be, written before the dump
//! <dir>/.staging-<name>-…/<name>/          what the runtime writes; its own last word is `config.json`
//! <dir>/.staging-removed-<name>-…/         one that is being removed
//! ```
//!
//! A kill between any two steps leaves a directory that [`crate::Directory::settle`] can judge: with `config.json` the dump
//! was complete and the checkpoint is kept, without it the container never ended for it and the directory goes.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result, io};
use crate::manifest::Manifest;
use crate::seal::{self, Key, Seal};
use crate::{MANIFEST, NOTE, SEAL, WORK, check_name};

const REMOVAL_ATTEMPTS: u32 = 100;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);
/// More would not make it quicker.
const SYNCS_AT_A_TIME: usize = 12;

/// A checkpoint in the making; dropped, it is gone.
#[derive(Debug)]
pub struct Staging {
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    pub(crate) key: Key,
}

impl Staging {
    /// The checkpoint's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory in which `<name>` is to be made.
    pub fn parent(&self) -> &Path {
        &self.dir
    }

    /// The checkpoint in the making.
    pub fn place(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Writes what it is going to be beside the place, so that the dump is of use even if nobody comes back to it.
    pub fn announce(&self, manifest: &Manifest) -> Result<()> {
        let text = serde_json::to_vec_pretty(manifest).map_err(|e| io("encode a manifest")(e.into()))?;
        create(&self.dir.join(MANIFEST), &text)
    }

    /// Whether the dump came to its end: docker-containerd writes its note last.
    pub fn is_whole(&self) -> bool {
        self.place().join(NOTE).is_file()
    }

    /// Takes the digests of all files, and writes manifest and seal. Meanwhile the files go to the disk: afterwards a power
    /// cut cannot take anything from it.
    pub fn seal(&self, mut manifest: Manifest) -> Result<Manifest> {
        let place = self.place();
        // Memory of processes: nobody else's to read, wherever the directory is.
        let private = |path: &Path| {
            let done = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
            done.map_err(io(format!("chmod {}", path.display())))
        };
        private(&place)?;
        let work = place.join(WORK);
        if fs::symlink_metadata(&work).is_ok_and(|found| found.is_dir()) {
            private(&work)?;
        }
        let (taken, synced) = std::thread::scope(|scope| {
            let syncing = scope.spawn(|| sync(&files_of(&place)?));
            let taken = seal::take(&place).map_err(io(format!("read {}", place.display())));
            (taken, syncing.join().unwrap_or_else(|_| Err(io("sync")(std::io::Error::other("a thread failed")))))
        });
        synced?;
        let (files, lie) = taken?;
        manifest.files = files;
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| io("encode a manifest")(e.into()))?;
        let seal = serde_json::to_vec(&Seal::new(&self.key, &text, lie)).map_err(|e| io("encode a seal")(e.into()))?;
        // Torn by a kill they are written again: the announcement is still there.
        for (name, text) in [(MANIFEST, &text), (SEAL, &seal)] {
            create(&place.join(name), text)?;
        }
        sync(&[place.join(MANIFEST), place.join(SEAL), place.clone()])?;
        Ok(manifest)
    }

    /// Makes a sealed one a checkpoint.
    ///
    /// # Errors
    /// It is still there then, and still one in the making: the caller drops it, or [keeps](Self::keep) it for another try.
    pub fn commit(&self) -> Result<PathBuf> {
        let (place, home) = (self.place(), self.home.join(&self.name));
        let renamed = rustix::fs::renameat_with(
            rustix::fs::CWD,
            &place,
            rustix::fs::CWD,
            &home,
            rustix::fs::RenameFlags::NOREPLACE,
        );
        match renamed {
            Err(rustix::io::Errno::EXIST) => return Err(Error::Exists(self.name.clone())),
            other => other.map_err(|e| io(format!("rename to {}", home.display()))(e.into()))?,
        }
        sync_dir(&self.home)?;
        Ok(home)
    }

    /// Leaves it for [`crate::Directory::settle`]: a container's only memory is not thrown away.
    pub fn keep(self) -> PathBuf {
        let dir = self.dir.clone();
        std::mem::forget(self);
        dir
    }

    /// What an earlier program has begun in `dir`, if anything of use can still become of it. `None` leaves it to be removed.
    pub(crate) fn left_behind(dir: PathBuf, home: &Path, key: &Key) -> Option<(Self, Manifest)> {
        let inside = || fs::read_dir(&dir).into_iter().flatten().flatten().find(|e| e.path().is_dir());
        let manifest = inside()
            .and_then(|entry| seal::manifest_of(&entry.path()).ok())
            .or_else(|| seal::manifest_of(&dir).ok())
            .filter(|manifest| check_name(&manifest.name).is_ok())?;
        let staging = Self { dir, name: manifest.name.clone(), home: home.to_owned(), key: key.clone() };
        if staging.is_whole() {
            return Some((staging, manifest));
        }
        std::mem::forget(staging);
        None
    }
}

impl Drop for Staging {
    /// May take a while: a CRIU whose runtime was killed writes on for a moment before it notices and gives up.
    fn drop(&mut self) {
        for _ in 0..REMOVAL_ATTEMPTS {
            match fs::remove_dir_all(&self.dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(BETWEEN_ATTEMPTS),
                _ => return,
            }
        }
        tracing::warn!("{} cannot be removed; the next start of dockerd tries again", self.dir.display());
    }
}

fn create(path: &Path, text: &[u8]) -> Result<()> {
    let what = || format!("write {}", path.display());
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(io(what()))?;
    file.write_all(text).map_err(io(what()))
}

/// Everything in a tree, directories included.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("read {}", path.display());
    let mut found = vec![path.to_owned()];
    for entry in fs::read_dir(path).map_err(io(what()))? {
        let entry = entry.map_err(io(what()))?;
        let kind = entry.file_type().map_err(io(what()))?;
        if kind.is_dir() {
            found.extend(files_of(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Syncs files side by side: a file system brings together in one commit of its journal what is asked for at a time, and
/// makes one for each that comes after the other.
fn sync(paths: &[PathBuf]) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            sync_dir(path)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..paths.len().min(SYNCS_AT_A_TIME)).map(|_| scope.spawn(work)).collect();
        let failed = || io("sync")(std::io::Error::other("a thread failed"));
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(failed())))
    })
}

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io(format!("sync {}", path.display())))
}
