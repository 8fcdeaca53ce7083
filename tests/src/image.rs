//! The image every test starts from, made once per machine from its static busybox.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

const FOLDER: &str = "/var/tmp/dormouse-e2e-image";

/// The root file system tar, made if it is not there or older than the machine's busybox.
pub fn busybox_tar() -> PathBuf {
    let tar = Path::new(FOLDER).join("busybox.tar");
    fs::create_dir_all(FOLDER).expect("create the folder of the image");
    let lock = File::create(Path::new(FOLDER).join("lock")).expect("create the lock of the image");
    flock(&lock, FlockOperation::LockExclusive).expect("lock the image");
    let made_at = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let script = crate::programs::script("busybox-image");
    if made_at(&tar) < made_at(Path::new("/bin/busybox")).max(made_at(&script)) {
        let status = Command::new(&script)
            .arg(&tar)
            .env("PATH", crate::programs::search_path())
            .status()
            .expect("start scripts/busybox-image");
        assert!(status.success(), "scripts/busybox-image failed");
    }
    tar
}
