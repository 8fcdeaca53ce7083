//! Images of real programs, made from Debian packages of this machine's own sources and kept between runs.
//!
//! apt says which packages a program needs on an empty machine and fetches them; of those only what the program runs on
//! is unpacked, beside the machine's static busybox. No package's own script is run.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use crate::archives::digest;
use crate::engine::Engine;
use crate::programs::search_path;

const FOLDER: &str = "/var/cache/dormouse-tests";

/// Raised when the same packages are to make another image than before.
const RECIPE: u32 = 2;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Never run by these programs, but large, or only there for package scripts.
const LEFT_OUT: [&str; 7] = ["libllvm", "libz3", "libperl", "libgdbm", "libfile-find", "libsemanage", "libpam-modules"];

/// What no program reads.
const NOT_UNPACKED: [&str; 9] = [
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
    "./usr/share/lintian/*",
    "./usr/share/info/*",
    "./usr/share/fonts/*",
    "./usr/lib/jvm/*_nocoops.jsa",
    "./usr/lib/jvm/*/ct.sym",
    "./usr/lib/postgresql/*/bitcode/*",
];

/// A program that Debian has.
#[derive(Debug, Clone, Copy)]
pub struct DebianProgram {
    /// The image's name.
    pub name: &'static str,
    package: &'static str,
    /// What the names of the packages begin with that are unpacked beside the libraries.
    unpacked: &'static [&'static str],
}

impl DebianProgram {
    /// Redis.
    pub const REDIS: Self = Self { name: "redis", package: "redis-server", unpacked: &["redis-"] };
    /// PostgreSQL, server and client.
    pub const POSTGRES: Self =
        Self { name: "postgres", package: "postgresql", unpacked: &["postgresql-1", "postgresql-client-1", "tzdata"] };
    /// nginx.
    pub const NGINX: Self = Self { name: "nginx", package: "nginx", unpacked: &["nginx"] };
    /// A Java virtual machine.
    pub const JAVA: Self = Self { name: "java", package: "default-jre-headless", unpacked: &["openjdk-"] };
    /// Node.js.
    pub const NODE: Self = Self { name: "node", package: "nodejs", unpacked: &["node"] };
    /// CPython.
    pub const PYTHON: Self = Self { name: "python", package: "python3", unpacked: &["python3"] };

    /// Imports the image under its name.
    #[track_caller]
    pub fn import(&self, engine: &Engine) {
        engine.ok(&format!("docker import -c 'ENV PATH={PATH} LANG=C' {} {}", self.tar().display(), self.name));
    }

    /// The root file system tar, made if it is not there yet.
    #[track_caller]
    pub fn tar(&self) -> PathBuf {
        fs::create_dir_all(FOLDER).expect("create the folder of the images");
        let lock = File::create(Path::new(FOLDER).join("lock")).expect("create the lock of the images");
        flock(&lock, FlockOperation::LockExclusive).expect("lock the images");
        let tar = Path::new(FOLDER).join(format!("{}-{}.tar", self.name, &self.fingerprint()[..12]));
        if !tar.exists() {
            self.make(&tar);
        }
        tar
    }

    /// What the image is made of, as far as this file says it, in few letters.
    fn fingerprint(&self) -> String {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        digest(format!("{RECIPE} {self:?} {LEFT_OUT:?} {NOT_UNPACKED:?} {release}").as_bytes())["sha256:".len()..]
            .into()
    }

    #[track_caller]
    fn make(&self, tar: &Path) {
        let work = tempfile::tempdir_in("/var/tmp").expect("create a folder to work in");
        let archives = self.fetch(work.path());
        let root = work.path().join("root");
        fs::create_dir(&root).expect("create the root");
        prepare(&root);
        let without = NOT_UNPACKED.iter().fold(String::new(), |mut text, pattern| {
            write!(text, " --exclude='{pattern}'").expect("write to memory");
            text
        });
        for archive in archives {
            shell(&format!(
                "dpkg-deb --fsys-tarfile '{}' | tar -x -C '{}' --keep-directory-symlink{without}",
                archive.display(),
                root.display()
            ))
            .unwrap_or_else(|why| panic!("could not unpack {}: {why}", archive.display()));
        }
        complete(&root);
        let new = tar.with_extension("new");
        shell(&format!("tar -C '{}' --numeric-owner -cf '{}' .", root.display(), new.display()))
            .unwrap_or_else(|why| panic!("could not pack the image of {}: {why}", self.name));
        fs::rename(&new, tar).expect("put the image in place");
    }

    /// Fetches the packages; where they are.
    #[track_caller]
    fn fetch(&self, work: &Path) -> Vec<PathBuf> {
        self.try_fetch(work).unwrap_or_else(|first| {
            // Lists that are missing or too old are the usual reason.
            let _ = shell("apt-get -q update");
            self.try_fetch(work).unwrap_or_else(|why| {
                panic!(
                    "the packages for {} could not be fetched: is a package source reachable?\n{first}\n{why}",
                    self.name
                )
            })
        })
    }

    fn try_fetch(&self, work: &Path) -> Result<Vec<PathBuf>, String> {
        let archives = Path::new(FOLDER).join("packages");
        fs::create_dir_all(&archives).expect("create the folder of the packages");
        let nothing = work.join("status");
        fs::write(&nothing, "").expect("write an empty list of packages");
        let fetched = work.join("archives");
        fs::create_dir_all(fetched.join("partial")).expect("create an empty folder of archives");
        // apt as on a machine that has nothing yet: neither packages nor their archives, which it would not name.
        let apt = format!(
            "apt-get -q -o APT::Sandbox::User=root -o Debug::NoLocking=1 -o Dir::State::status='{}' \
             -o Dir::Cache::archives='{}/'",
            nothing.display(),
            fetched.display()
        );
        let list = shell(&format!("{apt} --print-uris --yes --no-install-recommends install {}", self.package))?;
        // 'http://…/pool/…' NAME_VERSION_ARCH.deb SIZE DIGEST
        let files: Vec<&str> =
            list.lines().filter(|line| line.starts_with('\'')).filter_map(|line| line.split(' ').nth(1)).collect();
        let mut wanted = Vec::new();
        for file in files {
            let mut parts = file.splitn(3, '_');
            if let (Some(name), Some(version)) = (parts.next(), parts.next())
                && self.takes(name)
            {
                wanted.push((format!("{name}={}", version.replace("%3a", ":")), archives.join(file)));
            }
        }
        let named: Vec<&str> = wanted.iter().map(|(package, _)| package.as_str()).collect();
        shell(&format!("cd '{}' && {apt} download {}", archives.display(), named.join(" ")))?;
        let files: Vec<PathBuf> = wanted.into_iter().map(|(_, file)| file).collect();
        match files.iter().find(|file| !file.exists()) {
            None if !files.is_empty() => Ok(files),
            missing => Err(format!("apt gave no {missing:?}")),
        }
    }

    fn takes(&self, package: &str) -> bool {
        let begins = |starts: &[&str]| starts.iter().any(|start| package.starts_with(start));
        begins(self.unpacked) || package == "zlib1g" || (package.starts_with("lib") && !begins(&LEFT_OUT))
    }
}

/// The folders, merged as Debian has them now, so that every package finds its place.
fn prepare(root: &Path) {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("set a mode");
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name)).expect("create a folder");
        symlink(format!("usr/{name}"), root.join(name)).expect("create a link");
    }
    for name in ["dev", "etc", "proc", "root", "run", "srv", "sys", "tmp", "var/tmp"] {
        fs::create_dir_all(root.join(name)).expect("create a folder");
    }
    for name in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777)).expect("set a mode");
    }
}

/// A shell and the usual small programs where no package brought them, and the users.
fn complete(root: &Path) {
    let bin = root.join("usr/bin");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("copy the machine's busybox");
    let applets = shell("busybox --list").expect("busybox lists what it can");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        if !["usr/bin", "usr/sbin"].iter().any(|folder| root.join(folder).join(applet).symlink_metadata().is_ok()) {
            symlink("busybox", bin.join(applet)).expect("create a link");
        }
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/srv:/bin/sh\npostgres:x:70:70::/srv:/bin/sh\n\
                 nobody:x:65534:65534::/:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users).expect("write a file");
    fs::write(root.join("etc/group"), "root:x:0:\nwww-data:x:33:\npostgres:x:70:\nnogroup:x:65534:\n")
        .expect("write a file");
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n").expect("write a file");
}

/// Runs a command line; its output, or what it said when it failed.
fn shell(script: &str) -> Result<String, String> {
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {script}")])
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("start a shell");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("`{script}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
