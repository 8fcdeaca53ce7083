//! The place an engine lives in: a folder, a bridge name and address ranges nobody else uses, and how all of that is
//! taken away again.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{FlockOperation, flock};

/// Bridges `dmt<n>`, networks 10.213.n.0/24 (the default bridge), 10.214.n.0/24 (those that are created) and 10.215.n.0/24
/// (those that a test gives addresses to).
const SLOTS: u8 = 200;
// A socket's path has 108 bytes at most, so the folder's own must be short. Not /tmp: that may be a tmpfs, which overlayfs
// takes no upper directory on.
const HOMES: &str = "/var/tmp";
const HOME_PREFIX: &str = "dmt";
const LOCKS: &str = "/tmp/dormouse-e2e-slots";

/// One place. Dropping it only lets go of the slot; [`Sandbox::clear`] takes away what is there.
pub struct Sandbox {
    slot: u8,
    home: tempfile::TempDir,
    _lock: File,
}

impl Sandbox {
    /// Takes a free place.
    pub fn take() -> Self {
        fs::create_dir_all(LOCKS).expect("create the folder of the slot locks");
        for slot in 0..SLOTS {
            let path = Path::new(LOCKS).join(slot.to_string());
            let lock = OpenOptions::new().create(true).append(true).open(&path).expect("create a slot lock");
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // A run that was killed could not take its things away; the lock's file says where they are.
                if let Ok(left) = fs::read_to_string(&path) {
                    clear_abandoned(Path::new(left.trim()));
                }
                let home = tempfile::Builder::new().prefix(HOME_PREFIX).tempdir_in(HOMES).expect("create a folder");
                fs::write(&path, home.path().as_os_str().as_encoded_bytes()).expect("write a slot lock");
                let sandbox = Self { slot, home, _lock: lock };
                sandbox.clear_network();
                return sandbox;
            }
        }
        panic!("all {SLOTS} places for test engines are taken");
    }

    /// The folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The default bridge's name.
    pub fn bridge(&self) -> String {
        format!("dmt{}", self.slot)
    }

    /// The default bridge's address and network.
    pub fn bridge_cidr(&self) -> String {
        format!("10.213.{}.1/24", self.slot)
    }

    /// What all addresses on the default bridge begin with.
    pub fn bridge_prefix(&self) -> String {
        format!("10.213.{}.", self.slot)
    }

    /// Where created networks get their addresses from.
    pub fn pool(&self) -> String {
        format!("base=10.214.{}.0/24,size=28", self.slot)
    }

    /// The processes that name the folder on their command line, and those in the control groups of `containers`.
    pub fn processes(&self, containers: &BTreeSet<String>) -> Vec<Pid> {
        processes_of(self.home(), containers)
    }

    /// The mount points below the folder, the latest first.
    pub fn mounts(&self) -> Vec<PathBuf> {
        mounts_below(self.home())
    }

    /// The network devices of this place: its default bridge and those with an address out of its pool.
    pub fn links(&self) -> Vec<String> {
        let output = quiet("ip", &["-o", "-4", "addr", "show"]).unwrap_or_default();
        let mut found = BTreeSet::new();
        for line in output.lines() {
            let mut words = line.split_whitespace().skip(1);
            let (Some(device), Some(address)) = (words.next(), words.nth(1)) else { continue };
            let created =
                ["10.214", "10.215"].iter().any(|range| address.starts_with(&format!("{range}.{}.", self.slot)));
            if created || device == self.bridge() {
                found.insert(device.to_owned());
            }
        }
        if Path::new("/sys/class/net").join(self.bridge()).exists() {
            found.insert(self.bridge());
        }
        found.into_iter().collect()
    }

    /// The control groups named after one of `containers`, children before parents.
    pub fn cgroups(&self, containers: &BTreeSet<String>) -> Vec<PathBuf> {
        fn walk(folder: &Path, depth: u8, containers: &BTreeSet<String>, found: &mut Vec<PathBuf>) {
            let Ok(entries) = fs::read_dir(folder) else { return };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let inside = entry.path();
                if depth > 0 {
                    walk(&inside, depth - 1, containers, found);
                }
                if containers.iter().any(|id| inside.to_string_lossy().contains(id.as_str())) {
                    found.push(inside);
                }
            }
        }
        let mut found = Vec::new();
        if !containers.is_empty() {
            walk(Path::new("/sys/fs/cgroup"), 5, containers, &mut found);
        }
        found
    }

    /// Ends and removes everything that is there; says what it could not.
    pub fn clear(&self, containers: &BTreeSet<String>) {
        // Twice: a shim that was killed between may have left its container behind.
        for _ in 0..2 {
            for pid in self.processes(containers) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        for point in self.mounts() {
            if let Err(error) = umount2(&point, MntFlags::MNT_DETACH) {
                eprintln!("could not unmount {}: {error}", point.display());
            }
        }
        self.clear_network();
        for group in self.cgroups(containers) {
            let _ = fs::remove_dir(group);
        }
    }

    /// Removes what containers that were killed leave in the runtime's own directory.
    pub fn clear_runtime(&self, containers: &BTreeSet<String>) {
        for id in containers {
            let _ = fs::remove_dir_all(Path::new("/run/docker-runc").join(id));
        }
    }

    fn clear_network(&self) {
        for link in self.links() {
            let _ = quiet("ip", &["link", "delete", &link]);
        }
        for family in ["ip", "ip6", "inet", "bridge"] {
            let _ = quiet("nft", &["delete", "table", family, &format!("dormouse_{}", self.bridge())]);
        }
    }
}

fn processes_of(home: &Path, containers: &BTreeSet<String>) -> Vec<Pid> {
    let home = home.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("read /proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        if command.is_empty() && fs::read_link(entry.path().join("exe")).is_err() {
            continue; // a zombie, which is its parent's business
        }
        if pid != std::process::id() as i32
            && (command.contains(&home) || containers.iter().any(|id| groups.contains(id.as_str())))
        {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

fn mounts_below(home: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(home) && point != home)
        .collect();
    found.reverse();
    found
}

/// Ends and removes what a run that was killed left in its folder.
fn clear_abandoned(home: &Path) {
    let ours = home.parent() == Some(Path::new(HOMES))
        && home.file_name().is_some_and(|name| name.to_string_lossy().starts_with(HOME_PREFIX));
    if ours && home.exists() {
        let nobody = BTreeSet::new();
        for _ in 0..2 {
            for pid in processes_of(home, &nobody) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        for point in mounts_below(home) {
            let _ = umount2(&point, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(home);
    }
}

/// Runs a tool of the machine; its output if it ended well.
fn quiet(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .env("PATH", crate::programs::search_path())
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
