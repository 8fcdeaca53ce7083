//! Image archives that were made to do harm are refused whole and leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use e2e::{Compression, Engine, ImageArchive, Layer, ScriptedRegistry, Trick, eventually_seen};

/// Every file below the image store's folders.
fn stored(engine: &Engine) -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            found.insert(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = BTreeSet::new();
    for folder in ["content", "overlay2"] {
        walk(&engine.data_root().join(folder), &mut found);
    }
    found
}

#[track_caller]
fn is_refused(engine: &Engine, what: &str, archive: &[u8]) {
    let before = stored(engine);
    let images = engine.ok("docker images -aq");
    let done = engine.run_with_input("docker load", archive);
    assert_ne!(done.code, 0, "{what} was loaded\n{}", done.report());
    assert_eq!(engine.ok("docker images -aq"), images, "{what} left an image");
    // What is refused is out of the store at once, and deleted a moment later.
    let left = || format!("{:?}", stored(engine).difference(&before).collect::<Vec<_>>());
    eventually_seen(format!("{what} leaves no files"), left, |left| left == "[]");
    assert_eq!(engine.ok("docker run --rm busybox echo fine"), "fine", "after {what}");
}

fn of(layer: Layer) -> Vec<u8> {
    ImageArchive::new(vec![layer], &["sh"]).docker_archive("wicked:1")
}

#[test]
fn layers_that_reach_outside_are_refused() {
    let engine = Engine::start();
    let outside = engine.home().join("outside");
    fs::create_dir(&outside).expect("create a folder");
    let target = outside.display().to_string();
    let depth = "../".repeat(12);
    let up = format!("{depth}{}", &target[1..]);
    is_refused(&engine, "a name with ..", &of(Layer::new().file(&format!("{up}/a"), "x")));
    is_refused(&engine, "a name with .. inside", &of(Layer::new().directory("d/").file("d/../../../b", "x")));
    is_refused(&engine, "a hard link to the outside", &of(Layer::new().hard_link("h", &format!("{depth}etc/passwd"))));
    is_refused(&engine, "a hard link with ..", &of(Layer::new().hard_link("h", "../../etc/passwd")));
    assert_eq!(fs::read_dir(&outside).expect("read a folder").count(), 0, "something was written outside");
}

#[test]
fn links_are_not_followed_while_unpacking() {
    let engine = Engine::start();
    let outside = engine.home().join("outside");
    fs::create_dir(&outside).expect("create a folder");
    let target = outside.display().to_string();
    // Such a link is legal; writing through it is not. Refusing and staying inside are both right.
    for link in [target.clone(), format!("{}{}", "../".repeat(12), &target[1..])] {
        let layer = Layer::new().symlink("door", &link).file("door/a", "x");
        let _ = engine.run_with_input("docker load", &of(layer));
        let image = ImageArchive::new(
            vec![Layer::new().symlink("door", &link), Layer::new().file("door/b", "x").file("door/.wh.c", "")],
            &["sh"],
        );
        let _ = engine.run_with_input("docker load", &image.docker_archive("wicked:2"));
        assert_eq!(fs::read_dir(&outside).expect("read a folder").count(), 0, "written through a link to {link}");
    }
}

#[test]
fn whiteouts_cannot_delete_outside() {
    let engine = Engine::start();
    let victim = engine.home().join("victim");
    fs::write(&victim, "precious").expect("write a file");
    let up = format!("{}{}", "../".repeat(12), &engine.home().display().to_string()[1..]);
    is_refused(&engine, "a whiteout with ..", &of(Layer::new().file(&format!("{up}/.wh.victim"), "")));
    is_refused(&engine, "a whiteout of ..", &of(Layer::new().directory("d/").file("d/.wh...", "")));
    is_refused(&engine, "a whiteout of nothing", &of(Layer::new().file(".wh.", "")));
    assert_eq!(fs::read_to_string(&victim).expect("read a file"), "precious");
}

#[test]
fn content_that_does_not_match_its_digest_is_refused() {
    let engine = Engine::start();
    let image = ImageArchive::runnable(Layer::new().file("a", "b"));
    for (what, place) in [("an altered layer", 1), ("an altered configuration", 2), ("an altered manifest", 3)] {
        for compression in [Compression::None, Compression::Gzip] {
            let archive = image.oci_archive("wrong:1", compression, |at, bytes| {
                if at == place {
                    let last = bytes.len() - 1;
                    bytes[last] ^= 0x20;
                }
            });
            is_refused(&engine, what, &archive);
        }
    }
    // The diff IDs of the configuration, which the docker format has nothing else to check by.
    let honest = ImageArchive::new(vec![Layer::new().file("a", "b")], &["sh"]).docker_archive("wrong:2");
    let at = honest.windows(10).position(|bytes| bytes == b"diff_ids\":").expect("the configuration is in the archive");
    let mut archive = honest;
    let digit = at + 25;
    archive[digit] = if archive[digit] == b'0' { b'1' } else { b'0' };
    is_refused(&engine, "a wrong diff ID", &archive);
}

#[test]
fn what_is_no_archive_is_refused() {
    let engine = Engine::start();
    is_refused(&engine, "text", b"this is not a tar archive");
    is_refused(&engine, "nothing", b"");
    is_refused(&engine, "zeroes", &[0; 10240]);
    let whole = ImageArchive::runnable(Layer::new()).docker_archive("cut:1");
    is_refused(&engine, "half an archive", &whole[..whole.len() / 2]);
    let done = engine.run_with_input("docker import - made", b"this is not a tar archive either");
    assert_ne!(done.code, 0, "text was imported\n{}", done.report());
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    let engine = Engine::start();
    let image = ImageArchive::runnable(Layer::new().file("a", "b"));
    for trick in [Trick::AlterLayers, Trick::LengthenLayers, Trick::AlterManifest] {
        let before = stored(&engine);
        let registry = ScriptedRegistry::serve(&image, trick.clone());
        let by_digest = format!("{}@{}", registry.image_name(), registry.top_digest());
        engine.fails(&format!("docker pull {by_digest}"));
        if trick != Trick::AlterManifest {
            engine.fails(&format!("docker pull {}", registry.image_name()));
        }
        assert_eq!(engine.ok("docker images --format '{{.Repository}}'"), "busybox", "{trick:?} left an image");
        let left: Vec<String> = stored(&engine).difference(&before).cloned().collect();
        assert!(left.is_empty(), "{trick:?} left files: {left:?}");
    }
}
