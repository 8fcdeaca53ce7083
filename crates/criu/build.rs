//! Builds `preload/preload.rs` as a library of its own, which `src/preload.rs` carries.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=preload/preload.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let output = PathBuf::from(variable("OUT_DIR")).join("preload.so");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2021", "--crate-type", "cdylib", "--crate-name", "preload"])
        .args(["-C", "opt-level=2", "-C", "panic=abort", "-C", "link-arg=-nostdlib", "-C", "strip=symbols"])
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(&output)
        .arg("preload/preload.rs")
        .status()
        .expect("run rustc");
    assert!(status.success(), "preload/preload.rs does not build");
}
