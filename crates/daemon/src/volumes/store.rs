//! The volumes there are. A volume exists when it has a row; its directory is made before the row and removed after it,
//! so a crash in between leaves a directory that nobody names, never a volume without its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use nix::mount::{MntFlags, MsFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::records::Records;

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options: `type`, `device`, `o` as of mount(8).
    pub options: BTreeMap<String, String>,
    /// Made for one container without a name.
    pub anonymous: bool,
}

/// All volumes; locks are held for moments only.
pub struct Volumes {
    root: PathBuf,
    records: Records,
    all: Mutex<BTreeMap<String, Volume>>,
}

impl Volumes {
    /// Reads the rows. What cannot be read is reported and left out.
    pub fn open(data_root: &Path, records: Records) -> Result<Self> {
        let root = data_root.join("volumes");
        std::fs::create_dir_all(&root).context(|| format!("mkdir {}", root.display()))?;
        let mut all = BTreeMap::new();
        for (name, text) in records.volumes()? {
            match serde_json::from_str::<Volume>(&text) {
                Ok(volume) => {
                    all.insert(name, volume);
                }
                Err(e) => tracing::error!("volume {name} cannot be read from the database and is left out: {e}"),
            }
        }
        Ok(Self { root, records, all: Mutex::new(all) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a volume's files are.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Volume> {
        self.lock().values().cloned().collect()
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Result<Volume> {
        self.lock().get(name).cloned().ok_or_else(|| Error::NotFound(format!("get {name}: no such volume")))
    }

    /// Makes a volume, or gives back the one of that name; the flag says which. An empty name makes up one.
    pub fn create(
        &self,
        name: &str,
        driver: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> Result<(Volume, bool)> {
        let anonymous = name.is_empty();
        let about = |e: Error| match e {
            Error::NotFound(why) => Error::NotFound(format!("create {name}: {why}")),
            e => Error::InvalidParameter(format!("create {name}: {e}")),
        };
        check_driver(driver).map_err(about)?;
        check_options(&options).map_err(about)?;
        let name = if anonymous { crate::containers::names::random_id() } else { check_name(name)?.to_owned() };
        let mut all = self.lock();
        if let Some(existing) = all.get(&name) {
            // As in Docker, whatever options and labels are asked for now.
            return Ok((existing.clone(), false));
        }
        let data = self.mountpoint(&name);
        std::fs::create_dir_all(&data).context(|| format!("mkdir {}", data.display()))?;
        let volume = Volume { name: name.clone(), created: Utc::now(), labels, options, anonymous };
        self.store(&volume)?;
        all.insert(name, volume.clone());
        Ok((volume, true))
    }

    fn store(&self, volume: &Volume) -> Result<()> {
        let text = serde_json::to_string(volume).map_err(|e| Error::System(format!("cannot store volume: {e}")))?;
        self.records.put_volume(&volume.name, &text)
    }

    /// Removes a volume that nobody uses (the caller has looked).
    pub fn remove(&self, name: &str) -> Result<Volume> {
        let mut all = self.lock();
        let Some(volume) = all.get(name).cloned() else {
            return Err(Error::NotFound(format!("get {name}: no such volume")));
        };
        self.unmount(&volume)?;
        self.records.delete_volume(name)?;
        all.remove(name);
        drop(all);
        let dir = self.root.join(name);
        std::fs::remove_dir_all(&dir).context(|| format!("remove {}", dir.display()))?;
        Ok(volume)
    }

    /// Makes a volume's files appear, if it has options that ask for a mount. Idempotent.
    pub fn mount(&self, name: &str) -> Result<PathBuf> {
        let volume = self.get(name)?;
        let data = self.mountpoint(name);
        if volume.options.contains_key("device") || volume.options.contains_key("type") {
            let option = |key: &str| volume.options.get(key).map(String::as_str).unwrap_or_default();
            if !is_mount_point(&data) {
                let (mut flags, rest) = mount_flags(option("o"));
                let kind = option("type");
                if kind.is_empty() || kind == "none" {
                    flags |= MsFlags::MS_BIND;
                }
                nix::mount::mount(
                    Some(option("device")).filter(|d| !d.is_empty()),
                    &data,
                    Some(kind).filter(|k| !k.is_empty()),
                    flags,
                    Some(rest.as_str()).filter(|r| !r.is_empty()),
                )
                .map_err(|e| {
                    let (device, data, flags) = (option("device"), data.display(), flags.bits());
                    Error::System(format!(
                        "error while mounting volume '{data}': failed to mount local volume: mount {device}:{data}, flags: {flags:#x}: {}",
                        e.desc().to_lowercase()
                    ))
                })?;
            }
        }
        Ok(data)
    }

    /// Undoes [`Volumes::mount`]. Idempotent.
    fn unmount(&self, volume: &Volume) -> Result<()> {
        let data = self.mountpoint(&volume.name);
        if !volume.options.is_empty() && is_mount_point(&data) {
            nix::mount::umount2(&data, MntFlags::MNT_DETACH).context(|| format!("umount {}", data.display()))?;
        }
        Ok(())
    }
}

/// There is one volume driver.
pub fn check_driver(driver: &str) -> Result<()> {
    match driver {
        "" | "local" | "default" => Ok(()),
        _ => Err(Error::NotFound(format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found"))),
    }
}

/// Docker's rule for volume names.
pub fn check_name(name: &str) -> Result<&str> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() > 1 && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Ok(name);
    }
    if name.len() == 1 && first {
        return Err(Error::InvalidParameter(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    Err(Error::InvalidParameter(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    match options.keys().find(|k| !["type", "device", "o", "size"].contains(&k.as_str())) {
        Some(key) => Err(Error::InvalidParameter(format!("invalid option: \"{key}\""))),
        None if options.contains_key("size") => {
            Err(Error::InvalidParameter("quota size requested but no quota support".into()))
        }
        None if options.is_empty() => Ok(()),
        None => match ["type", "device"].into_iter().find(|key| !options.contains_key(*key)) {
            Some(missing) => Err(Error::InvalidParameter(format!("missing required option: \"{missing}\""))),
            None => Ok(()),
        },
    }
}

fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &Path| std::fs::metadata(p).map(|m| (m.dev(), m.ino())).ok();
    match (device(path), path.parent().and_then(device)) {
        (Some((dev, _)), Some((parent, _))) if dev != parent => true,
        // A bind of the same file system: only the mount table knows.
        _ => std::fs::read_to_string("/proc/self/mountinfo")
            .is_ok_and(|table| table.lines().any(|l| l.split(' ').nth(4) == path.to_str())),
    }
}

/// Splits mount(8)'s `o=` in flags and the rest.
fn mount_flags(text: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut rest = Vec::new();
    for option in text.split(',').filter(|o| !o.is_empty()) {
        match option {
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" | "defaults" => {}
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            other => rest.push(other),
        }
    }
    (flags, rest.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_outlive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Volumes::open(dir.path(), Records::open(dir.path()).unwrap()).unwrap();
        let volumes = open();
        let (volume, new) = volumes.create("data", "", BTreeMap::new(), BTreeMap::new()).unwrap();
        assert!(new && volumes.mountpoint("data").is_dir() && !volume.anonymous);
        assert!(!volumes.create("data", "local", BTreeMap::new(), BTreeMap::new()).unwrap().1);
        drop(volumes);
        let volumes = open();
        assert_eq!(volumes.list(), [volume]);
        volumes.remove("data").unwrap();
        assert!(volumes.get("data").is_err() && !dir.path().join("volumes/data").exists());
    }

    #[test]
    fn bad_names_and_options_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path(), Records::open(dir.path()).unwrap()).unwrap();
        for bad in ["../x", "a/b", "a", "-ab"] {
            assert!(volumes.create(bad, "", BTreeMap::new(), BTreeMap::new()).is_err(), "{bad}");
        }
        let odd = BTreeMap::from([("colour".to_owned(), "red".to_owned())]);
        assert!(volumes.create("vol", "", odd, BTreeMap::new()).is_err());
        assert!(volumes.create("vol", "nfs", BTreeMap::new(), BTreeMap::new()).is_err());
    }
}
