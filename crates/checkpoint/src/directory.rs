//! A directory of checkpoints: staging, listing, opening, removing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};
use crate::manifest::{self, Manifest};

const STAGING: &str = ".staging-";
const REMOVED: &str = "removed-";
const MANIFEST: &str = "manifest.json";
/// What docker-containerd writes when a dump is complete.
const NOTE: &str = "config.json";

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
}

/// A checkpoint that is there.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its manifest, or what is wrong with it.
    pub manifest: Result<Manifest>,
    /// Bytes on disk.
    pub size_bytes: u64,
}

/// A checkpoint in the making; dropped, it is gone.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    name: String,
    home: PathBuf,
}

impl Directory {
    /// That one.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
        make_dir_all(&self.path)?;
        let unique = format!("{STAGING}{name}-{}-{}", std::process::id(), unique());
        let dir = self.path.join(unique);
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(io(format!("mkdir {}", dir.display())))?;
        Ok(Staging { dir, name: name.to_owned(), home: self.path.clone() })
    }

    /// Reads the manifest of a checkpoint.
    pub fn manifest(&self, name: &str) -> Result<Manifest> {
        let place = self.place(name)?;
        if !self.contains(name) {
            return Err(Error::NotFound { name: name.to_owned(), dir: self.path.display().to_string() });
        }
        read_manifest(&place).map_err(|why| Error::Unusable { name: name.to_owned(), why })
    }

    /// Looks whether every file of a checkpoint is there in full.
    pub fn check_files(&self, manifest: &Manifest) -> Result<()> {
        let found = file_sizes(&self.place(&manifest.name)?)?;
        for (name, size) in &manifest.files {
            let why = match found.get(name) {
                Some(there) if there == size => continue,
                Some(there) => format!("{name} has {there} bytes instead of {size}: it was cut short or changed"),
                None => format!("{name} is missing"),
            };
            return Err(Error::Unusable { name: manifest.name.clone(), why });
        }
        Ok(())
    }

    /// All checkpoints, by name. What is no checkpoint is passed over.
    pub fn list(&self) -> Result<Vec<Found>> {
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
                let manifest = self.manifest(&name);
                Some(Found { manifest, size_bytes: tree_bytes(&entry.path()), name })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes a checkpoint: out of sight by a rename first, so that half a checkpoint is never seen.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        if !self.contains(name) {
            return Err(Error::NotFound { name: name.to_owned(), dir: self.path.display().to_string() });
        }
        let grave = self.path.join(format!("{STAGING}{REMOVED}{name}-{}", unique()));
        fs::rename(&place, &grave).map_err(io(format!("rename {}", place.display())))?;
        fs::remove_dir_all(&grave).map_err(io(format!("remove {}", grave.display())))
    }

    /// After the maker was killed: a checkpoint whose dump was complete (docker-containerd writes its note last) is put in
    /// place, because its container may have ended with it; everything else that was in the making, or half removed, goes.
    /// Only when nobody is making one.
    pub fn settle(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let Some(rest) = entry.file_name().to_str().and_then(|n| n.strip_prefix(STAGING)).map(str::to_owned) else {
                continue;
            };
            if !rest.starts_with(REMOVED)
                && let Some(staging) = self.complete(entry.path())
            {
                let name = staging.name.clone();
                match staging.commit() {
                    Ok(_) => tracing::info!("checkpoint {name} was complete when its maker ended; it is kept"),
                    Err(e) => tracing::warn!("keeping checkpoint {name}: {e}"),
                }
            } else {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// A staging directory with a whole checkpoint in it.
    fn complete(&self, dir: PathBuf) -> Option<Staging> {
        let mut manifest = read_manifest(&dir).or_else(|_| {
            let inside = fs::read_dir(&dir).into_iter().flatten().flatten().find(|e| e.path().is_dir());
            inside.map_or(Err(String::new()), |e| read_manifest(&e.path()))
        });
        let name = manifest.as_ref().ok().and_then(|m| check_name(&m.name).ok())?.to_owned();
        let staging = Staging { dir, name, home: self.path.clone() };
        let place = staging.place();
        let whole = place.join(NOTE).is_file() && !self.contains(&staging.name);
        match &mut manifest {
            Ok(manifest) if whole => {
                manifest.files = file_sizes(&place).ok()?;
                staging.write_manifest(manifest).ok()?;
                Some(staging)
            }
            // Dropped, it removes itself.
            _ => None,
        }
    }
}

impl Staging {
    /// The directory in which `<name>` is to be made.
    pub fn parent(&self) -> &Path {
        &self.dir
    }

    /// The checkpoint in the making.
    pub fn place(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// The files of the checkpoint in the making, with their sizes.
    pub fn file_sizes(&self) -> Result<BTreeMap<String, u64>> {
        file_sizes(&self.place())
    }

    /// Writes the manifest beside the place, where it waits for the dump: afterwards a rename is enough.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        // Beside it and renamed: one that is there stays whole whatever comes in between.
        let path = self.dir.join(format!("{MANIFEST}.new"));
        let what = || format!("write {}", path.display());
        let text = serde_json::to_vec_pretty(manifest).map_err(|e| io(what())(e.into()))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(io(what()))?;
        file.write_all(&text).map_err(io(what()))?;
        file.sync_all().map_err(io(what()))?;
        fs::rename(&path, self.dir.join(MANIFEST)).map_err(io(what()))
    }

    /// Makes it a checkpoint. What CRIU wrote is synced first: a checkpoint that is seen is whole, also after a power cut.
    pub fn commit(self) -> Result<PathBuf> {
        let (place, home) = (self.place(), self.home.join(&self.name));
        fs::rename(self.dir.join(MANIFEST), place.join(MANIFEST))
            .map_err(io(format!("rename to {}", place.display())))?;
        // Memory of processes: nobody else's to read, wherever the directory is.
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700))
            .map_err(io(format!("chmod {}", place.display())))?;
        sync_tree(&place)?;
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
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn read_manifest(place: &Path) -> Result<Manifest, String> {
    let path = place.join(MANIFEST);
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc_nofollow())
        .open(&path)
        .map_err(|e| format!("its manifest cannot be opened: {e}"))?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() || meta.len() > manifest::MAX_BYTES {
        return Err("its manifest is not a file of sensible size".into());
    }
    let mut bytes = Vec::new();
    file.take(manifest::MAX_BYTES).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    manifest::parse(&bytes)
}

fn libc_nofollow() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32
}

fn make_dir_all(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(format!("mkdir {}", path.display())))
}

/// The files right in a checkpoint's directory; what CRIU writes while it works (logs) is in directories below.
fn file_sizes(place: &Path) -> Result<BTreeMap<String, u64>> {
    let what = || format!("read {}", place.display());
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(place).map_err(io(what()))? {
        let entry = entry.map_err(io(what()))?;
        let meta = entry.metadata().map_err(io(what()))?;
        if let Ok(name) = entry.file_name().into_string()
            && meta.is_file()
            && name != MANIFEST
        {
            sizes.insert(name, meta.len());
        }
    }
    Ok(sizes)
}

/// Bytes on disk of a tree, links not followed.
fn tree_bytes(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    own + fs::read_dir(path).into_iter().flatten().flatten().map(|e| tree_bytes(&e.path())).sum::<u64>()
}

fn sync_tree(path: &Path) -> Result<()> {
    let what = || format!("sync {}", path.display());
    for entry in fs::read_dir(path).map_err(io(what()))? {
        let entry = entry.map_err(io(what()))?;
        let kind = entry.file_type().map_err(io(what()))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path()).and_then(|f| f.sync_data()).map_err(io(what()))?;
        }
    }
    sync_dir(path)
}

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io(format!("sync {}", path.display())))
}

/// A number that no other staging directory of this process has.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::HostFacts;

    fn manifest(name: &str) -> Manifest {
        Manifest {
            version: manifest::VERSION,
            name: name.into(),
            created: Utc::now(),
            container_id: "a".repeat(64),
            container_name: "web".into(),
            image_id: "sha256:0".into(),
            runtime: "docker-runc".into(),
            tty: false,
            paused: false,
            addresses: Default::default(),
            host: HostFacts::here(),
            files: Default::default(),
            measured: None,
        }
    }

    fn make(dir: &Directory, name: &str) -> Result<PathBuf> {
        let staging = dir.stage(name)?;
        staging.write_manifest(&manifest(name))?;
        fs::create_dir(staging.place()).unwrap();
        fs::write(staging.place().join("pages-1.img"), b"pages").unwrap();
        staging.commit()
    }

    #[test]
    fn whole_or_absent() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path().join("checkpoints"));
        assert!(dir.list().unwrap().is_empty());
        drop(dir.stage("given-up").unwrap());
        assert!(dir.list().unwrap().is_empty());
        make(&dir, "cp1").unwrap();
        assert!(matches!(make(&dir, "cp1"), Err(Error::Exists(_))));
        let list = dir.list().unwrap();
        assert_eq!((list.len(), list[0].name.as_str()), (1, "cp1"));
        assert!(list[0].size_bytes > 0 && list[0].manifest.is_ok());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        dir.remove("cp1").unwrap();
        assert!(matches!(dir.remove("cp1"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn what_a_killed_maker_left_is_settled() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        std::mem::forget(dir.stage("cp1").unwrap());
        make(&dir, "cp2").unwrap();
        // One that was being dumped, and one whose dump was complete.
        for (name, complete) in [("cp3", false), ("cp4", true)] {
            let staging = dir.stage(name).unwrap();
            staging.write_manifest(&manifest(name)).unwrap();
            fs::create_dir(staging.place()).unwrap();
            fs::write(staging.place().join("pages-1.img"), b"pages").unwrap();
            if complete {
                fs::write(staging.place().join(NOTE), b"{}").unwrap();
            }
            std::mem::forget(staging);
        }
        dir.settle();
        let names: Vec<_> = dir.list().unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["cp2", "cp4"]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        dir.check_files(&dir.manifest("cp4").unwrap()).unwrap();
    }

    #[test]
    fn what_was_cut_short_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        let place = make(&dir, "cp1").unwrap();
        let whole = Manifest { files: file_sizes(&place).unwrap(), ..manifest("cp1") };
        assert_eq!(whole.files["pages-1.img"], 5);
        dir.check_files(&whole).unwrap();
        fs::write(place.join("pages-1.img"), b"pag").unwrap();
        assert!(dir.check_files(&whole).unwrap_err().to_string().contains("pages-1.img has 3 bytes instead of 5"));
        fs::remove_file(place.join("pages-1.img")).unwrap();
        assert!(dir.check_files(&whole).unwrap_err().to_string().contains("is missing"));
    }

    #[test]
    fn names_stay_inside() {
        for bad in ["", "a", ".", "..", "../x", "a/b", ".a", "a.", "a b", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("cp-1.x_y").is_ok());
    }

    #[test]
    fn a_hostile_manifest_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        let place = make(&dir, "cp1").unwrap();
        let path = place.join(MANIFEST);
        for text in ["", "{}", "[]", r#"{"version":99}"#] {
            fs::write(&path, text).unwrap();
            assert!(matches!(dir.manifest("cp1"), Err(Error::Unusable { .. })), "{text}");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(dir.manifest("cp1").is_err());
    }
}
