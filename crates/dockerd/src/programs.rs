//! Where the programs are that dockerd starts: beside itself first, then in `PATH`.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `PATH` with the directory of our own program in front, for ourselves and for what we start.
pub fn search_path() -> OsString {
    let ours = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let directories: Vec<PathBuf> = ours.into_iter().chain(std::env::split_paths(&path)).collect();
    // Fails only when our own directory has a colon in its name; then there is only the rest.
    std::env::join_paths(directories).unwrap_or(path)
}

/// A program's path, if it is there and may be run. A name with a slash is a path already.
pub fn find(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    std::env::split_paths(search_path).map(|directory| directory.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_in_order() {
        let path = search_path();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(find(exe.file_name().unwrap().to_str().unwrap(), &path).unwrap(), exe);
        assert!(find("sh", &path).is_some());
        assert!(find("/bin/sh", &path).is_some());
        assert!(find("no-such-program", &path).is_none());
        assert!(find("/etc/passwd", &path).is_none());
    }
}
