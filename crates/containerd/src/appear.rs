//! Waiting for a file to appear, told by the kernel.

use std::io;
use std::path::Path;

use rustix::fs::inotify;

/// Waits until `path` exists. Ends with an error when its directory cannot be watched, or is gone.
///
/// # Errors
/// What the kernel says.
pub async fn appear(path: &Path) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let news = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&fd, dir, news)?;
    let fd = crate::fd::watch(fd)?;
    // Watched first and looked after: it cannot appear unseen.
    while !path.exists() {
        let mut ready = fd.readable().await?;
        let mut buffer = [0; 4096];
        if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
            read?;
        }
        if !dir.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_file_that_comes_later_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let waiting = appear(&path);
        let write = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::fs::write(dir.path().join("other"), "").unwrap();
            std::fs::write(&path, "").unwrap();
        };
        let both = async { tokio::join!(waiting, write).0 };
        tokio::time::timeout(Duration::from_secs(5), both).await.unwrap().unwrap();
        assert!(appear(&dir.path().join("no/such")).await.is_err());
    }
}
