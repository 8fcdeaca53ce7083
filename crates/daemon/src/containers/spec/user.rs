//! Who a process runs as: `--user` and `--group-add` against the container's own `/etc/passwd` and `/etc/group`.
//!
//! Both files belong to the image and are hostile input: they are opened inside the root (no link leads out), read up
//! to a bound, and lines that make no sense are passed over.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

/// Larger files are cut: no honest one is.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A process's identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Home directory, when the user is listed.
    pub home: Option<String>,
}

struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `user[:group]` (names or numbers; empty is root) and further groups inside `rootfs`.
pub fn resolve(rootfs: &Path, user: &str, group_add: &[String]) -> Result<User> {
    let passwd = read_passwd(rootfs);
    let groups = read_groups(rootfs);
    let (user_part, group_part) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let user_part = if user_part.is_empty() { "0" } else { user_part };

    let by_name = passwd.iter().find(|p| p.name == user_part);
    let entry = by_name.or_else(|| user_part.parse::<u32>().ok().and_then(|uid| passwd.iter().find(|p| p.uid == uid)));
    let (uid, mut gid) = match (entry, parse_id(user_part)?) {
        (Some(p), _) => (p.uid, p.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => {
            return Err(Error::InvalidParameter(format!(
                "unable to find user {user_part}: no matching entries in passwd file"
            )));
        }
    };

    let mut additional_gids = Vec::new();
    match group_part {
        Some(name) => gid = group_id(&groups, name)?,
        None => {
            if let Some(p) = entry {
                additional_gids.extend(groups.iter().filter(|g| g.members.contains(&p.name)).map(|g| g.gid));
            }
        }
    }
    for name in group_add {
        additional_gids.push(group_id(&groups, name)?);
    }
    // The process's own group is among its supplementary groups, as login(1) would have it.
    additional_gids.insert(0, gid);
    let mut seen = std::collections::HashSet::new();
    additional_gids.retain(|g| seen.insert(*g));
    Ok(User { uid, gid, additional_gids, home: entry.map(|p| p.home.clone()) })
}

fn group_id(groups: &[Group], name: &str) -> Result<u32> {
    if let Some(group) = groups.iter().find(|g| g.name == name) {
        return Ok(group.gid);
    }
    parse_id(name)?.ok_or_else(|| {
        Error::InvalidParameter(format!("unable to find group {name}: no matching entries in group file"))
    })
}

/// A number within what Docker takes for an id, or `None` when it is no number.
fn parse_id(text: &str) -> Result<Option<u32>> {
    match text.parse::<i64>() {
        Ok(id) => match u32::try_from(id).ok().filter(|id| *id <= i32::MAX as u32) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::InvalidParameter("uids and gids must be in range 0-2147483647".into())),
        },
        Err(_) => Ok(None),
    }
}

fn read_passwd(rootfs: &Path) -> Vec<Passwd> {
    let parse = |line: &str| {
        let mut f = line.split(':');
        let name = f.next()?.to_owned();
        let (uid, gid) = (f.nth(1)?.parse().ok()?, f.next()?.parse().ok()?);
        Some(Passwd { name, uid, gid, home: f.nth(1).unwrap_or_default().to_owned() })
    };
    read_inside(rootfs, "etc/passwd").lines().filter_map(parse).collect()
}

fn read_groups(rootfs: &Path) -> Vec<Group> {
    let parse = |line: &str| {
        let mut f = line.split(':');
        let name = f.next()?.to_owned();
        let gid = f.nth(1)?.parse().ok()?;
        let members = f.next().unwrap_or_default().split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
        Some(Group { name, gid, members })
    };
    read_inside(rootfs, "etc/group").lines().filter_map(parse).collect()
}

/// A file of the container, or nothing.
fn read_inside(rootfs: &Path, path: &str) -> String {
    let open = || -> std::io::Result<String> {
        let root = File::open(rootfs)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?);
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    open().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnonsense\nweb:x:33:33::/srv:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nweb:x:33:\nlogs:x:44:web,other\n").unwrap();
        dir
    }

    #[test]
    fn names_and_numbers() {
        let dir = root();
        let get = |user: &str, add: &[&str]| {
            resolve(dir.path(), user, &add.iter().map(|&s| s.to_owned()).collect::<Vec<_>>())
        };
        let root = get("", &[]).unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_deref()), (0, 0, Some("/root")));
        let web = get("web", &["99"]).unwrap();
        assert_eq!((web.uid, web.gid, web.additional_gids), (33, 33, vec![33, 44, 99]));
        let mixed = get("1000:logs", &[]).unwrap();
        assert_eq!((mixed.uid, mixed.gid, mixed.home), (1000, 44, None));
        assert!(get("nobody", &[]).unwrap_err().to_string().contains("no matching entries in passwd file"));
        assert!(get("-1", &[]).is_err() && get("web:nope", &[]).is_err());
    }

    #[test]
    fn links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        assert!(resolve(dir.path(), "daemon", &[]).is_err());
    }
}
