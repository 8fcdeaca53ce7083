//! A container's place in *every* cgroup hierarchy of the host.
//!
//! On a host with several hierarchies (v1, with or without a v2 mount beside it) a container that has no group of its own
//! in one of them stays in its starter's group there; CRIU would then dump that whole tree with it. So a group is made in
//! every hierarchy that is mounted: the v1 controllers, the named ones (systemd's) and v2. Limits are set by [`limits`], on a
//! host with v2 alone through `libcgroups`.

mod limits;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager, ControllerOpt};
use libcgroups::stats::Stats;
use libcontainer::oci_spec::runtime::LinuxResources;

use crate::error::{Doing, Error, Result};

const PROCS: &str = "cgroup.procs";

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What it is.
    pub kind: HierarchyKind,
}

/// The kinds of hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HierarchyKind {
    /// v1 with these controllers.
    V1(Vec<String>),
    /// v1 without a controller, such as systemd's.
    Named(String),
    /// v2.
    V2,
}

impl Hierarchy {
    /// Whether a controller, or a hierarchy without one, of this name is in it.
    fn is(&self, name: &str) -> bool {
        match &self.kind {
            HierarchyKind::V1(controllers) => controllers.iter().any(|controller| controller == name),
            HierarchyKind::Named(own) => own == name,
            HierarchyKind::V2 => false,
        }
    }
}

/// Groups below a container's, by controller; without one, in every hierarchy.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Below(BTreeMap<Option<String>, PathBuf>);

impl Below {
    /// Reads `--cgroup` arguments: one `path`, or any number of `controller[,controller]:path`.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let bad = |text: &str, why: &str| Error::Invalid(format!("invalid --cgroup argument: {text} ({why})"));
        let mut groups = BTreeMap::new();
        for text in arguments {
            let (controllers, path) = match text.split_once(':') {
                Some((controllers, path)) => (controllers.split(',').map(|c| Some(c.to_owned())).collect(), path),
                None if arguments.len() == 1 => (vec![None], text.as_str()),
                None => return Err(bad(text, "missing <controller>: prefix")),
            };
            let path = Path::new(path.trim_start_matches('/'));
            if path.components().any(|component| component == Component::ParentDir) {
                return Err(bad(text, "bad sub cgroup path"));
            }
            for controller in controllers {
                if controller.as_deref() == Some("") {
                    return Err(bad(text, "empty <controller> prefix"));
                }
                if groups.insert(controller, path.to_owned()).is_some() {
                    return Err(bad(text, "controller specified multiple times"));
                }
            }
        }
        Ok(Below(groups))
    }
}

/// The groups of one container.
#[derive(Debug, Clone)]
pub struct Cgroups {
    path: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

/// The path below each hierarchy's mount for what the configuration says.
///
/// A relative path is taken from the hierarchy's root; without any, the container's id is the path. The form that names
/// systemd units is refused.
pub fn path_for(configured: Option<&Path>, id: &str) -> Result<PathBuf> {
    let text = match configured {
        None => return Ok(Path::new("/").join(id)),
        Some(path) if path.as_os_str().is_empty() => return Ok(Path::new("/").join(id)),
        Some(path) => path,
    };
    if text.to_string_lossy().matches(':').count() == 2 {
        return Err(Error::NotImplemented(format!("cgroups through systemd ({})", text.display())));
    }
    let mut clean = PathBuf::from("/");
    for component in text.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => (),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Invalid(format!("invalid cgroupsPath {}", text.display())));
            }
        }
    }
    if clean == Path::new("/") {
        return Err(Error::Invalid("cgroupsPath must not be the root".into()));
    }
    Ok(clean)
}

impl Cgroups {
    /// The groups at this path.
    pub fn at(path: &Path) -> Result<Self> {
        // The table is long where many containers run, and the hierarchies stay where they are.
        static FOUND: OnceLock<Vec<Hierarchy>> = OnceLock::new();
        let found = match FOUND.get() {
            Some(found) => found,
            None => {
                let table = fs::read_to_string("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".into())?;
                FOUND.get_or_init(|| hierarchies(&table))
            }
        };
        Ok(Cgroups { path: path.to_owned(), hierarchies: found.clone() })
    }

    /// The path below each hierarchy's mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mounted hierarchies.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The group's directory in one hierarchy.
    pub fn dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        // The path is absolute and clean; `join` would replace the mount.
        hierarchy.mount.join(self.path.strip_prefix("/").unwrap_or(&self.path))
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.hierarchies.iter().map(|hierarchy| self.dir(hierarchy))
    }

    /// Refuses groups that a new container cannot have for itself: the limits would be somebody else's as well, and in a
    /// frozen one it would never come to life.
    pub fn refuse_taken(&self) -> Result<()> {
        let Some(freezer) = self.freezer() else { return Ok(()) };
        let count = match fs::read_to_string(freezer.dir().join(PROCS)) {
            Ok(text) => text.lines().count(),
            Err(err) if gone(&err) => return Ok(()),
            Err(source) => {
                return Err(Error::Io { what: format!("read {}", freezer.dir().join(PROCS).display()), source });
            }
        };
        if count > 0 {
            return Err(Error::Init(format!("container's cgroup is not empty: {count} process(es) found")));
        }
        if freezer.is_frozen()? {
            return Err(Error::Init("container's cgroup unexpectedly frozen".into()));
        }
        Ok(())
    }

    /// Makes the groups where they are missing.
    pub fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let dir = self.dir(hierarchy);
            fs::create_dir_all(&dir).doing(|| format!("create cgroup {}", dir.display()))?;
            if matches!(&hierarchy.kind, HierarchyKind::V1(list) if list.iter().any(|name| name == "cpuset")) {
                inherit_cpuset(&hierarchy.mount, &dir)?;
            }
        }
        Ok(())
    }

    /// Moves a process into all of them.
    pub fn join(&self, pid: i32) -> Result<()> {
        self.join_below(pid, &Below::default())
    }

    /// Moves a process into groups below them, which must be there.
    pub fn join_below(&self, pid: i32, groups: &Below) -> Result<()> {
        if let Some(unknown) = groups.0.keys().flatten().find(|name| !self.hierarchies.iter().any(|h| h.is(name))) {
            return Err(Error::Invalid(format!("unknown controller {unknown} in --cgroup")));
        }
        for hierarchy in &self.hierarchies {
            let dir = self.dir(hierarchy);
            let below = groups.0.iter().find_map(|(name, path)| match name {
                Some(name) => hierarchy.is(name).then(|| dir.join(path)),
                None => Some(dir.join(path)),
            });
            let dir = match below {
                // Beside v1, nobody may have made the group in v2 and in systemd's hierarchy.
                Some(below) if below.is_dir() || matches!(hierarchy.kind, HierarchyKind::V1(_)) => below,
                Some(below) if self.hierarchies.len() == 1 => below,
                _ => dir,
            };
            let path = dir.join(PROCS);
            write(&path, pid.to_string().as_bytes()).doing(|| format!("write {pid} to {}", path.display()))?;
        }
        Ok(())
    }

    /// Moves a process into the group that counts memory.
    pub fn join_memory(&self, pid: i32) -> Result<()> {
        let counts =
            |kind: &HierarchyKind| matches!(kind, HierarchyKind::V1(list) if list.iter().any(|c| c == "memory"));
        let v1 = self.hierarchies.iter().find(|hierarchy| counts(&hierarchy.kind));
        let Some(hierarchy) = v1.or_else(|| self.hierarchies.iter().find(|h| h.kind == HierarchyKind::V2)) else {
            return Ok(());
        };
        let path = self.dir(hierarchy).join(PROCS);
        write(&path, pid.to_string().as_bytes()).doing(|| format!("write {pid} to {}", path.display()))
    }

    /// Sets limits.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let has_v1 = self.hierarchies.iter().any(|hierarchy| hierarchy.kind != HierarchyKind::V2);
        if has_v1 && resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
            return Err(Error::Cgroup("invalid configuration: unified resources need cgroup v2".into()));
        }
        if self.hierarchies.iter().any(|hierarchy| matches!(hierarchy.kind, HierarchyKind::V1(_))) {
            return limits::apply(self, resources);
        }
        let options = ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
        self.manager()?.apply(&options).map_err(|err| Error::Cgroup(err.to_string()))
    }

    /// Reads the counters.
    pub fn stats(&self) -> Result<Stats> {
        self.manager()?.stats().map_err(|err| Error::Cgroup(err.to_string()))
    }

    fn manager(&self) -> Result<AnyCgroupManager> {
        libcgroups::common::create_cgroup_manager(CgroupConfig {
            cgroup_path: self.path.clone(),
            systemd_cgroup: false,
            container_name: String::new(),
        })
        .map_err(|err| Error::Cgroup(err.to_string()))
    }

    /// The group that can be frozen: the v1 freezer's, or that of a pure v2 host.
    pub fn freezer(&self) -> Option<Freezer> {
        let v1 = self
            .hierarchies
            .iter()
            .find(|h| matches!(&h.kind, HierarchyKind::V1(list) if list.iter().any(|name| name == "freezer")))
            .map(|h| Freezer::V1(self.dir(h)));
        let v2 = || self.hierarchies.iter().find(|h| h.kind == HierarchyKind::V2).map(|h| Freezer::V2(self.dir(h)));
        v1.or_else(v2)
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.freezer() {
            Some(freezer) => freezer.is_frozen(),
            None => Ok(false),
        }
    }

    /// Stops its processes and waits until they are.
    pub fn freeze(&self) -> Result<()> {
        self.freezer().ok_or_else(|| Error::Cgroup("no freezer is mounted".into()))?.freeze()
    }

    /// Tells its processes to stop and does not wait for it. This one, which is in it, is taken out first.
    pub fn begin_freeze_without(&self, pid: i32) -> Result<()> {
        let freezer = self.freezer().ok_or_else(|| Error::Cgroup("no freezer is mounted".into()))?;
        let hierarchy = self.hierarchies.iter().find(|hierarchy| self.dir(hierarchy) == freezer.dir());
        let root = hierarchy.map(|hierarchy| hierarchy.mount.join(PROCS)).unwrap_or_default();
        write(&root, pid.to_string().as_bytes()).doing(|| format!("write {pid} to {}", root.display()))?;
        freezer.begin_freeze()
    }

    /// Lets its processes go on.
    pub fn thaw(&self) -> Result<()> {
        self.freezer().ok_or_else(|| Error::Cgroup("no freezer is mounted".into()))?.thaw()
    }

    /// All processes in it and below, by host pid.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let dir = match self.freezer() {
            Some(freezer) => freezer.dir().to_owned(),
            None => match self.dirs().next() {
                Some(dir) => dir,
                None => return Ok(Vec::new()),
            },
        };
        let mut pids = Vec::new();
        for group in tree(&dir) {
            let path = group.join(PROCS);
            match fs::read_to_string(&path) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(err) if gone(&err) => (),
                Err(source) => return Err(Error::Io { what: format!("read {}", path.display()), source }),
            }
        }
        Ok(pids)
    }

    /// Whether there are groups below it (made by something inside, such as systemd).
    pub fn has_children(&self) -> bool {
        self.dirs().any(|dir| tree(&dir).len() > 1)
    }

    /// Removes the groups and what was made below them.
    ///
    /// A group whose last process has just been killed stays busy until the kernel has buried it, and v1 has nothing to
    /// wait on; so this tries again for up to two seconds.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        for dir in self.dirs() {
            let mut pause = Duration::from_micros(200);
            loop {
                match remove_tree(&dir) {
                    Ok(()) => break,
                    Err(err) if gone(&err) => break,
                    Err(err) if err.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    Err(source) => {
                        return Err(Error::Io { what: format!("remove cgroup {}", dir.display()), source });
                    }
                }
            }
        }
        Ok(())
    }
}

/// The group that can be frozen.
#[derive(Debug, Clone)]
pub enum Freezer {
    /// `freezer.state`
    V1(PathBuf),
    /// `cgroup.freeze`
    V2(PathBuf),
}

impl Freezer {
    /// Its directory.
    pub fn dir(&self) -> &Path {
        match self {
            Freezer::V1(dir) | Freezer::V2(dir) => dir,
        }
    }

    fn is_frozen(&self) -> Result<bool> {
        let (path, frozen) = match self {
            Freezer::V1(dir) => (dir.join("freezer.state"), "FROZEN"),
            Freezer::V2(dir) => (dir.join("cgroup.freeze"), "1"),
        };
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim() == frozen),
            Err(err) if gone(&err) => Ok(false),
            Err(source) => Err(Error::Io { what: format!("read {}", path.display()), source }),
        }
    }

    fn begin_freeze(&self) -> Result<()> {
        let (path, text): (PathBuf, &[u8]) = match self {
            Freezer::V1(dir) => (dir.join("freezer.state"), b"FROZEN"),
            Freezer::V2(dir) => (dir.join("cgroup.freeze"), b"1"),
        };
        write(&path, text).doing(|| format!("freeze {}", self.dir().display()))
    }

    fn freeze(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        match self {
            Freezer::V1(dir) => {
                let path = dir.join("freezer.state");
                let doing = || format!("freeze {}", dir.display());
                // A process that is being made while the group freezes can slip through; writing again catches it.
                loop {
                    write(&path, b"FROZEN").doing(doing)?;
                    if self.is_frozen()? {
                        return Ok(());
                    }
                    if Instant::now() > deadline {
                        write(&path, b"THAWED").doing(doing)?;
                        return Err(Error::Cgroup(format!("{} did not freeze within 10 s", dir.display())));
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            Freezer::V2(dir) => {
                let doing = || format!("freeze {}", dir.display());
                write(&dir.join("cgroup.freeze"), b"1").doing(doing)?;
                loop {
                    let events = fs::read_to_string(dir.join("cgroup.events")).doing(doing)?;
                    if events.lines().any(|line| line == "frozen 1") {
                        return Ok(());
                    }
                    if Instant::now() > deadline {
                        write(&dir.join("cgroup.freeze"), b"0").doing(doing)?;
                        return Err(Error::Cgroup(format!("{} did not freeze within 10 s", dir.display())));
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
    }

    fn thaw(&self) -> Result<()> {
        let (path, text): (PathBuf, &[u8]) = match self {
            Freezer::V1(dir) => (dir.join("freezer.state"), b"THAWED"),
            Freezer::V2(dir) => (dir.join("cgroup.freeze"), b"0"),
        };
        match write(&path, text) {
            Err(err) if !gone(&err) => Err(Error::Io { what: format!("thaw {}", path.display()), source: err }),
            _ => Ok(()),
        }
    }
}

/// Starts the grace period that the kernel charges for the first move of a process after a quiet moment (5 to 15 ms),
/// beside whatever else there is to do: a short-lived child writes itself into the group it is in already. Moves that
/// follow within that time cost next to nothing.
pub fn warm_up() {
    // The first v1 mount will do: the lock behind it is one for all hierarchies.
    let candidates = ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
    let Some(mount) = candidates.iter().map(Path::new).find(|dir| dir.join(PROCS).exists()) else { return };
    let Ok(own) = fs::read_to_string("/proc/self/cgroup") else { return };
    let name = mount.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let wanted = match name {
        "systemd" => "name=systemd",
        "cgroup" => "",
        other => other,
    };
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        controllers.split(',').any(|c| c == wanted).then_some(path)
    });
    let Some(path) = path else { return };
    let procs = mount.join(path.trim_start_matches('/')).join(PROCS);
    if let Ok(crate::sys::Forked::Child) = crate::sys::fork_into(0) {
        let _ = write(&procs, b"0");
        crate::sys::exit_now(0);
    }
}

fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut list: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let kind = right.next().unwrap_or_default();
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let mount = PathBuf::from(unescape(mount));
        let kind = match kind {
            "cgroup2" => HierarchyKind::V2,
            "cgroup" => {
                let options = right.nth(1).unwrap_or_default();
                match options.split(',').find_map(|option| option.strip_prefix("name=")) {
                    Some(name) => HierarchyKind::Named(name.to_owned()),
                    None => HierarchyKind::V1(
                        options
                            .split(',')
                            .filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "noprefix" | "clone_children"))
                            .map(str::to_owned)
                            .collect(),
                    ),
                }
            }
            _ => continue,
        };
        // The same hierarchy may be mounted again elsewhere (in some container's tree): the first one counts.
        if mount.starts_with("/sys/fs/cgroup") && !list.iter().any(|known| known.kind == kind) {
            list.push(Hierarchy { mount, kind });
        }
    }
    list
}

fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// A new cpuset group is empty and takes no process until it has processors and memory nodes.
fn inherit_cpuset(mount: &Path, dir: &Path) -> Result<()> {
    let below: Vec<_> = dir.strip_prefix(mount).into_iter().flat_map(Path::components).collect();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut current = mount.to_owned();
        let read = |path: &Path| fs::read_to_string(path).doing(|| format!("read {}", path.display()));
        let mut value = read(&current.join(file))?;
        for component in &below {
            current.push(component);
            let path = current.join(file);
            let own = read(&path)?;
            if own.trim().is_empty() {
                write(&path, value.trim().as_bytes()).doing(|| format!("write {}", path.display()))?;
            } else {
                value = own;
            }
        }
    }
    Ok(())
}

/// A group and all below it, the group itself first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut list = vec![dir.to_owned()];
    let mut next = 0;
    while next < list.len() {
        let entries = fs::read_dir(&list[next]).into_iter().flatten().flatten();
        let children: Vec<_> = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        list.extend(children);
        next += 1;
    }
    list
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(err) if err.raw_os_error() == Some(libc::EBUSY) || err.raw_os_error() == Some(libc::ENOTEMPTY) => {
            for group in tree(dir).iter().skip(1).rev() {
                fs::remove_dir(group)?;
            }
            fs::remove_dir(dir)
        }
        other => other,
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(text)
}

fn gone(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::NotFound || err.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_below_by_controller() {
        let parse = |list: &[&str]| Below::parse(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap(), Below::default());
        assert_eq!(parse(&["/sub"]).unwrap().0, BTreeMap::from([(None, "sub".into())]));
        let several = parse(&["cpu,cpuacct:a", "pids:b/c"]).unwrap().0;
        assert_eq!(several.len(), 3);
        assert_eq!(several[&Some("pids".to_owned())], Path::new("b/c"));
        for bad in [&["a", "b"][..], &[":a"], &["cpu,:a"], &["cpu:a", "cpu:b"], &["../x"], &["cpu:a/../../.."]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 30 0:28 / /var/lib/x/sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
";

    #[test]
    fn every_hierarchy_of_a_hybrid_host_is_found_once() {
        let found = hierarchies(HYBRID);
        assert_eq!(found.len(), 4);
        assert_eq!(found[1].kind, HierarchyKind::V1(vec!["freezer".into()]));
        assert_eq!(found[2].kind, HierarchyKind::Named("systemd".into()));
        assert_eq!(found[3], Hierarchy { mount: "/sys/fs/cgroup/unified".into(), kind: HierarchyKind::V2 });
    }

    #[test]
    fn paths_cannot_leave_the_hierarchy() {
        assert_eq!(path_for(None, "web").unwrap(), Path::new("/web"));
        assert_eq!(path_for(Some(Path::new("docker/web")), "web").unwrap(), Path::new("/docker/web"));
        assert_eq!(path_for(Some(Path::new("//docker//web/")), "web").unwrap(), Path::new("/docker/web"));
        assert!(path_for(Some(Path::new("/docker/../..")), "web").is_err());
        assert!(path_for(Some(Path::new("/")), "web").is_err());
        assert!(matches!(path_for(Some(Path::new("system.slice:docker:web")), "web"), Err(Error::NotImplemented(_))));
    }
}
