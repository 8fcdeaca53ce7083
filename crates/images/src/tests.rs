//! The local store from end to end: real overlays (run as root), real archives, hostile archives.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use archive::{Entry, EntryKind, TarWriter};
use errors::{Kind, Kinded};

use super::*;

const CONTAINER: &str = "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0";
const OTHER: &str = "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0";

/// A data root in the work tree's file system: an overlay's writable layer cannot be on another overlay.
pub(crate) fn data_root() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("images-test-").tempdir_in("/var/tmp").unwrap()
}

pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (path, content) in files {
        match path.strip_suffix('/') {
            Some(dir) => tar.append(&Entry::new(dir, EntryKind::Directory, 0o755)).unwrap(),
            None => tar.append_bytes(&Entry::new(*path, EntryKind::File, 0o644), content.as_bytes()).unwrap(),
        };
    }
    tar.finish().unwrap()
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

pub(crate) fn import(images: &Images, name: &str, files: &[(&str, &str)]) -> Digest {
    let options = ImportOptions { name: Some(Reference::parse(name).unwrap()), ..ImportOptions::default() };
    images.import(&tar(files)[..], &options, &mut |_| {}).unwrap()
}

/// Everything below the data root but the database, when all is done.
pub(crate) fn on_disk(images: &Images, root: &Path) -> BTreeSet<String> {
    images.shared.rest();
    let mut found = BTreeSet::new();
    for dir in ["content/blobs/sha256", "content/ingest", "overlay2"] {
        for entry in fs::read_dir(root.join(dir)).unwrap() {
            found.insert(format!("{dir}/{}", entry.unwrap().file_name().into_string().unwrap()));
        }
    }
    found
}

fn change_list(images: &Images) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Modified => "C",
        ChangeKind::Added => "A",
        ChangeKind::Deleted => "D",
    };
    images.changes(CONTAINER).unwrap().iter().map(|c| format!("{} {}", letter(c.kind), c.path)).collect()
}

#[test]
fn an_imported_image_is_found_listed_and_there_after_a_restart() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let options = ImportOptions {
        name: Some(Reference::parse("busy:1").unwrap()),
        message: "hello".into(),
        changes: vec!["CMD [\"/bin/sh\"]".into(), "LABEL a=b".into()],
        ..ImportOptions::default()
    };
    let id = images.import(&gzip(&tar(&[("bin/", ""), ("bin/sh", "#!")]))[..], &options, &mut |_| {}).unwrap();
    drop(images);
    let images = Images::open(root.path()).unwrap();
    for name in ["busy:1", "docker.io/library/busy:1", id.as_str(), id.hex(), id.short(), &id.hex()[..1]] {
        assert_eq!(images.resolve(name).unwrap(), id, "{name}");
    }
    let error = images.resolve("busy").unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), ("No such image: busy:latest", Kind::NotFound));
    let details = images.inspect("busy:1").unwrap();
    assert_eq!(details.config.config.cmd.as_deref(), Some(&["/bin/sh".to_owned()][..]));
    assert_eq!((details.size, details.repo_tags.as_slice()), (2, &["busy:1".to_owned()][..]));
    assert!(details.last_tagged_ns.is_some() && details.graph_driver.unwrap().upper.join("bin/sh").exists());
    assert_eq!(images.history("busy:1").unwrap()[0].comment, "hello");
    images.tag("busy:1", "other/name", "").unwrap();
    let list = images.list(&ListFilter { labels: vec!["a=b".into()], ..ListFilter::default() }).unwrap();
    assert_eq!(list[0].repo_tags, ["busy:1", "other/name:latest"]);
    let none = images.list(&ListFilter { references: vec!["x*".into()], ..ListFilter::default() }).unwrap();
    assert!(none.is_empty());
}

#[test]
fn a_container_writes_on_top_and_can_be_committed() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let base = import(&images, "base", &[("etc/", ""), ("etc/a", "1"), ("etc/b", "2"), ("d/", ""), ("d/x", "x")]);
    images.create_layer(CONTAINER, Some(&base)).unwrap();
    assert_eq!(images.create_layer(CONTAINER, Some(&base)).unwrap_err().kind(), Kind::Conflict);
    let merged = images.mount(CONTAINER, &[]).unwrap();
    assert_eq!(images.mount(CONTAINER, &[]).unwrap(), merged, "twice is once");
    assert!(
        merged.join("etc/hosts").exists() && merged.join("dev/pts").is_dir() && merged.join("etc/mtab").is_symlink()
    );
    assert!(change_list(&images).is_empty(), "mount points are no changes");

    fs::write(merged.join("etc/a"), "changed").unwrap();
    fs::remove_file(merged.join("etc/b")).unwrap();
    fs::remove_dir_all(merged.join("d")).unwrap();
    fs::create_dir(merged.join("d")).unwrap();
    fs::write(merged.join("d/new"), "n").unwrap();
    fs::create_dir(merged.join("fresh")).unwrap();
    assert_eq!(change_list(&images), ["C /d", "A /d/new", "D /d/x", "C /etc", "C /etc/a", "D /etc/b", "A /fresh"]);
    let size = images.layer_size(CONTAINER).unwrap();
    assert_eq!((size.writable_bytes, size.root_fs_bytes), (8, 11));

    let options = CommitOptions {
        name: Some(Reference::parse("child").unwrap()),
        changes: vec!["ENV A=1".into()],
        created_by: "sh".into(),
        ..CommitOptions::default()
    };
    let child = images.commit(CONTAINER, &options).unwrap();
    assert_eq!(images.config(&child).unwrap().config.env, ["A=1"]);
    assert_eq!(images.inspect("child").unwrap().parent, Some(base.clone()));
    images.create_layer(OTHER, Some(&child)).unwrap();
    let second = images.mount(OTHER, &[]).unwrap();
    assert_eq!(fs::read(second.join("etc/a")).unwrap(), b"changed");
    assert!(!second.join("etc/b").exists() && !second.join("d/x").exists() && second.join("d/new").exists());

    let mut exported = Vec::new();
    images.export(OTHER, &mut exported).unwrap();
    images.unmount(OTHER).unwrap();
    let mut again = Vec::new();
    images.export(OTHER, &mut again).unwrap();
    assert_eq!(exported, again, "mounted or not");
    images.remove_layer(OTHER).unwrap();
    images.remove_layer(OTHER).unwrap();

    // A new engine finds the mount of the old one, and the container's layer keeps its image's layers.
    drop(images);
    let images = Images::open(root.path()).unwrap();
    assert!(images.is_mounted(CONTAINER).unwrap());
    assert_eq!(images.container_layers(), [CONTAINER]);
    images.remove("child", false, true, &[]).unwrap();
    images.remove("base", false, true, &[]).unwrap();
    assert_eq!(fs::read(merged.join("etc/a")).unwrap(), b"changed");
    images.remove_layer(CONTAINER).unwrap();
    assert_eq!(images.disk_usage(), DiskUsage::default());
    assert!(on_disk(&images, root.path()).is_empty(), "{:?}", on_disk(&images, root.path()));
}

#[test]
fn many_layers_are_mounted_by_either_interface() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let mut lower = Vec::new();
    for n in 0..120 {
        let dir = images.shared.overlay.join(format!("{n:064}")).join("diff");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), "").unwrap();
        lower.push(dir);
    }
    let overlay = overlay::Overlay { base: &images.shared.overlay, lower: &lower, writable: None, extra: &[] };
    let target = root.path().join("target");
    fs::create_dir(&target).unwrap();
    for old in [false, true] {
        if old { overlay.mount_old(&target) } else { overlay.mount(&target) }.unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 120);
        overlay::unmount(&target).unwrap();
    }
}

#[test]
fn what_is_in_use_is_not_removed() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let id = import(&images, "a:1", &[("f", "x")]);
    let user = |running| [ImageUser { container: CONTAINER.into(), running, image: id.clone() }];
    let words = |outcome: Result<Vec<Removed>>| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        error.to_string()
    };
    let short = id.short();
    assert_eq!(
        words(images.remove("a:1", false, true, &user(false))),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container c0c0c0c0c0c0 is using its \
             referenced image {short}"
        )
    );
    assert_eq!(
        words(images.remove(short, true, true, &user(true))),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container c0c0c0c0c0c0"
        )
    );
    assert_eq!(
        words(images.remove(short, false, true, &user(false))),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container c0c0c0c0c0c0"
        )
    );
    images.tag("a:1", "b", "1").unwrap();
    assert_eq!(
        words(images.remove(short, false, true, &[])),
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories")
    );
    let untagged = images.remove("b:1", false, true, &user(true)).unwrap();
    assert_eq!(untagged, [Removed::Untagged { name: "b:1".into(), image: id.clone() }]);
    let removed = images.remove("a:1", false, true, &[]).unwrap();
    assert!(matches!(&removed[..], [Removed::Untagged { .. }, Removed::Image(gone), Removed::Layer(_)] if *gone == id));
    assert!(on_disk(&images, root.path()).is_empty());
    assert_eq!(images.remove("a:1", false, true, &[]).unwrap_err().to_string(), "No such image: a:1");
}

#[test]
fn prune_takes_what_has_no_name_or_no_container() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let first = import(&images, "a", &[("f", "first")]);
    let second = import(&images, "a", &[("f", "second!")]);
    let filter = PruneFilter { dangling: true, until_ns: None, labels: Vec::new(), without_labels: Vec::new() };
    let (removed, bytes) = images.prune(&filter, &[]).unwrap();
    assert!(removed.contains(&Removed::Image(first)) && bytes == 5);
    let users = [ImageUser { container: CONTAINER.into(), running: false, image: second.clone() }];
    let all = PruneFilter { dangling: false, ..filter };
    assert_eq!(images.prune(&all, &users).unwrap().0, []);
    assert_eq!(images.prune(&all, &[]).unwrap().1, 7);
    assert!(images.list(&ListFilter { all: true, ..ListFilter::default() }).unwrap().is_empty());
}

#[test]
fn what_is_saved_loads_again_the_same() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let base = import(&images, "base:1", &[("f", "one")]);
    images.create_layer(CONTAINER, Some(&base)).unwrap();
    fs::write(images.upper_dir(CONTAINER).unwrap().join("g"), "two").unwrap();
    let options = CommitOptions { name: Some(Reference::parse("child:1").unwrap()), ..CommitOptions::default() };
    let child = images.commit(CONTAINER, &options).unwrap();
    let mut archive = Vec::new();
    let names = ["base:1".to_owned(), "child".to_owned()];
    images.save(&names, &mut archive).unwrap();

    let fresh = data_root();
    let loaded_into = Images::open(fresh.path()).unwrap();
    let mut told = Vec::new();
    let loaded = loaded_into.load(&gzip(&archive)[..], &mut |p| told.push(p)).unwrap();
    assert_eq!(loaded.iter().map(|l| l.id.clone()).collect::<Vec<_>>(), [base.clone(), child.clone()]);
    assert!(told.iter().any(|p| p.stream == "Loaded image: child:1\n"));
    assert!(told.iter().any(|p| p.status == "Loading layer" && p.bytes.is_some()));
    assert_eq!(loaded_into.inspect("child:1").unwrap().parent, Some(base));
    let mut again = Vec::new();
    loaded_into.save(&names, &mut again).unwrap();
    assert_eq!(archive, again, "byte for byte");

    // The same archive as an OCI layout only.
    let plain = tempfile::tempdir().unwrap();
    archive::unpack(&archive[..], plain.path(), &archive::UnpackOptions::default()).unwrap();
    fs::remove_file(plain.path().join("manifest.json")).unwrap();
    let mut oci = TarWriter::new(Vec::new());
    archive::pack(plain.path(), &mut oci, &archive::PackOptions::default()).unwrap();
    let oci = zstd::encode_all(&oci.finish().unwrap()[..], 1).unwrap();
    let third = data_root();
    let images = Images::open(third.path()).unwrap();
    images.load(&oci[..], &mut |_| {}).unwrap();
    assert_eq!(images.resolve("child:1").unwrap(), child);
}

#[test]
fn a_bad_archive_is_refused_whole() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let layer = tar(&[("f", "x")]);
    let diff = Digest::of(&layer);
    let config = |diff: &Digest| {
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#)
    };
    let list =
        |config: &str, layer: &str| format!(r#"[{{"Config":"{config}","RepoTags":["x:1"],"Layers":["{layer}"]}}]"#);
    let pack = |entries: Vec<(Entry, Vec<u8>)>| {
        let mut tar = TarWriter::new(Vec::new());
        for (entry, content) in entries {
            tar.append_bytes(&entry, &content).unwrap();
        }
        tar.finish().unwrap()
    };
    let file = |path: &str, content: &[u8]| (Entry::new(path, EntryKind::File, 0o644), content.to_vec());
    let good_config = config(&diff);
    let with = |extra: Vec<(Entry, Vec<u8>)>, config: &str, list: String| {
        let mut entries = vec![file("l.tar", &layer), file("c.json", config.as_bytes())];
        entries.extend(extra);
        entries.push(file("manifest.json", list.as_bytes()));
        pack(entries)
    };
    let link = |path: &str, target: &str| {
        (Entry { link: target.into(), ..Entry::new(path, EntryKind::Symlink, 0o777) }, Vec::new())
    };
    let evil_layer = pack(vec![file("ok", b""), file("../evil", b"")]);
    let evil_config = config(&Digest::of(&evil_layer));
    let other = Digest::of(b"other");
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("no manifest", pack(vec![file("x", b"")])),
        ("not an archive", b"hello".repeat(300)),
        ("truncated", with(vec![], &good_config, list("c.json", "l.tar"))[..1200].to_vec()),
        ("parent path", with(vec![file("../evil", b"x")], &good_config, list("c.json", "l.tar"))),
        ("absolute link", with(vec![link("p", "/etc/passwd")], &good_config, list("c.json", "l.tar"))),
        ("climbing link", with(vec![link("a/p", "../../x")], &good_config, list("c.json", "l.tar"))),
        (
            "device",
            with(
                vec![(Entry { device: (1, 3), ..Entry::new("n", EntryKind::CharDevice, 0o666) }, Vec::new())],
                &good_config,
                list("c.json", "l.tar"),
            ),
        ),
        ("wrong digest", with(vec![], &config(&other), list("c.json", "l.tar"))),
        ("outside config", with(vec![], &good_config, list("../../../../etc/passwd", "l.tar"))),
        ("missing layer", with(vec![], &good_config, list("c.json", "none.tar"))),
        ("evil layer", with(vec![file("e.tar", &evil_layer)], &evil_config, list("c.json", "e.tar"))),
        ("windows", with(vec![], &good_config.replace("linux", "windows"), list("c.json", "l.tar"))),
        ("length", with(vec![], &good_config, r#"[{"Config":"c.json","RepoTags":[],"Layers":[]}]"#.into())),
        ("null", with(vec![], &good_config, "null".into())),
    ];
    for (what, data) in bad {
        let error = images.load(&data[..], &mut |_| {}).expect_err(what);
        assert!(matches!(error.kind(), Kind::InvalidParameter), "{what}: {error}");
        assert!(on_disk(&images, root.path()).is_empty(), "{what}: {:?}", on_disk(&images, root.path()));
    }
    assert!(images.import(&evil_layer[..], &ImportOptions::default(), &mut |_| {}).is_err());
    assert!(on_disk(&images, root.path()).is_empty());
    // A relative link inside, as old archives have for a layer used twice, is fine.
    let linked = with(vec![link("dup/layer.tar", "../l.tar")], &good_config, list("c.json", "dup/layer.tar"));
    images.load(&linked[..], &mut |_| {}).unwrap();
    assert!(images.resolve("x:1").is_ok());
}

/// An index of sixty times the same index of sixty times the same …: reading each as often as it is named would take hours.
#[test]
fn an_archive_cannot_multiply_itself() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let mut files = Vec::new();
    let mut inner = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
    for _ in 0..5 {
        let digest = Digest::of(inner.as_bytes());
        let entry = format!(r#"{{"digest":"{digest}","size":{}}}"#, inner.len());
        files.push((format!("blobs/sha256/{}", digest.hex()), inner));
        inner = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry; 60].join(","));
    }
    files.push(("index.json".to_owned(), inner));
    let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
    let error = images.load(&tar(&files)[..], &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

#[test]
fn leftovers_go_and_damage_is_set_aside() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let good = import(&images, "good", &[("f", "x")]);
    let bad = import(&images, "bad", &[("f", "y")]);
    let clean = on_disk(&images, root.path());
    drop(images);
    let junk = "e".repeat(64);
    fs::create_dir_all(root.path().join(format!("overlay2/{junk}/diff/deep"))).unwrap();
    fs::create_dir_all(root.path().join("overlay2/.staging-x/diff")).unwrap();
    fs::write(root.path().join(format!("content/blobs/sha256/{junk}")), "").unwrap();
    fs::write(root.path().join("content/ingest/half"), "").unwrap();
    let images = Images::open(root.path()).unwrap();
    assert_eq!(on_disk(&images, root.path()), clean);
    drop(images);

    fs::write(root.path().join("content/blobs/sha256").join(bad.hex()), "{}").unwrap();
    let images = Images::open(root.path()).unwrap();
    assert_eq!(images.resolve("good").unwrap(), good);
    assert_eq!(images.resolve("bad").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(import(&images, "bad", &[("f", "z")]), images.resolve("bad").unwrap());
}

#[test]
fn container_ids_are_not_paths() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    for id in ["", "..", "../../etc", "abc", &"A".repeat(64)] {
        assert_eq!(images.create_layer(id, None).unwrap_err().kind(), Kind::InvalidParameter);
        assert_eq!(images.remove_layer(id).unwrap_err().kind(), Kind::InvalidParameter);
    }
    images.create_layer(CONTAINER, None).unwrap();
    assert!(images.mount(CONTAINER, &[]).unwrap().join("proc").is_dir());
    images.remove_layer(CONTAINER).unwrap();
    assert_eq!(images.mount(CONTAINER, &[]).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_full_disk_is_an_error_and_nothing_else() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let root = data_root();
    mount("tmpfs", root.path(), "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
    let images = Images::open(root.path()).unwrap();
    let kept = import(&images, "kept", &[("f", "x")]);
    let before = on_disk(&images, root.path());
    let big = "x".repeat(4 << 20);
    let error = images.import(&tar(&[("big", &big)])[..], &ImportOptions::default(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert_eq!(on_disk(&images, root.path()), before);
    import(&images, "after", &[("f", "y")]);
    drop(images);
    let images = Images::open(root.path()).unwrap();
    assert_eq!(images.resolve("kept").unwrap(), kept);
    images.resolve("after").unwrap();
    drop(images);
    unmount(root.path(), UnmountFlags::DETACH).unwrap();
}

/// Prints what a container's layer costs; a look, not a test.
#[test]
#[ignore = "prints times"]
fn the_price_of_a_containers_layer() {
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let id = import(&images, "a", &[("f", "x")]);
    let mut times = [std::time::Duration::ZERO; 4];
    for _ in 0..200 {
        let start = std::time::Instant::now();
        images.create_layer(CONTAINER, Some(&id)).unwrap();
        let created = start.elapsed();
        images.mount(CONTAINER, &[]).unwrap();
        let mounted = start.elapsed();
        images.unmount(CONTAINER).unwrap();
        let unmounted = start.elapsed();
        images.remove_layer(CONTAINER).unwrap();
        let parts = [created, mounted - created, unmounted - mounted, start.elapsed() - unmounted];
        times.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part / 200);
    }
    println!("create, mount, unmount, remove: {times:?}");
}
