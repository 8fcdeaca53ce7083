//! Whoever still writes into the directory of a checkpoint that failed.
//!
//! A CRIU whose runtime was killed works on until it notices, and what it still writes would keep the directory from being
//! removed. Whatever runtime has started it, it holds its image and its work directory open all the while, and so does a
//! runtime that is dying: that is how they are found.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::error::{Error, Result};
use crate::{lookout, statedir};

/// How long writers may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to remove what somebody writes into who is not to be seen.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// Removes the directory of a checkpoint as soon as nobody writes into it any more; whoever does so for too long does not
/// keep it.
///
/// # Errors
/// When something could not be removed.
pub async fn remove_behind(dir: PathBuf) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let looking = dir.clone();
        let writers = tokio::task::spawn_blocking(move || writers(&looking)).await.map_err(|_| Error::Closing)?;
        if !lookout::all_ended(writers, until).await {
            warn!(dir = %dir.display(), "somebody holds the directory of a failed checkpoint; it is removed");
        }
        let going = dir.clone();
        let removing = tokio::task::spawn_blocking(move || statedir::remove_tree(&going));
        match removing.await.unwrap_or(Err(Error::Closing)) {
            Err(_) if Instant::now() < until => tokio::time::sleep(BETWEEN_ATTEMPTS).await,
            other => return other,
        }
    }
}

/// Everybody who holds the directory, or CRIU's in it, open.
fn writers(dir: &Path) -> Vec<OwnedFd> {
    let Ok(dir) = dir.canonicalize() else { return Vec::new() };
    let places = [dir.join(super::checkpoint::WORK_NAME), dir];
    lookout::find(|process| {
        let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| places.contains(&target)))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Holds the directory open and makes files in it, and says when it begins.
    const WRITER: &str = "exec 3<. ; i=0; while [ $i -lt 300 ]; do i=$((i+1)); : > $i; done; sleep 0.2; : > last";

    #[tokio::test]
    async fn nothing_stays_of_a_directory_that_is_written_into() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("cp");
        fs::create_dir(&dir).unwrap();
        let mut writer = Command::new("sh").args(["-c", WRITER]).current_dir(&dir).spawn().unwrap();
        crate::appear::appear(&dir.join("1")).await.unwrap();
        // A link is the same directory.
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).unwrap();
        remove_behind(link.join("cp")).await.unwrap();
        assert!(!dir.exists());
        assert!(writer.try_wait().unwrap().is_some(), "removed before the last write");
    }

    #[tokio::test]
    async fn a_quiet_directory_goes_at_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("cp");
        fs::create_dir_all(dir.join("criu.work")).unwrap();
        let began = Instant::now();
        remove_behind(dir.clone()).await.unwrap();
        assert!(!dir.exists() && began.elapsed() < PATIENCE);
        remove_behind(dir).await.unwrap();
    }
}
