//! Images without a registry: import, load, save, tag, list, look at, remove.

use e2e::{Compression, Engine, ImageArchive, Layer};

#[test]
fn an_imported_image_has_what_was_given() {
    let engine = Engine::start();
    assert_eq!(engine.ok("docker images --format '{{.Repository}}:{{.Tag}}'"), "busybox:latest");
    let image = engine.inspect_json("busybox");
    assert_eq!(image["RepoTags"][0], "busybox:latest");
    assert_eq!(image["Config"]["Cmd"][0], "sh");
    assert!(image["Config"]["Env"][0].as_str().is_some_and(|path| path.starts_with("PATH=")), "{image}");
    assert_eq!(image["Os"], "linux");
    assert_eq!(image["RootFS"]["Type"], "layers");
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    assert!(image["Id"].as_str().is_some_and(|id| id.starts_with("sha256:") && id.len() == 71), "{image}");
    assert!(image["Size"].as_u64().is_some_and(|size| size > 1_000_000), "{image}");
    assert!(engine.ok("docker history busybox").contains("Imported from"), "the history says where it came from");
    let id = engine.ok("docker images -q --no-trunc");
    assert_eq!(image["Id"], id.as_str());
    // An image goes by any unambiguous beginning of its id, with and without the algorithm.
    assert_eq!(engine.inspect(&id[7..19], "{{.Id}}"), id);
    assert_eq!(engine.inspect(&id, "{{index .RepoTags 0}}"), "busybox:latest");
}

#[test]
fn import_reads_standard_input_and_takes_a_message_and_changes() {
    let engine = Engine::start();
    let id = engine
        .ok("tar -C /etc -cf - hostname | docker import -m 'a word' -c 'LABEL a=b' -c 'WORKDIR /tmp' -c 'EXPOSE 80' \
         -c 'ENTRYPOINT [\"/x\"]' -c 'USER 5' -c 'VOLUME /data' - made:1");
    assert!(id.starts_with("sha256:"), "{id}");
    let image = engine.inspect_json("made:1");
    assert_eq!(image["Comment"], "a word");
    assert_eq!(image["Config"]["Labels"]["a"], "b");
    assert_eq!(image["Config"]["WorkingDir"], "/tmp");
    assert_eq!(image["Config"]["User"], "5");
    assert_eq!(image["Config"]["Entrypoint"][0], "/x");
    assert!(image["Config"]["ExposedPorts"]["80/tcp"].is_object(), "{image}");
    assert!(image["Config"]["Volumes"]["/data"].is_object(), "{image}");
}

#[test]
fn tags_come_and_go() {
    let engine = Engine::start();
    engine.ok("docker tag busybox example.com:5000/team/box:v1");
    assert_eq!(
        engine.ok("docker images --format '{{.Repository}} {{.Tag}}' example.com:5000/team/box"),
        "example.com:5000/team/box v1"
    );
    assert_eq!(engine.ok("docker images -q | sort -u | wc -l"), "1");
    assert_eq!(engine.ok("docker rmi example.com:5000/team/box:v1"), "Untagged: example.com:5000/team/box:v1");
    engine.fails("docker tag busybox UPPER").says("invalid reference format");
    engine.fails("docker tag nope:1 other").says("No such image: nope:1");
    engine.fails("docker rmi nope").says_one_of(&["No such image: nope:latest", "Error: No such image: nope\n"]);
    engine.fails("docker image inspect nope").says("No such image: nope");
    let removed = engine.ok("docker rmi busybox");
    assert!(removed.contains("Untagged: busybox:latest") && removed.contains("Deleted: sha256:"), "{removed}");
    assert_eq!(engine.ok("docker images -q"), "");
}

#[test]
fn an_image_in_use_is_not_removed() {
    let engine = Engine::start();
    engine.ok("docker run -d --name user busybox sleep 100");
    engine.fails("docker rmi busybox").says("conflict: unable to");
    let id = engine.inspect("busybox", "{{.Id}}");
    engine.fails(&format!("docker rmi -f {id}")).says("conflict: unable to delete");
    engine.ok("docker exec user true");
    engine.ok("docker rm -f user");
    engine.ok("docker rmi busybox");
}

#[test]
fn save_and_load_give_the_same_image_back() {
    let engine = Engine::start();
    engine.ok("docker tag busybox second:2");
    let id = engine.inspect("busybox", "{{.Id}}");
    engine.ok("docker save -o all.tar busybox second:2");
    let listing = engine.ok("tar tf all.tar");
    for name in ["manifest.json", "index.json", "oci-layout", "blobs/sha256/"] {
        assert!(listing.lines().any(|line| line.starts_with(name)), "{name} is not in the archive:\n{listing}");
    }
    engine.ok("docker rmi busybox second:2");
    let loaded = engine.ok("docker load -i all.tar");
    assert!(loaded.contains("Loaded image: busybox:latest") && loaded.contains("Loaded image: second:2"), "{loaded}");
    assert_eq!(engine.inspect("second:2", "{{.Id}}"), id);
    assert_eq!(engine.ok("docker run --rm busybox echo works"), "works");
    for compressor in ["gzip -1", "zstd -1"] {
        if engine.run(&format!("command -v {}", compressor.split(' ').next().unwrap_or(""))).code != 0 {
            continue;
        }
        engine.ok("docker rmi -f $(docker images -q)");
        engine.ok(&format!("{compressor} <all.tar >all.compressed && docker load -q <all.compressed"));
        assert_eq!(engine.inspect("busybox", "{{.Id}}"), id, "after {compressor}");
    }
}

#[test]
fn archives_of_both_formats_and_all_compressions_load() {
    let engine = Engine::with().without_image().start();
    let image = || ImageArchive::runnable(Layer::new().file("greeting", "good day\n"));
    let mut archives = vec![("docker", image().docker_archive("hand:made"))];
    for (name, compression) in [("plain", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]
    {
        archives.push((name, image().oci_archive("hand:made", compression, |_, _| {})));
    }
    for (name, archive) in archives {
        let done = engine.run_with_input("docker load", &archive);
        assert_eq!(done.code, 0, "{name}: {}", done.report());
        assert!(done.stdout.contains("Loaded image: hand:made"), "{name}: {}", done.report());
        assert_eq!(engine.ok("docker run --rm hand:made cat /greeting"), "good day", "{name}");
        engine.ok("docker rmi hand:made");
    }
}

#[test]
fn upper_layers_hide_what_they_delete() {
    let engine = Engine::with().without_image().start();
    let busybox = std::fs::read("/bin/busybox").expect("read the machine's busybox");
    let base = Layer::new()
        .directory("bin/")
        .program("bin/busybox", &busybox)
        .symlink("bin/sh", "busybox")
        .symlink("bin/ls", "busybox")
        .symlink("bin/cat", "busybox")
        .file("gone", "1")
        .file("changed", "old")
        .directory("emptied/")
        .file("emptied/a", "1")
        .file("emptied/b", "2")
        .file("replaced", "a file");
    let upper = Layer::new()
        .file(".wh.gone", "")
        .file("changed", "new")
        .directory("emptied/")
        .file("emptied/.wh..wh..opq", "")
        .file("emptied/c", "3")
        .directory("replaced/")
        .file("replaced/inside", "x");
    let image = ImageArchive::new(vec![base, upper], &["sh"]);
    let done = engine.run_with_input("docker load", &image.docker_archive("layers:1"));
    assert_eq!(done.code, 0, "{}", done.report());
    assert_eq!(engine.ok("docker run --rm layers:1 ls /emptied"), "c");
    assert_eq!(engine.ok("docker run --rm layers:1 cat /changed"), "new");
    assert_eq!(engine.ok("docker run --rm layers:1 ls /replaced"), "inside");
    engine.fails("docker run --rm layers:1 cat /gone");
    assert_eq!(engine.ok("docker history -q --no-trunc layers:1 | wc -l"), "2");
}

#[test]
fn lists_filter_and_format() {
    let engine = Engine::start();
    engine.ok("docker tag busybox a/b:1 && docker tag busybox a/c:2");
    let names = |flags: &str| {
        let mut lines: Vec<String> = engine
            .ok(&format!("docker images {flags} --format '{{{{.Repository}}}}:{{{{.Tag}}}}'"))
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines.join(" ")
    };
    assert_eq!(names(""), "a/b:1 a/c:2 busybox:latest");
    assert_eq!(names("--filter reference='a/*'"), "a/b:1 a/c:2");
    assert_eq!(names("--filter reference='*:latest'"), "busybox:latest");
    assert_eq!(names("--filter dangling=true"), "");
    assert_eq!(names("--filter label=none"), "");
    // A name that moves on leaves the old image without one.
    engine.ok("tar -C /etc -cf - hostname | docker import - a/b:1");
    engine.ok("tar -C /etc -cf - hosts | docker import - a/b:1");
    assert_eq!(engine.ok("docker images -q --filter dangling=true | wc -l"), "1");
    let before = engine.ok("docker images -q --no-trunc a/b:1");
    assert_eq!(names("--filter before=a/b:1 --filter reference='a/*'"), "a/c:2", "{before}");
    engine.fails("docker images --filter nonsense=1").says("invalid filter 'nonsense'");
    let pruned = engine.ok("docker image prune -f");
    assert!(pruned.contains("Deleted Images:") && pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(engine.ok("docker images -q --filter dangling=true"), "");
}
