//! Overlay mounts: a stack of read-only directories, with or without a writable one on top.
//!
//! Mounted by the kernel's newer interface, one directory at a time (`fsconfig lowerdir+`, Linux 6.7), which knows no
//! limit on the length of the list and no escaping. Where that is not there, by `mount(2)`, whose options have to fit in
//! one page: from a thread with a working directory of its own, with paths relative to it, through short links.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::{Error, Result};

/// What `mount(2)` takes as options.
const PAGE_BYTES: usize = 4096;
/// Folder below the overlay directory with the short links.
pub(crate) const LINKS: &str = "l";

/// One overlay to be mounted. `lower` is top first, each a directory directly or deeper below `base`.
pub(crate) struct Overlay<'a> {
    pub(crate) base: &'a Path,
    pub(crate) lower: &'a [PathBuf],
    /// Upper and work directory; `None` mounts read-only.
    pub(crate) writable: Option<(&'a Path, &'a Path)>,
    /// More options, such as a security context.
    pub(crate) extra: &'a [(String, String)],
}

impl Overlay<'_> {
    /// Mounts it at `target`.
    pub(crate) fn mount(&self, target: &Path) -> Result<()> {
        let what = || format!("mount overlay at {}", target.display());
        match self.mount_new(target) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => self.mount_old(target),
            other => other.map_err(Error::io(what())),
        }
    }

    fn mount_new(&self, target: &Path) -> std::result::Result<(), Errno> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "source", "overlay")?;
        for dir in self.lower {
            fsconfig_set_string(&fs, "lowerdir+", dir)?;
        }
        if let Some((upper, work)) = self.writable {
            fsconfig_set_string(&fs, "upperdir", upper)?;
            fsconfig_set_string(&fs, "workdir", work)?;
        } else {
            fsconfig_set_flag(&fs, "ro")?;
        }
        for (key, value) in self.options() {
            fsconfig_set_string(&fs, key, value)?;
        }
        fsconfig_create(&fs)?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    /// Our own options and the caller's.
    fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        let extra = self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        own_options().chain(extra)
    }

    pub(crate) fn mount_old(&self, target: &Path) -> Result<()> {
        let mut lower = Vec::new();
        for dir in self.lower {
            lower.push(self.short_link(dir)?);
        }
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = self.writable {
            let relative = |path: &Path| -> Result<String> {
                let path = path.strip_prefix(self.base).unwrap_or(path);
                path.to_str()
                    .map(str::to_owned)
                    .ok_or_else(|| Error::Invalid(format!("{} is not UTF-8", path.display())))
            };
            options.push_str(&format!(",upperdir={},workdir={}", relative(upper)?, relative(work)?));
        }
        for (key, value) in self.options() {
            options.push_str(&format!(",{key}={value}"));
        }
        if options.len() >= PAGE_BYTES {
            return Err(Error::Invalid(format!("too many layers ({}) for this kernel's mount call", self.lower.len())));
        }
        let flags = if self.writable.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
        let options = std::ffi::CString::new(options).map_err(|_| Error::Invalid("a NUL in mount options".into()))?;
        let mount = || -> std::io::Result<()> {
            // From here on this thread, which ends below, shares its working directory with no other.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            rustix::process::chdir(self.base)?;
            Ok(rustix::mount::mount("overlay", target, "overlay", flags, options.as_c_str())?)
        };
        let outcome = std::thread::scope(|scope| scope.spawn(mount).join());
        match outcome {
            Ok(outcome) => outcome.map_err(Error::io(format!("mount overlay at {}", target.display()))),
            Err(_) => Err(Error::Invalid("the mounting thread panicked".into())),
        }
    }

    /// A short name for `dir`, relative to the base; made when it is not there.
    fn short_link(&self, dir: &Path) -> Result<String> {
        let relative = dir.strip_prefix(self.base).unwrap_or(dir);
        let digest = archive::sha256_hex(relative.as_os_str().as_encoded_bytes());
        let target = Path::new("..").join(relative);
        let links = self.base.join(LINKS);
        std::fs::create_dir_all(&links).map_err(Error::io(format!("make {}", links.display())))?;
        for length in [7, 16, 64] {
            let link = links.join(&digest[..length]);
            match symlink(&target, &link) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    if std::fs::read_link(&link).ok().as_deref() != Some(&target) {
                        continue;
                    }
                }
                Err(error) => return Err(Error::io(format!("make {}", link.display()))(error)),
            }
            return Ok(format!("{LINKS}/{}", &digest[..length]));
        }
        Err(Error::Invalid(format!("no short name left for {}", dir.display())))
    }
}

/// Options that keep a writable layer readable on its own: no redirects, no metadata-only copies, no index. Each only
/// where the kernel knows it.
fn own_options<'a>() -> impl Iterator<Item = (&'a str, &'a str)> {
    ["index", "redirect_dir", "metacopy"]
        .into_iter()
        .filter(|name| Path::new("/sys/module/overlay/parameters").join(name).exists())
        .map(|name| (name, "off"))
}

/// Whether `path` is the root of a mount.
pub(crate) fn is_mounted(path: &Path) -> Result<bool> {
    match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::io(format!("look at {}", path.display()))(errno)),
    }
}

/// Unmounts `path`; not being mounted is fine.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::io(format!("unmount {}", path.display()))(errno)),
    }
}

/// A read-only view of a stack of directories, gone when dropped.
pub(crate) struct View {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl View {
    /// Mounts `lower` (top first). A single directory is its own view: the kernel makes no overlay of one.
    pub(crate) fn new(base: &Path, lower: &[PathBuf]) -> Result<Self> {
        if let [only] = lower {
            return Ok(Self { dir: None, path: only.clone() });
        }
        let dir = tempfile::Builder::new()
            .prefix(crate::shared::STAGING_PREFIX)
            .tempdir_in(base)
            .map_err(Error::io(format!("make a directory in {}", base.display())))?;
        Overlay { base, lower, writable: None, extra: &[] }.mount(dir.path())?;
        Ok(Self { path: dir.path().to_owned(), dir: Some(dir) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.dir.is_some() {
            if let Err(error) = unmount(&self.path) {
                tracing::warn!(%error, "a temporary view stays mounted until the next start");
            }
        }
    }
}
