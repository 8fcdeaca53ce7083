//! `seal.json`, and the check of a checkpoint's files.
//!
//! The manifest has a digest of every file. The seal has a digest of the manifest, and what only this engine can say: how
//! the files lay on this disk when the checkpoint was made (inode and time of change, which no program can set), all of it
//! under a code made with the engine's own key. So a wake need not read gigabytes that nobody has touched: a large file
//! that lies as it lay then is taken as it is. One that does not (it was written to, copied, restored from a backup), one
//! that is small, and every file of a checkpoint of another engine is read and compared with its digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::manifest::{FileFacts, MAX_BYTES, Manifest};
use crate::{MANIFEST, SEAL, WORK};

/// Up to this size a file is always read.
const ALWAYS_READ_BYTES: u64 = 256 << 10;
const BUFFER_BYTES: usize = 1 << 20;

/// An engine's key; whoever has it can make seals that this engine believes.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// From any text with enough chance in it, kept by the engine.
    pub fn from_secret(secret: &str) -> Self {
        Self(blake3::derive_key("dormouse 2026 seal of checkpoints", secret.as_bytes()))
    }

    /// Tells keys apart without telling the key.
    fn id(&self) -> String {
        blake3::hash(&self.0).to_hex()[..16].to_owned()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// How thoroughly files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Reads what is small. A large file that the seal says nothing about is compared by its size.
    Quick,
    /// Reads what is small and what the seal says nothing about.
    Wake,
    /// Reads everything.
    Full,
}

/// Whose checkpoint it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It lies where only this engine puts checkpoints.
    Own,
    /// It may have come from another engine.
    Anywhere,
}

/// `seal.json`
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seal {
    /// BLAKE3 of the manifest's bytes.
    manifest: String,
    /// The key's id.
    engine: String,
    /// How the files lie: inode, and the nanosecond of the last change.
    files: BTreeMap<String, (u64, i128)>,
    /// The code over the three above.
    code: String,
}

impl Seal {
    fn code(&self, key: &Key) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(self.manifest.as_bytes());
        hasher.update(self.engine.as_bytes());
        for (name, (inode, changed)) in &self.files {
            hasher.update(format!("\n{inode} {changed} {name}").as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// For these bytes of a manifest and these files as they lie now.
    pub(crate) fn new(key: &Key, manifest: &[u8], files: BTreeMap<String, (u64, i128)>) -> Self {
        let manifest = blake3::hash(manifest).to_hex().to_string();
        let mut seal = Self { manifest, engine: key.id(), files, code: String::new() };
        seal.code = seal.code(key);
        seal
    }
}

/// Digests of files and how they lie.
pub(crate) type Taken = (BTreeMap<String, FileFacts>, BTreeMap<String, (u64, i128)>);

/// Takes the facts of every file right in a checkpoint's directory, but for manifest and seal.
pub(crate) fn take(place: &Path) -> std::io::Result<Taken> {
    let dir = open_dir(place)?;
    let mut taken = Taken::default();
    for entry in std::fs::read_dir(place)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name == MANIFEST || name == SEAL || !entry.file_type()?.is_file() {
            continue;
        }
        let mut file = open_at(&dir, &name)?;
        let metadata = file.metadata()?;
        let blake3 = Some(digest(&mut file)?);
        taken.0.insert(name.clone(), FileFacts { size_bytes: metadata.len(), blake3 });
        taken.1.insert(name, lies(&metadata));
    }
    Ok(taken)
}

/// Looks whether a checkpoint is what its maker left; if not, why not. Nothing is followed out of the directory, and what
/// others than the engine's user could change while we look is refused.
pub(crate) fn check(place: &Path, name: &str, key: &Key, origin: Origin, depth: Depth) -> Result<Manifest, String> {
    let dir = open_dir(place).map_err(|e| format!("its directory cannot be opened: {e}"))?;
    let dir_file = File::from(dir.try_clone().map_err(|e| e.to_string())?);
    guarded("its directory", &dir_file.metadata().map_err(|e| e.to_string())?)?;
    let manifest_bytes = read_small(&dir, MANIFEST).map_err(|e| format!("its manifest cannot be used: {e}"))?;
    let manifest = crate::manifest::parse(&manifest_bytes)?;
    if manifest.name != name {
        return Err(format!(
            "its directory holds checkpoint {}: it was renamed or put in another's place",
            manifest.name
        ));
    }
    let lay = match manifest.version {
        1 => BTreeMap::new(),
        _ => sealed(&dir, &manifest_bytes, key, origin)?,
    };
    for entry in std::fs::read_dir(place).map_err(|e| e.to_string())? {
        let entry = entry.map_err(|e| e.to_string())?;
        let file_name = entry.file_name();
        let name = file_name.to_str().unwrap_or_default();
        let known = name == MANIFEST || name == SEAL || manifest.files.contains_key(name);
        let logs = name == WORK && entry.file_type().is_ok_and(|t| t.is_dir());
        if !known && !logs {
            return Err(format!("{} is not part of it", file_name.display()));
        }
        if logs {
            // A wake writes there: nobody may put a link in its way.
            guarded(name, &entry.metadata().map_err(|e| e.to_string())?)?;
        }
    }
    for (name, facts) in &manifest.files {
        check_file(&dir, name, facts, lay.get(name), depth)?;
    }
    Ok(manifest)
}

/// How the files lay when the seal was made; empty when another engine made it.
fn sealed(dir: &OwnedFd, manifest: &[u8], key: &Key, origin: Origin) -> Result<BTreeMap<String, (u64, i128)>, String> {
    let seal = read_small(dir, SEAL).map_err(|e| format!("its seal cannot be used: {e}"))?;
    let seal: Seal = serde_json::from_slice(&seal).map_err(|e| format!("its seal cannot be read: {e}"))?;
    let altered = || Err("its manifest was altered after it was made".to_owned());
    if seal.manifest != blake3::hash(manifest).to_hex().as_str() {
        return altered();
    }
    if seal.engine != key.id() {
        return match origin {
            Origin::Own => altered(),
            Origin::Anywhere => Ok(BTreeMap::new()),
        };
    }
    // Compared as hashes, so that the time it takes tells nothing.
    match blake3::hash(seal.code(key).as_bytes()) == blake3::hash(seal.code.as_bytes()) {
        true => Ok(seal.files),
        false => altered(),
    }
}

fn check_file(
    dir: &OwnedFd,
    name: &str,
    facts: &FileFacts,
    lay: Option<&(u64, i128)>,
    depth: Depth,
) -> Result<(), String> {
    let mut file = match open_at(dir, name) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(format!("{name} is missing")),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(format!("{name} is a symbolic link"));
        }
        Err(e) => return Err(format!("{name} cannot be opened: {e}")),
    };
    let metadata = file.metadata().map_err(|e| format!("{name}: {e}"))?;
    if !metadata.is_file() {
        return Err(format!("{name} is not a regular file"));
    }
    guarded(name, &metadata)?;
    let (there, size) = (metadata.len(), facts.size_bytes);
    if there != size {
        return Err(format!("{name} has {there} bytes instead of {size}: it was cut short or changed"));
    }
    let Some(expected) = &facts.blake3 else { return Ok(()) };
    let untouched = lay == Some(&lies(&metadata));
    let read = match depth {
        Depth::Full => true,
        Depth::Wake => size <= ALWAYS_READ_BYTES || !untouched,
        Depth::Quick => size <= ALWAYS_READ_BYTES,
    };
    if read && digest(&mut file).map_err(|e| format!("{name} cannot be read: {e}"))? != *expected {
        return Err(format!("the content of {name} is not what it was when the checkpoint was made"));
    }
    Ok(())
}

/// Only the engine's own user may be able to change it.
fn guarded(what: &str, metadata: &std::fs::Metadata) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(format!(
            "{what} belongs to user {}, who could change it: it must belong to user {us}",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(format!("{what} can be changed by others (mode {mode:04o}): take that right away"));
    }
    Ok(())
}

fn lies(metadata: &std::fs::Metadata) -> (u64, i128) {
    (metadata.ino(), i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()))
}

fn digest(file: &mut File) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(file.metadata()?.len()).unwrap_or(BUFFER_BYTES)).max(1)];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
    }
}

fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_at(dir: &OwnedFd, name: &str) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

/// Reads a manifest or a seal: a regular file of sensible size that nobody else can change.
fn read_small(dir: &OwnedFd, name: &str) -> Result<Vec<u8>, String> {
    let file = open_at(dir, name).map_err(|e| e.to_string())?;
    let metadata = file.metadata().map_err(|e| e.to_string())?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err("not a file of sensible size".into());
    }
    guarded(name, &metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The manifest of a directory, its files unseen.
pub(crate) fn manifest_of(place: &Path) -> Result<Manifest, String> {
    let dir = open_dir(place).map_err(|e| format!("its directory cannot be opened: {e}"))?;
    let bytes = read_small(&dir, MANIFEST).map_err(|e| format!("its manifest cannot be used: {e}"))?;
    crate::manifest::parse(&bytes)
}

/// The options that the runtime has chosen, as far as they are single values.
pub(crate) fn options_of(place: &Path) -> BTreeMap<String, String> {
    let text = open_dir(place).map_err(|e| e.to_string()).and_then(|dir| read_small(&dir, crate::OPTIONS));
    let options: serde_json::Map<String, serde_json::Value> =
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let single = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text),
        value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => Some(value.to_string()),
        _ => None,
    };
    options.into_iter().filter_map(|(name, value)| Some((name, single(value)?))).collect()
}
