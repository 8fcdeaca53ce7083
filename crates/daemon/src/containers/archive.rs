//! `cp`, `export` and `diff`: a container's files, whether it runs or not.
//!
//! Every path is resolved by the kernel inside the container's root, with all that is mounted on it (`view.rs`). A root that
//! is not mounted is mounted for the time of the call.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use ::archive::{Limits, PackOptions, Root, TarWriter, UnpackOptions, Whiteouts};
use api::backend::{ArchivePutOptions, BoxStream, Reader};
use api::types::{FilesystemChange, PathStat, Timestamp};
use bytes::Bytes;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::container::Container;
use super::record::Record;
use crate::Daemon;
use crate::error::{Error, Result, blocking};

/// What is on its way to a client.
const PIPE_BYTES: usize = 256 * 1024;

/// How much of a refused archive is read, so that a client that sends it hears why.
const DRAIN_BYTES: u64 = 1 << 20;

/// A container's root, mounted as long as this lives.
struct MountedRoot {
    daemon: Arc<Daemon>,
    container: Arc<Container>,
    path: PathBuf,
}

impl MountedRoot {
    fn of(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<Self> {
        let path = daemon.images.mount(&container.id, &[])?;
        Ok(Self { daemon: daemon.clone(), container: container.clone(), path })
    }
}

impl Drop for MountedRoot {
    fn drop(&mut self) {
        // A start may be under way: it holds the lock and wants the mount.
        if let Ok(_op) = self.container.op.try_lock()
            && self.container.record().state.running().is_none()
            && let Err(e) = self.daemon.images.unmount(&self.container.id)
        {
            tracing::warn!("unmounting the root of {}: {e}", self.container.id);
        }
    }
}

impl Daemon {
    /// What is at a path.
    pub(crate) async fn archive_stat(self: &Arc<Self>, name: &str, path: &str) -> Result<PathStat> {
        let (daemon, container, path) = (self.clone(), self.container(name)?, path.to_owned());
        blocking(move || {
            let mounted = MountedRoot::of(&daemon, &container)?;
            let record = container.record();
            daemon.view(&record, &mounted.path).enter(|root| stat(root, &record.name, &path))
        })
        .await
    }

    /// What is at a path, with a tar of it.
    pub(crate) async fn archive_get(self: &Arc<Self>, name: &str, path: &str) -> Result<(PathStat, BoxStream<Bytes>)> {
        let container = self.container(name)?;
        let (daemon, held, wanted) = (self.clone(), container.clone(), path.to_owned());
        let (mounted, view, found) = blocking(move || {
            let mounted = MountedRoot::of(&daemon, &held)?;
            let record = held.record();
            let view = daemon.view(&record, &mounted.path);
            let found = view.enter(|root| stat(root, &record.name, &wanted))?;
            Ok((mounted, view, found))
        })
        .await?;
        let path = path.to_owned();
        let tar = stream_out(move |out| {
            let _mounted = mounted;
            view.enter(|root| {
                ::archive::copy_out(root, &path, out)?;
                Ok(())
            })
        });
        self.container_event(&container.record(), "archive-path", &[]);
        Ok((found, tar))
    }

    /// Unpacks a tar in a directory.
    pub(crate) async fn archive_put(
        self: &Arc<Self>,
        name: &str,
        path: &str,
        options: ArchivePutOptions,
        tar: Reader,
    ) -> Result<()> {
        let container = self.container(name)?;
        let (daemon, held, path) = (self.clone(), container.clone(), path.to_owned());
        let mut tar = SyncIoBridge::new(tar);
        blocking(move || {
            let unpacked = daemon.unpack_into(&held, &path, &options, &mut tar);
            if unpacked.is_err() {
                // A client that still sends would miss the answer if the connection were closed on it.
                let _ = std::io::copy(&mut tar.take(DRAIN_BYTES), &mut std::io::sink());
            }
            unpacked
        })
        .await?;
        self.container_event(&container.record(), "extract-to-dir", &[]);
        Ok(())
    }

    fn unpack_into(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: &str,
        options: &ArchivePutOptions,
        tar: impl std::io::Read + Send,
    ) -> Result<()> {
        let mounted = MountedRoot::of(self, container)?;
        let record = container.record();
        let view = self.view(&record, &mounted.path);
        let found = view.enter(|root| stat(root, &record.name, path))?;
        if found.mode & GO_MODE_DIR == 0 && found.link_target.is_empty() {
            return Err(Error::InvalidParameter("extraction point is not a directory".into()));
        }
        if read_only_mount(&record, path) {
            return Err(Error::Forbidden("mounted volume is marked read-only".into()));
        }
        if record.host_config.readonly_rootfs && root_is_rootfs(&record, path) {
            return Err(Error::Forbidden("container rootfs is marked read-only".into()));
        }
        // As in Docker: the archive's owners, unless it is asked that all belongs to the container's own user.
        let user = &record.config.user;
        let owner = match options.copy_uid_gid && !user.is_empty() {
            true => Some(super::spec::user::resolve(&mounted.path, user, &[])?),
            false => None,
        };
        let options = UnpackOptions {
            whiteouts: Whiteouts::None,
            limits: Limits { max_entries: u64::MAX, max_bytes: u64::MAX },
            devices: true,
            archive_owners: owner.is_none(),
            owner: owner.map_or((0, 0), |user| (user.uid, user.gid)),
            keep_types: options.no_overwrite_dir_non_dir,
            subdirectory: path.as_bytes().to_vec(),
            ..UnpackOptions::default()
        };
        view.enter(|root| {
            ::archive::unpack_in(::archive::compression::decompress(tar)?, root, &options)?;
            Ok(())
        })
    }

    /// The whole file system as a tar.
    pub(crate) async fn container_export(self: &Arc<Self>, name: &str) -> Result<BoxStream<Bytes>> {
        let container = self.container(name)?;
        let (daemon, held) = (self.clone(), container.clone());
        let mounted = blocking(move || MountedRoot::of(&daemon, &held)).await?;
        let tar = stream_out(move |out| {
            let mut tar = TarWriter::new(out);
            ::archive::pack(&mounted.path, &mut tar, &PackOptions::default())?;
            tar.finish()?;
            Ok(())
        });
        self.container_event(&container.record(), "export", &[]);
        Ok(tar)
    }

    /// What differs from the image.
    pub(crate) async fn container_changes(self: &Arc<Self>, name: &str) -> Result<Vec<FilesystemChange>> {
        let container = self.container(name)?;
        let (images, id) = (self.images.clone(), container.id.clone());
        let changes = blocking(move || Ok(images.changes(&id)?)).await?;
        Ok(changes.into_iter().map(|c| FilesystemChange { kind: c.kind as u32, path: c.path }).collect())
    }
}

/// Go's `os.ModeDir`.
const GO_MODE_DIR: u32 = 1 << 31;

/// Is a path on a bind or volume that the container may not write?
fn read_only_mount(record: &Record, path: &str) -> bool {
    let below =
        |m: &&super::mounts::MountPlan| path == m.destination || path.starts_with(&format!("{}/", m.destination));
    record.mounts.iter().filter(below).max_by_key(|m| m.destination.len()).is_some_and(|m| m.read_only)
}

fn root_is_rootfs(record: &Record, path: &str) -> bool {
    !record.mounts.iter().any(|m| path == m.destination || path.starts_with(&format!("{}/", m.destination)))
}

fn stat(root: &Root, container: &str, path: &str) -> Result<PathStat> {
    let found = ::archive::stat_path(root, path).map_err(|e| match errors::Kinded::kind(&e) {
        errors::Kind::NotFound => Error::NotFound(format!("Could not find the file {path} in container {container}")),
        _ => e.into(),
    })?;
    let mtime = i128::from(found.mtime.seconds) * 1_000_000_000 + i128::from(found.mtime.nanoseconds);
    Ok(PathStat {
        name: found.name,
        size: found.size,
        mode: found.mode,
        mtime: Timestamp::from_unix_nanos(mtime),
        link_target: found.link_target,
    })
}

/// Runs `write` on a thread of its own and streams what it writes; an error ends the stream.
pub(crate) fn stream_out(
    write: impl FnOnce(&mut (dyn std::io::Write + Send)) -> Result<()> + Send + 'static,
) -> BoxStream<Bytes> {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let failure: Arc<std::sync::Mutex<Option<Error>>> = Arc::default();
    let told = failure.clone();
    tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(64 * 1024, SyncIoBridge::new(ours));
        let written = write(&mut out).and_then(|()| {
            crate::error::Context::context(std::io::Write::flush(&mut out), || "write to the client".into())
        });
        if let Err(e) = written
            && let Ok(mut failure) = told.lock()
        {
            *failure = Some(e);
        }
    });
    use futures::StreamExt;
    let chunks = ReaderStream::with_capacity(theirs, 64 * 1024).map(|c| c.map_err(api::Error::from));
    let end = futures::stream::once(async move { failure.lock().ok().and_then(|mut f| f.take()) })
        .filter_map(|failure| futures::future::ready(failure.map(|e| Err(api::Error::from(e)))));
    Box::pin(chunks.chain(end))
}
