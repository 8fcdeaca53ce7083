//! What becomes of checkpoints that were cut off, cut short, altered or put in another's place.

use std::os::unix::fs::{PermissionsExt, symlink};

use chrono::Utc;

use super::*;
use crate::seal::Seal;
use crate::{HostFacts, MANIFEST, NOTE, SEAL, manifest};

const LARGE: usize = 400 << 10;

fn manifest(name: &str) -> Manifest {
    Manifest {
        version: manifest::VERSION,
        name: name.into(),
        created: Utc::now(),
        container_id: "a".repeat(64),
        container_name: "web".into(),
        image_id: "sha256:0".into(),
        runtime: "docker-runc".into(),
        tty: false,
        paused: false,
        addresses: Default::default(),
        host: HostFacts::here().clone(),
        files: Default::default(),
        measured: None,
    }
}

fn key() -> Key {
    Key::from_secret("one engine")
}

/// What a dump leaves; without the note it was not complete.
fn dump(staging: &Staging, whole: bool) {
    let place = staging.place();
    fs::create_dir(&place).unwrap();
    fs::write(place.join("core-1.img"), b"registers").unwrap();
    fs::write(place.join("pages-1.img"), vec![7; LARGE]).unwrap();
    fs::create_dir(place.join("criu.work")).unwrap();
    fs::write(place.join("criu.work/dump.log"), b"log").unwrap();
    if whole {
        fs::write(place.join(NOTE), b"{}").unwrap();
    }
}

fn make(dir: &Directory, name: &str) -> Result<PathBuf> {
    let staging = dir.stage(name)?;
    staging.announce(&manifest(name))?;
    dump(&staging, true);
    staging.seal(manifest(name))?;
    staging.commit()
}

fn refused(dir: &Directory, depth: Depth) -> String {
    dir.check("cp1", depth).unwrap_err().to_string()
}

#[test]
fn whole_or_absent() {
    let root = tempfile::tempdir().unwrap();
    let dir = Directory::own(root.path().join("checkpoints"), &key());
    assert!(dir.list(Depth::Full).unwrap().is_empty());
    drop(dir.stage("given-up").unwrap());
    assert!(dir.list(Depth::Full).unwrap().is_empty());
    make(&dir, "cp1").unwrap();
    assert!(matches!(make(&dir, "cp1"), Err(Error::Exists(_))));
    let list = dir.list(Depth::Full).unwrap();
    assert_eq!((list.len(), list[0].name.as_str()), (1, "cp1"));
    assert!(list[0].size_bytes > LARGE as u64);
    assert_eq!(list[0].manifest.as_ref().unwrap().files.len(), 3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    dir.remove("cp1").unwrap();
    assert!(matches!(dir.remove("cp1"), Err(Error::NotFound { .. })));
    assert_eq!(dir.size_bytes(), tree_bytes(dir.path()));
}

#[test]
fn what_a_killed_maker_left_is_settled() {
    let root = tempfile::tempdir().unwrap();
    let dir = Directory::own(root.path(), &key());
    let stage = |name: &str, whole: bool| {
        let staging = dir.stage(name).unwrap();
        staging.announce(&manifest(name)).unwrap();
        dump(&staging, whole);
        staging
    };
    dir.stage("begun").unwrap().keep();
    stage("half", false).keep();
    stage("whole", true).keep();
    let sealed = stage("sealed", true);
    sealed.seal(manifest("sealed")).unwrap();
    sealed.keep();
    let stuck = stage("stuck", true);
    stuck.keep();
    fs::create_dir(root.path().join("stuck")).unwrap();
    fs::create_dir(root.path().join(format!("{STAGING}{REMOVED}old-1-1"))).unwrap();
    assert!(!dir.settle());
    for name in ["whole", "sealed"] {
        dir.check(name, Depth::Full).unwrap();
    }
    assert!(dir.check("stuck", Depth::Quick).is_err(), "somebody's empty directory is no checkpoint");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 4, "what cannot be put in place waits");
    fs::remove_dir(root.path().join("stuck")).unwrap();
    assert!(dir.settle());
    dir.check("stuck", Depth::Full).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
}

#[test]
fn what_cannot_be_put_in_place_is_still_there() {
    let root = tempfile::tempdir().unwrap();
    let dir = Directory::own(root.path(), &key());
    let staging = dir.stage("cp1").unwrap();
    staging.announce(&manifest("cp1")).unwrap();
    dump(&staging, true);
    staging.seal(manifest("cp1")).unwrap();
    fs::create_dir(root.path().join("cp1")).unwrap();
    assert!(staging.commit().is_err());
    let kept = staging.keep();
    assert!(kept.join("cp1/pages-1.img").exists());
    fs::remove_dir(root.path().join("cp1")).unwrap();
    assert!(dir.settle());
    dir.check("cp1", Depth::Full).unwrap();
}

#[test]
fn files_that_are_not_as_they_were_are_refused() {
    type Spoil = fn(&Path);
    let cases: [(&str, &str, Spoil); 13] = [
        ("cut short", "pages-1.img has 3 bytes instead of", |p| fs::write(p.join("pages-1.img"), b"pag").unwrap()),
        ("missing", "pages-1.img is missing", |p| fs::remove_file(p.join("pages-1.img")).unwrap()),
        ("altered, small", "content of core-1.img", |p| fs::write(p.join("core-1.img"), b"Registers").unwrap()),
        ("altered, large", "content of pages-1.img", |p| fs::write(p.join("pages-1.img"), vec![8; LARGE]).unwrap()),
        ("replaced, large", "content of pages-1.img", |p| {
            fs::write(p.join("new"), vec![8; LARGE]).unwrap();
            fs::rename(p.join("new"), p.join("pages-1.img")).unwrap();
        }),
        ("one more", "evil.img is not part of it", |p| fs::write(p.join("evil.img"), b"").unwrap()),
        ("a link", "core-1.img is a symbolic link", |p| {
            fs::remove_file(p.join("core-1.img")).unwrap();
            symlink("/etc/hostname", p.join("core-1.img")).unwrap();
        }),
        ("a pipe", "core-1.img is not a regular file", |p| {
            fs::remove_file(p.join("core-1.img")).unwrap();
            nix::unistd::mkfifo(&p.join("core-1.img"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("a directory", "core-1.img is not a regular file", |p| {
            fs::remove_file(p.join("core-1.img")).unwrap();
            fs::create_dir(p.join("core-1.img")).unwrap();
        }),
        ("logs elsewhere", "criu.work is not part of it", |p| {
            fs::remove_dir_all(p.join("criu.work")).unwrap();
            symlink("/tmp", p.join("criu.work")).unwrap();
        }),
        ("writable", "core-1.img can be changed by others", |p| {
            fs::set_permissions(p.join("core-1.img"), fs::Permissions::from_mode(0o666)).unwrap();
        }),
        ("open to all", "its directory can be changed by others", |p| {
            fs::set_permissions(p, fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("no seal", "its seal cannot be used", |p| fs::remove_file(p.join(SEAL)).unwrap()),
    ];
    for (case, why, spoil) in cases {
        let root = tempfile::tempdir().unwrap();
        for dir in [Directory::own(root.path(), &key()), Directory::foreign(root.path(), &key())] {
            let place = make(&dir, "cp1").unwrap();
            dir.check("cp1", Depth::Wake).unwrap();
            spoil(&place);
            let told = refused(&dir, Depth::Wake);
            assert!(told.contains(why), "{case}: {told}");
            dir.remove("cp1").unwrap();
        }
    }
}

#[test]
fn a_manifest_that_is_not_as_it_was_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = Directory::own(root.path(), &key());
    let place = make(&dir, "cp1").unwrap();
    let path = place.join(MANIFEST);
    let good = fs::read_to_string(&path).unwrap();
    for text in ["", "{}", "[]", r#"{"version":99}"#] {
        fs::write(&path, text).unwrap();
        assert!(matches!(dir.check("cp1", Depth::Quick), Err(Error::Unusable { .. })), "{text}");
    }
    fs::write(&path, good.replace("\"web\"", "\"sea\"")).unwrap();
    assert!(refused(&dir, Depth::Quick).contains("its manifest was altered"));
    // Whoever makes a new seal for it lacks the key.
    let forged = Seal::new(&Key::from_secret("guessed"), &fs::read(&path).unwrap(), BTreeMap::new());
    fs::write(place.join(SEAL), serde_json::to_vec(&forged).unwrap()).unwrap();
    assert!(refused(&dir, Depth::Quick).contains("its manifest was altered"));
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert!(refused(&dir, Depth::Quick).contains("its manifest cannot be used"));
}

#[test]
fn one_in_the_place_of_another_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = Directory::own(root.path(), &key());
    make(&dir, "cp1").unwrap();
    make(&dir, "cp2").unwrap();
    fs::remove_dir_all(root.path().join("cp1")).unwrap();
    fs::rename(root.path().join("cp2"), root.path().join("cp1")).unwrap();
    assert!(refused(&dir, Depth::Wake).contains("holds checkpoint cp2"));
}

#[test]
fn another_engines_is_read_as_a_whole() {
    let root = tempfile::tempdir().unwrap();
    let place = make(&Directory::own(root.path(), &Key::from_secret("another engine")), "cp1").unwrap();
    let (own, foreign) = (Directory::own(root.path(), &key()), Directory::foreign(root.path(), &key()));
    assert!(refused(&own, Depth::Wake).contains("altered"), "what lies among our own is ours");
    foreign.check("cp1", Depth::Wake).unwrap();
    fs::write(place.join("pages-1.img"), vec![8; LARGE]).unwrap();
    assert!(refused(&foreign, Depth::Wake).contains("content of pages-1.img"));
    foreign.check("cp1", Depth::Quick).unwrap();
}

#[test]
fn an_untouched_large_file_is_not_read_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = Directory::own(root.path(), &key());
    let place = make(&dir, "cp1").unwrap();
    // A digest that cannot be right, under a right seal: only who reads the file notices.
    let mut manifest = dir.check("cp1", Depth::Full).unwrap();
    manifest.files.get_mut("pages-1.img").unwrap().blake3 = Some("0".repeat(64));
    let text = serde_json::to_vec(&manifest).unwrap();
    let lie = seal::take(&place).unwrap().1;
    fs::write(place.join(MANIFEST), &text).unwrap();
    fs::write(place.join(SEAL), serde_json::to_vec(&seal::Seal::new(&key(), &text, lie)).unwrap()).unwrap();
    dir.check("cp1", Depth::Wake).unwrap();
    assert!(refused(&dir, Depth::Full).contains("content of pages-1.img"));
    // A copy lies elsewhere, and is read.
    fs::copy(place.join("pages-1.img"), place.join("copy")).unwrap();
    fs::rename(place.join("copy"), place.join("pages-1.img")).unwrap();
    assert!(refused(&dir, Depth::Wake).contains("content of pages-1.img"));
}

#[test]
fn names_stay_inside() {
    for bad in ["", "a", ".", "..", "../x", "a/b", ".a", "a.", "a b", &"x".repeat(256)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
    assert!(check_name("cp-1.x_y").is_ok());
}

#[test]
fn nobody_else_may_write_where_a_wake_writes() {
    let home = tempfile::tempdir().unwrap();
    let dir = Directory::foreign(home.path(), &key());
    let place = make(&dir, "cp1").unwrap();
    dir.check("cp1", Depth::Wake).unwrap();
    fs::set_permissions(place.join("criu.work"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&dir, Depth::Wake).contains("criu.work can be changed by others"));
    fs::remove_dir_all(place.join("criu.work")).unwrap();
    symlink("/tmp", place.join("criu.work")).unwrap();
    assert!(refused(&dir, Depth::Wake).contains("criu.work is not part of it"));
}

/// A thread of the engine has two megabytes, this one has fewer for fewer.
#[test]
fn the_size_of_what_is_very_deep_is_told() {
    let home = tempfile::tempdir().unwrap();
    let mut path = home.path().join("cp1");
    while path.as_os_str().len() < 3900 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    let home = home.path().to_owned();
    let look = move || Directory::foreign(home, &key()).list(Depth::Quick).unwrap();
    let found = std::thread::Builder::new().stack_size(128 << 10).spawn(look).unwrap().join().unwrap();
    assert!(found[0].manifest.is_err() && found[0].size_bytes > 0);
}
