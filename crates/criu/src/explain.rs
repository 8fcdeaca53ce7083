//! Why CRIU failed, in plain words.
//!
//! CRIU's answer says little; what matters is the *first* error of its log, because the later ones follow from it. The
//! table below turns the known ones into a sentence that says what in the container stood in the way and what to do.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::Error;
use crate::rpc;

/// Of a log no more is read.
const MAX_BYTES: u64 = 16 << 20;

/// What part of an error's text means what. The first row that fits counts.
const CAUSES: &[(&[&str], &str)] = &[
    (
        &["Connected TCP socket"],
        "the container has established TCP connections; allow them with --tcp-established, or with \
         the label dormouse.checkpoint.tcp=established|close",
    ),
    (
        &["In-flight connection"],
        "a TCP connection is just being made; try again, or leave such out with --tcp-skip-in-flight",
    ),
    (&["external socket is used"], "a unix socket of the container has its peer outside; allow it with --ext-unix-sk"),
    (
        &["Can't dump half of stream unix connection"],
        "a unix socket of the container is connected to a program outside, which cannot be kept; close it",
    ),
    (
        &["Non-empty write queue on an in-flight socket"],
        "a connection to a unix socket was not accepted yet; try again",
    ),
    (
        &["Can't dump that handle"],
        "a program watches a file (inotify) that is deleted or cannot be found; end the watch",
    ),
    (&["Can't dump nested user namespace"], "a process has made a user namespace of its own; end it"),
    (&["Unseizable non-zombie"], "a process of the container is being traced (by a debugger, say)"),
    (
        &["Some file locks are hold", "file locks are hold by dumping tasks"],
        "the container holds file locks; allow them with --file-locks",
    ),
    (
        &["Can't dump ghost file"],
        "a file that was deleted while open is too large; raise the limit with the label \
         dormouse.checkpoint.ghost-limit",
    ),
    (
        &["Can't create link remap", "is not supported without --link-remap", "use --link-remap"],
        "a file was deleted while open and has other links; allow it with --link-remap",
    ),
    (
        &["The tty of the task is a slave", "dangling tty", "Found dangling tty"],
        "the container's terminal belongs to a session outside; allow it with --shell-job",
    ),
    (
        &["A session leader of", "is outside of its pid namespace"],
        "a process of the container belongs to a session outside (a running exec, most likely); end \
         it first, or allow it with --shell-job",
    ),
    (
        &["unreachable session leader", "The session leader"],
        "a process belongs to a session outside (a running exec, most likely); end it first",
    ),
    (
        &["doesn't have a proper root mount", "New root and old root are the same"],
        "the root file system is no mount point",
    ),
    (
        &["mount is not accessible", "unreachable sharing", "has unreachable sharing"],
        "a mount of the container is shared with one outside",
    ),
    (&["is unsupported"], "a mount of the container has a kind that cannot be checkpointed"),
    (&["Unknown FS magic", "Unsupported file system"], "a file system in the container cannot be checkpointed"),
    (
        &["Unknown/unsupported AF", "Unsupported proto", "BUG! Unknown CRIU socket"],
        "the container uses a kind of socket that cannot be checkpointed",
    ),
    (&["io_uring", "anon_inode:[io_uring]"], "a program in the container uses io_uring, which cannot be checkpointed"),
    (&["anon_inode:[bpf", "bpf-prog"], "a program in the container holds a BPF program, which cannot be checkpointed"),
    (&["anon_inode:"], "a program in the container holds a kernel object that cannot be checkpointed"),
    (
        &["Unsupported device", "/dev/nvidia", "of that type [20", "of that type [60"],
        "a program in the container has a device open that cannot be checkpointed",
    ),
    (&["/dev/fuse"], "a FUSE file system is in the way"),
    (
        &["Can't get seccomp"],
        "a seccomp filter of the container cannot be read; CAP_SYS_ADMIN in the host's user namespace \
         is needed",
    ),
    (
        &["Unable to interrupt task", "is being traced"],
        "a process of the container is being traced (by a debugger, say)",
    ),
    (
        &["Timeout reached"],
        "the container's processes could not be stopped in time; one waits in the kernel, most likely \
         on a file system that does not answer",
    ),
    (&["Unable to freeze", "frozen: unable to"], "the container's processes could not be stopped"),
    (
        &["Can't get rlimit", "Can't prlimit", "Can't set rlimit"],
        "CRIU may not read or set resource limits: this host's root lacks CAP_SYS_RESOURCE",
    ),
    (&["No space left on device"], "the disk is full"),
    (&["Can't lookup mount=", "Can't open mntns"], "a file lies on a mount that can no longer be reached"),
    (
        &["has bad size"],
        "a file has another size than when the checkpoint was made; the root file system of the \
         checkpoint is needed",
    ),
    (
        &["has bad mode", "bad build-ID", "build-ID"],
        "a file is not the one that was there when the checkpoint was made; the root file system of \
         the checkpoint is needed",
    ),
    (&["Can't open file", "Can't open"], "a file that was open when the checkpoint was made is missing"),
    (&["Can't fork for"], "a process id that is needed is taken; a pid namespace of its own would help"),
    (&["do not match expected"], "a process id that is needed is taken; a pid namespace of its own would help"),
    (
        &["Can't bind inet socket", "Cannot assign requested address"],
        "an address that a socket is bound to is not there; restore with the same address, or with \
         --tcp-close for connections",
    ),
    (&["Address already in use"], "a port or address that is needed is taken"),
    (
        &["cpu feature", "CPU capabilities do not match", "xsave"],
        "this host's CPU lacks a feature that the checkpoint needs",
    ),
    (&["unexpected magic", "Unable to open", "Magic doesn"], "an image file of the checkpoint is missing or damaged"),
    (&["vdso: Unexpected"], "this CRIU is too old for the kernel; install CRIU 4 or newer"),
    (
        &["with MS_PRIVATE"],
        "a mount of the container could not be made again; it was made from a mount that is shared \
         with the host",
    ),
    (&["userfaultfd", "uffd"], "the kernel does not allow pages to come later (userfaultfd)"),
];

/// The error for an answer that says it failed.
pub fn failure(response: &rpc::Response, log: &Path) -> Error {
    let detail = first_error(log).or_else(|| response.cr_errmsg.clone().filter(|text| !text.is_empty()));
    let sentence = sentence(detail.as_deref());
    Error::Failed { sentence, detail, errno: response.cr_errno.unwrap_or(0) }
}

/// The error for a CRIU that ended without an answer.
pub fn death(log: &Path) -> Error {
    Error::Died { detail: first_error(log) }
}

/// The sentence for an error of the log, with that error in brackets.
pub fn sentence(detail: Option<&str>) -> String {
    let Some(detail) = detail else { return "criu failed and its log does not say why".into() };
    match cause(detail) {
        Some(cause) => format!("{cause} [criu: {detail}]"),
        None => format!("criu failed: {detail}"),
    }
}

fn cause(detail: &str) -> Option<&'static str> {
    // A row with several texts fits when one of them does: they are the words of different versions.
    CAUSES.iter().find(|(texts, _)| texts.iter().any(|text| detail.contains(text))).map(|(_, cause)| *cause)
}

/// The first `Error` of a log, without its place and time; and without those that CRIU itself takes lightly.
pub fn first_error(log: &Path) -> Option<String> {
    let file = File::open(log).ok()?;
    let mut lines = BufReader::new(file.take(MAX_BYTES)).split(b'\n').map_while(std::result::Result::ok);
    lines.find_map(|line| error_text(&String::from_utf8_lossy(&line)))
}

/// `(00.012345) Error (criu/sk-inet.c:191): inet: Connected TCP socket …` → what follows the place.
fn error_text(line: &str) -> Option<String> {
    let at = line.find("Error (")?;
    let rest = &line[at + "Error (".len()..];
    let text = rest.split_once("): ")?.1.trim();
    // Said on hosts where the answer does not matter.
    let harmless = [
        "rlimit: Can't setup RLIMIT_NOFILE for self",
        "Kernel is too old",
        "Can't read \\x27",
        "Can't open /proc/sys/kernel/cap_last_cap",
    ];
    if text.is_empty() || harmless.iter().any(|h| text.contains(h)) {
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_first_error_counts() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        write!(
            log,
            "(00.001) Version: 4.1.1\n(00.002) Warn  (criu/x.c:1): nothing\n\
             (00.003) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.\n\
             (00.004) Error (criu/cr-dump.c:1): Dump files (pid: 7) failed with -1\n"
        )
        .unwrap();
        let detail = first_error(log.path()).unwrap();
        assert!(detail.starts_with("inet: Connected TCP socket"), "{detail}");
        assert!(sentence(Some(&detail)).starts_with("the container has established TCP connections"));
    }

    #[test]
    fn what_is_not_known_is_quoted() {
        assert_eq!(sentence(Some("something new")), "criu failed: something new");
        assert_eq!(sentence(None), "criu failed and its log does not say why");
    }

    #[test]
    fn lines_that_are_no_errors_are_passed_over() {
        assert_eq!(error_text("(00.1) Dumping Error handler"), None);
        assert_eq!(error_text(""), None);
        assert_eq!(error_text("Error ("), None);
    }
}
