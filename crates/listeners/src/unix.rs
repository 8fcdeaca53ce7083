//! Making a unix socket: the stale one away, the new one with its owner and mode before anybody can connect.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::error::{Error, Result};

/// The group that may use a unix socket.
#[derive(Debug, Clone)]
pub struct SocketGroup {
    /// Name or number.
    pub name: String,
    /// Without it nothing is bound; otherwise its absence is a warning and our own group is used.
    pub required: bool,
}

impl SocketGroup {
    /// dockerd's rule: the group `docker` may be missing, any other was asked for and must be there.
    pub fn dockers(name: &str) -> Self {
        Self { name: name.to_owned(), required: name != "docker" }
    }

    fn id(&self) -> Result<Option<rustix::fs::Gid>> {
        if self.name.is_empty() {
            return Ok(None);
        }
        let found = nix::unistd::Group::from_name(&self.name).ok().flatten().map(|group| group.gid.as_raw());
        match found.or_else(|| self.name.parse().ok()) {
            Some(gid) => Ok(Some(rustix::fs::Gid::from_raw(gid))),
            None if self.required => Err(Error::NoSuchGroup(self.name.clone())),
            None => {
                tracing::warn!(group = self.name, "the group does not exist; the socket is for root only");
                Ok(None)
            }
        }
    }
}

/// Removes the file it names when dropped, if that is still the file it was made for.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.device_and_inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds and listens. The socket's file gets mode 0660 and the group.
pub fn bind(path: &Path, group: Option<&SocketGroup>, backlog: i32) -> Result<(UnixListener, SocketFile)> {
    let failed = |source: io::Error| Error::Unix { path: path.to_owned(), source };
    let gid = group.map(SocketGroup::id).transpose()?.flatten();
    remove_stale(path)?;
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let socket = stream_socket().map_err(failed)?;
    bind_without_permissions(&socket, &address).map_err(failed)?;
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), device_and_inode: (metadata.dev(), metadata.ino()) };
    if gid.is_some() {
        rustix::fs::chown(path, None, gid).map_err(|error| failed(error.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    rustix::net::listen(&socket, backlog).map_err(|error| failed(error.into()))?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    UnixListener::from_std(listener).map(|listener| (listener, file)).map_err(failed)
}

/// The umask belongs to the whole process: held for one system call only.
fn bind_without_permissions(socket: &OwnedFd, address: &SocketAddrUnix) -> io::Result<()> {
    let before = rustix::process::umask(Mode::from_raw_mode(0o777));
    let bound = rustix::net::bind(socket, address);
    rustix::process::umask(before);
    Ok(bound?)
}

/// Removes what a dead daemon left. What answers, and what is not a socket, stays.
fn remove_stale(path: &Path) -> Result<()> {
    let failed = |source: io::Error| Error::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket")));
        }
        Ok(_) => {}
    }
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    match rustix::net::connect(&stream_socket().map_err(failed)?, &address) {
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        },
        // A full backlog (EAGAIN) is an answer too.
        _ => Err(Error::UnixInUse(path.to_owned())),
    }
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}
