//! What a plan becomes at start: sources that are there, volumes with their first content, mounts for the runtime.

use std::path::{Component, Path, PathBuf};

use super::{MountPlan, Source, clean};
use crate::containers::spec;
use crate::error::{Context, Error, Result};
use crate::volumes::Volumes;

/// Makes the sources ready (directories, volumes' own mounts, first content) and says what the runtime shall mount.
pub fn prepare(plans: &[MountPlan], volumes: &Volumes, rootfs: &Path) -> Result<Vec<spec::Mount>> {
    plans.iter().map(|plan| prepare_one(plan, volumes, rootfs)).collect()
}

fn prepare_one(plan: &MountPlan, volumes: &Volumes, rootfs: &Path) -> Result<spec::Mount> {
    let source = match &plan.source {
        Source::Tmpfs { options } => {
            return Ok(spec::Mount {
                destination: plan.destination.clone(),
                kind: "tmpfs",
                source: "tmpfs".into(),
                options: options.clone(),
            });
        }
        Source::Bind { path, create } => {
            if *create && !path.exists() {
                std::fs::create_dir_all(path)
                    .context(|| format!("error while creating mount source path '{}'", path.display()))?;
            }
            path.clone()
        }
        Source::Volume { name, copy, subpath, .. } => {
            let data = volumes.mount(name)?;
            if *copy {
                fill(&data, rootfs, &plan.destination)?;
            }
            match subpath.as_str() {
                "" => data,
                below => inside(&data, below).map_err(|e| match e {
                    Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                        let path = data.join(below);
                        let path = path.display();
                        Error::InvalidParameter(format!(
                            "cannot access path {path}: lstat {path}: no such file or directory"
                        ))
                    }
                    other => other,
                })?,
            }
        }
    };
    let access = if plan.read_only { "ro" } else { "rw" };
    let mut options = vec![if plan.non_recursive { "bind".to_owned() } else { "rbind".to_owned() }, access.to_owned()];
    options.push(if plan.propagation.is_empty() { "rprivate".into() } else { plan.propagation.clone() });
    Ok(spec::Mount {
        destination: plan.destination.clone(),
        kind: "bind",
        source: source.to_string_lossy().into_owned(),
        options,
    })
}

/// Gives an empty volume what the image has at its place.
fn fill(volume: &Path, rootfs: &Path, destination: &str) -> Result<()> {
    let mut entries = std::fs::read_dir(volume).context(|| format!("read {}", volume.display()))?;
    if entries.next().is_some() {
        return Ok(());
    }
    let Ok(image_dir) = inside(rootfs, destination.trim_start_matches('/')) else { return Ok(()) };
    if !image_dir.is_dir() {
        return Ok(());
    }
    let (reader, writer) = std::io::pipe().context(|| "pipe".into())?;
    std::thread::scope(|threads| {
        let packing = threads.spawn(move || {
            let options = archive::PackOptions { root_entry: true, nanoseconds: true, ..Default::default() };
            let mut tar = archive::TarWriter::new(writer);
            archive::pack(&image_dir, &mut tar, &options)?;
            tar.finish().map(drop)
        });
        let unpacked = archive::unpack(reader, volume, &archive::UnpackOptions { devices: true, ..Default::default() });
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(archive::Error::from(std::io::Error::other("the packing thread failed"))));
        unpacked?;
        Ok(packed?)
    })
}

/// Makes a directory and those above it inside a root: a working directory need not be in the image. What is there stays.
pub fn make_dir_inside(root: &Path, path: &str) -> Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let describe = || format!("make the directory {path} in {}", root.display());
    let mut dir = std::os::fd::OwnedFd::from(std::fs::File::open(root).context(describe)?);
    let root = std::fs::File::open(root).context(describe)?;
    let mut so_far = PathBuf::new();
    for part in clean(Path::new(path)).components().filter(|c| matches!(c, Component::Normal(_))) {
        so_far.push(part);
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat2(&root, &so_far, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        };
        dir = match open() {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755)).context(describe)?;
                open().context(describe)?
            }
            // A file in the way is the runtime's to complain about, in the words users know.
            Err(rustix::io::Errno::NOTDIR) => return Ok(()),
            other => other.context(describe)?,
        };
    }
    Ok(())
}

/// A path below a root, wherever the root's own links lead, but never out of it.
pub(in crate::containers) fn inside(root: &Path, below: &str) -> Result<PathBuf> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let describe = || format!("{} in {}", below, root.display());
    let dir = std::fs::File::open(root).context(describe)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(&dir, below, flags, Mode::empty(), ResolveFlags::IN_ROOT).context(describe)?;
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).context(describe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_is_made_inside() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        make_dir_inside(root.path(), "/a/b/../c").unwrap();
        assert!(root.path().join("a/c").is_dir() && !root.path().join("a/b").exists());
        assert!(make_dir_inside(root.path(), "/out/x").is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
