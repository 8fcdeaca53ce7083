//! Where the programs under test and the programs used for testing are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Looked at after the programs under test and before and after the machine's own PATH: what `scripts/install-deps` and
/// `scripts/install-criu` put there.
const CRIU_DIR: &str = "/opt/dormouse/criu/bin";
const TOOLS_DIR: &str = "/opt/dormouse/bin";

/// The folder the workspace's programs were built into: the one above the test executable's (`target/<profile>/deps`).
/// `DORMOUSE_PROGRAMS` names another one.
pub fn directory() -> PathBuf {
    if let Some(named) = env::var_os("DORMOUSE_PROGRAMS") {
        return PathBuf::from(named);
    }
    let executable = env::current_exe().expect("the path of the test executable");
    let directory = executable.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    assert!(
        directory.join("dockerd").exists(),
        "{} is missing: run the tests by `make test`, or `cargo build --workspace --bins` first",
        directory.join("dockerd").display()
    );
    directory.to_path_buf()
}

/// The PATH for everything a test starts.
pub fn search_path() -> OsString {
    let machine = env::var_os("PATH").unwrap_or_default();
    let mut folders = vec![directory(), PathBuf::from(CRIU_DIR)];
    folders.extend(env::split_paths(&machine));
    folders.extend([TOOLS_DIR, "/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(folders).expect("no folder of PATH holds a colon")
}

/// A script of the project.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name)
}
