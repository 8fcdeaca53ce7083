//! What runs between `fork` and `exec`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

/// Leaves these descriptors open over `exec`, under their own numbers; and gives the program a mount namespace of its
/// own in which `run` (a detached tmpfs) lies on `/run`, with everything that is in the real `/run` bound into it.
pub(crate) fn before_exec(command: &mut Command, keep: Vec<RawFd>, run: Option<RawFd>) {
    let hook = move || {
        for fd in &keep {
            // SAFETY: the parent keeps the descriptor open until `spawn` has returned.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        if let Some(run) = run {
            // SAFETY: as above.
            private_run(unsafe { BorrowedFd::borrow_raw(run) })?;
        }
        Ok(())
    };
    // SAFETY: the caller has one thread only, so the child may allocate; nothing else of the parent's is touched.
    unsafe { command.pre_exec(hook) };
}

fn private_run(run: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: only this child, which has one thread, changes its namespace.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let mut trees: Vec<(std::ffi::OsString, bool, OwnedFd)> = Vec::new();
    for entry in std::fs::read_dir("/run")? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // Links are made again, not followed; the cache itself is ours to place.
        if kind.is_symlink() {
            let target = std::fs::read_link(entry.path())?;
            let _ = rustix::fs::symlinkat(&target, run, entry.file_name());
            continue;
        }
        if entry.file_name().as_bytes().starts_with(super::session::KDAT.as_bytes()) {
            continue;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        // What disappears meanwhile is not needed.
        if let Ok(tree) = rustix::mount::open_tree(rustix::fs::CWD, entry.path(), flags) {
            trees.push((entry.file_name(), kind.is_dir(), tree));
        }
    }
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(run, "", rustix::fs::CWD, "/run", here)?;
    for (name, is_dir, tree) in trees {
        let mut path = b"/run/".to_vec();
        path.extend(name.as_bytes());
        let path = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(&path));
        if is_dir {
            std::fs::create_dir(&path)?;
        } else {
            std::fs::File::create(&path)?;
        }
        rustix::mount::move_mount(tree.as_fd(), "", rustix::fs::CWD, &path, here)?;
    }
    Ok(())
}
