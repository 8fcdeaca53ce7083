//! A checkpoint that is not what it was, or not this container's: refused with the reason, before the container is touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use e2e::{Counter, Engine};
use serde_json::Value;

/// A container that was put to sleep into a folder of its own, and the checkpoint there.
fn asleep(engine: &Engine, name: &str) -> (PathBuf, PathBuf) {
    let folder = engine.home().join(format!("naps-{name}"));
    fs::create_dir(&folder).expect("make a folder");
    let counter = Counter::run(engine, name, "--network none");
    engine.ok(&format!("docker checkpoint create --checkpoint-dir {} {name} nap", folder.display()));
    drop(counter);
    let id = engine.inspect(name, "{{.Id}}");
    let place = folder.join(id).join("checkpoints/nap");
    (folder, place)
}

fn refused(engine: &Engine, name: &str, folder: &Path, why: &str) {
    let before = engine.inspect(name, "{{json .State}}");
    let command = format!("docker start --checkpoint nap --checkpoint-dir {} {name}", folder.display());
    engine.fails(&command).tells(why);
    assert_eq!(engine.inspect(name, "{{json .State}}"), before, "it was not touched");
}

fn pages(place: &Path) -> PathBuf {
    let entries = fs::read_dir(place).expect("read a checkpoint").flatten().map(|entry| entry.path());
    entries.into_iter().find(|path| path.to_string_lossy().contains("/pages-")).expect("there are pages")
}

#[test]
fn altered_files_are_refused() {
    let engine = Engine::start();
    let (folder, place) = asleep(&engine, "c1");
    let pages = pages(&place);
    let good = fs::read(&pages).expect("read pages");
    let core = place.join("inventory.img");
    let inventory = fs::read(&core).expect("read an image");
    let manifest = fs::read_to_string(place.join("manifest.json")).expect("read the manifest");
    let refused = |why: &str| refused(&engine, "c1", &folder, why);

    fs::write(&pages, &good[..100]).expect("write");
    refused("100 bytes instead of");
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&pages, &bad).expect("write");
    refused("is not what it was when the checkpoint was made");
    fs::write(&pages, &good).expect("write");

    fs::write(place.join("extra.img"), "").expect("write");
    refused("extra.img is not part of it");
    fs::remove_file(place.join("extra.img")).expect("remove");

    fs::remove_file(&core).expect("remove");
    refused("inventory.img is missing");
    symlink("/etc/hostname", &core).expect("link");
    refused("inventory.img is a symbolic link");
    fs::remove_file(&core).expect("remove");
    engine.ok(&format!("mkfifo {}", core.display()));
    refused("inventory.img is not a regular file");
    fs::remove_file(&core).expect("remove");
    fs::write(&core, &inventory).expect("write");

    fs::write(place.join("manifest.json"), manifest.replace("\"paused\": false", "\"paused\": true")).expect("write");
    refused("its manifest was altered");
    fs::write(place.join("manifest.json"), &manifest).expect("write");

    engine.ok(&format!("chmod o+w {}", pages.display()));
    refused("can be changed by others");
    engine.ok(&format!("chmod o-w {}", pages.display()));

    let aside = place.with_file_name("aside");
    fs::rename(&place, &aside).expect("rename");
    fs::create_dir(&place).expect("make a folder");
    refused("its manifest cannot be used");
    fs::remove_dir(&place).expect("remove");
    fs::rename(&aside, &place).expect("rename");

    // As it was again, though every file has been written to: that is what the digests are for.
    engine.ok(&format!("docker start --checkpoint nap --checkpoint-dir {} c1", folder.display()));
    assert_eq!(engine.ok("docker exec c1 echo awake"), "awake");
}

#[test]
fn one_of_another_kind_is_refused() {
    let engine = Engine::start();
    let (folder, place) = asleep(&engine, "c1");
    engine.ok("docker run --name changed busybox touch /new && docker commit changed other");
    engine.ok("docker create --name c2 other sleep 1000 && docker create -t --name c3 busybox sleep 1000");
    refused(&engine, "c2", &folder, "it was taken of a container of image");
    refused(&engine, "c3", &folder, "with a terminal");

    // An older format has no digests and no seal: what it says of its host counts.
    let text = fs::read_to_string(place.join("manifest.json")).expect("read the manifest");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["version"] = 1.into();
    for (_, file) in manifest["files"].as_object_mut().expect("files") {
        *file = file["sizeBytes"].clone();
    }
    let write = |manifest: &Value| fs::write(place.join("manifest.json"), manifest.to_string()).expect("write");
    let host = manifest["host"].clone();
    manifest["host"]["architecture"] = "vax".into();
    write(&manifest);
    refused(&engine, "c1", &folder, "it was made on a vax machine");
    manifest["host"] = host.clone();
    manifest["host"]["cpuFeatures"].as_array_mut().expect("features").push("avx9000".into());
    write(&manifest);
    refused(&engine, "c1", &folder, "features that this one lacks: avx9000");
    manifest["host"] = host;
    manifest["version"] = 99.into();
    write(&manifest);
    refused(&engine, "c1", &folder, "use a newer Dormouse");
    manifest["version"] = 1.into();
    write(&manifest);
    engine.ok(&format!("docker start --checkpoint nap --checkpoint-dir {} c1", folder.display()));
    engine.ok("docker start c2 && docker exec c2 true");
}

#[test]
fn among_our_own_nothing_foreign_is_woken() {
    let engine = Engine::start();
    Counter::run(&engine, "c1", "--network none");
    Counter::run(&engine, "c2", "--network none");
    engine.ok("docker checkpoint create c1 nap && docker checkpoint create c2 nap");
    let place = |name: &str| {
        let id = engine.inspect(name, "{{.Id}}");
        engine.data_root().join("containers").join(id).join("checkpoints/nap")
    };
    let (first, second) = (place("c1"), place("c2"));
    let aside = first.with_file_name("aside");
    for (from, to) in [(&first, &aside), (&second, &first), (&aside, &second)] {
        fs::rename(from, to).expect("rename");
    }
    engine.fails("docker start --checkpoint nap c1").tells("it was taken of container");
    let list = engine.get("/containers/c1/checkpoints").json();
    assert_eq!(list[0]["Valid"], false, "{list}");
    assert!(list[0]["Error"].as_str().expect("a reason").contains("it was taken of container"), "{list}");
    engine.ok("docker start c1 && docker exec c1 true");
}

#[test]
fn a_maker_that_was_killed_is_settled_in_a_checkpoint_dir_too() {
    let engine = Engine::start();
    let counter = Counter::run(&engine, "c1", "--network none");
    let folder = engine.home().join("naps");
    fs::create_dir(&folder).expect("make a folder");
    let at = folder.display();
    let mut making = engine.background("making", &format!("docker checkpoint create --checkpoint-dir {at} c1 nap"));
    let place = folder.join(engine.inspect("c1", "{{.Id}}")).join("checkpoints");
    e2e::eventually("it is being made", || fs::read_dir(&place).ok()?.next().map(drop));
    engine.kill_dockerd();
    making.ends();
    engine.boot();
    let staged = || {
        let entries = fs::read_dir(&place).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count()
    };
    e2e::eventually("it is settled", || (staged() == 0).then_some(()));
    e2e::eventually("it runs, or sleeps and can be woken", || {
        if engine.inspect("c1", "{{.State.Running}}") == "false" {
            engine.ok(&format!("docker start --checkpoint nap --checkpoint-dir {at} c1"));
        }
        Some(())
    });
    counter.goes_on();
}
