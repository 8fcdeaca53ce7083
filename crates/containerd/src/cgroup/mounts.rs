//! Which hierarchies are mounted where, for this program.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::Cgroups;

/// The control group mounts of this program's mount namespace.
#[derive(Debug, Default, Clone)]
pub struct Mounts {
    /// Controller (or `name=x`) to mount.
    pub(super) v1: HashMap<String, Mount>,
    pub(super) v2: Option<Mount>,
}

#[derive(Debug, Clone)]
pub(super) struct Mount {
    /// The directory of the hierarchy that is mounted.
    root: PathBuf,
    point: PathBuf,
}

impl Mounts {
    /// Reads `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn read() -> io::Result<Mounts> {
        Ok(Mounts::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// `man 5 proc`: `id parent dev root point options… - type source super-options`.
    pub(super) fn parse(mountinfo: &str) -> Mounts {
        let mut mounts = Mounts::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let mut right = right.split(' ');
            let (Some(root), Some(point), Some(kind)) = (left.next(), left.next(), right.next()) else { continue };
            let mount = || Mount { root: unescape(root), point: unescape(point) };
            match (kind, right.nth(1)) {
                ("cgroup2", _) => mounts.v2 = Some(mount()),
                ("cgroup", Some(options)) => {
                    for controller in options.split(',').filter(|o| !matches!(*o, "rw" | "ro")) {
                        mounts.v1.entry(controller.to_owned()).or_insert_with(mount);
                    }
                }
                _ => {}
            }
        }
        mounts
    }

    /// The directories that the lines of a `/proc/<pid>/cgroup` stand for.
    pub fn resolve(&self, proc_cgroup: &str) -> Cgroups {
        let mut groups = Cgroups::default();
        for line in proc_cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            if controllers.is_empty() {
                groups.v2 = self.v2.as_ref().and_then(|m| m.resolve(path));
                continue;
            }
            for controller in controllers.split(',') {
                if let Some(dir) = self.v1.get(controller).and_then(|m| m.resolve(path)) {
                    groups.v1.insert(controller.to_owned(), dir);
                }
            }
        }
        // On a hybrid host a container often has no v2 group of its own and stays in its starter's.
        if !groups.v1.is_empty() {
            groups.v2 = None;
        }
        groups
    }
}

impl Mount {
    /// `None` for the root of the hierarchy, which is never one container's, and for what is not visible from here.
    pub(super) fn resolve(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        let inside = path.strip_prefix(&self.root).ok()?;
        if inside.as_os_str().is_empty() || inside.components().any(|c| !matches!(c, Component::Normal(_))) {
            return None;
        }
        Some(self.point.join(inside))
    }
}

/// Octal escapes of mountinfo: `\040` is a blank.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = field.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (bytes[at], octal) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 20 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw
26 25 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
27 25 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
28 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,name=systemd
29 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_hosts_use_v1() {
        let groups = Mounts::parse(HYBRID).resolve("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/starter\n");
        assert_eq!(groups.v1["memory"], Path::new("/sys/fs/cgroup/memory/docker/x"));
        assert_eq!(groups.v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/x"));
        assert_eq!(groups.v2, None);
    }

    #[test]
    fn a_pure_v2_host() {
        let mounts = Mounts::parse("29 25 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(mounts.resolve("0::/docker/x\n").v2.as_deref(), Some(Path::new("/sys/fs/cgroup/docker/x")));
        assert_eq!(mounts.resolve("0::/\n").v2, None);
        assert_eq!(mounts.resolve("0::/../x\n").v2, None);
    }

    #[test]
    fn a_mount_of_a_part_of_the_hierarchy() {
        let mounts = Mounts::parse("29 25 0:25 /outer /sys/fs/cg\\040roup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(mounts.resolve("0::/outer/x\n").v2.as_deref(), Some(Path::new("/sys/fs/cg roup/x")));
        assert_eq!(mounts.resolve("0::/elsewhere/x\n").v2, None);
    }
}
