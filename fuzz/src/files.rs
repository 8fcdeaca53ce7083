//! Targets of parsers that have a public face, and of those that read files: these get the bytes in a scratch directory
//! of their own.

use std::fs;
use std::path::Path;

use prost::Message;

/// Gives `work` an empty directory.
fn scratch(work: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("make a folder");
    work(dir.path());
}

fn write(path: &Path, data: &[u8]) {
    fs::create_dir_all(path.parent().expect("a path with a folder")).expect("make a folder");
    fs::write(path, data).expect("write a file");
}

/// Any bytes unpacked, in every mode: nothing may appear outside of the directory.
pub(crate) fn archive_unpack(data: &[u8]) {
    scratch(|outside| {
        let inside = outside.join("inside");
        fs::create_dir(&inside).expect("make a folder");
        archive::fuzz_unpack(data, &inside);
        assert_eq!(fs::read_dir(outside).expect("read a folder").count(), 1, "something was written outside");
    });
}

/// How a checkpoint wants to be restored.
pub(crate) fn checkpoint_options(data: &[u8]) {
    scratch(|dir| {
        write(&dir.join(runc::checkpoint::OPTIONS), data);
        if let Ok(Some(options)) = runc::checkpoint::options::Options::load(dir) {
            let text = options.encode().expect("encode options");
            write(&dir.join(runc::checkpoint::OPTIONS), &text);
            let again = runc::checkpoint::options::Options::load(dir).expect("read what was written");
            assert_eq!(again, Some(options));
        }
    });
}

/// A bundle's configuration, of either generation.
pub(crate) fn containerd_bundle(data: &[u8]) {
    scratch(|dir| containerd::fuzz::bundle(data, dir).expect("use a folder"));
}

/// The event journal.
pub(crate) fn containerd_journal(data: &[u8]) {
    scratch(|dir| containerd::fuzz::journal(data, dir).expect("use a folder"));
}

/// CRIU's log.
pub(crate) fn criu_log(data: &[u8]) {
    scratch(|dir| {
        let path = dir.join("dump.log");
        write(&path, data);
        let error = criu::explain::first_error(&path);
        let _ = criu::explain::sentence(error.as_deref());
    });
}

/// Where the pages of a task are: the ranges follow each other, and none lies outside of the pages file.
pub(crate) fn criu_pagemap(data: &[u8]) {
    scratch(|dir| {
        write(&dir.join("pagemap-1.img"), data);
        assert_eq!(criu::pagemap::tasks(dir).expect("list a folder"), [1]);
        let images = fs::File::open(dir).expect("open a folder");
        let Ok(map) = criu::pagemap::Pagemap::read(&images, 1) else { return };
        let mut end = 0;
        for range in &map.lazy {
            assert!(end <= range.start && range.start < range.end, "{range:?} after {end}");
            assert!(range.offset + (range.end - range.start) <= map.file_bytes, "{range:?} of {}", map.file_bytes);
            end = range.end;
        }
        assert!(map.lazy_bytes() <= map.file_bytes);
    });
}

/// CRIU's answers.
pub(crate) fn criu_response(data: &[u8]) {
    if let Ok(response) = criu::rpc::Response::decode(data) {
        let _ = criu::explain::failure(&response, Path::new("/nonexistent"));
    }
}

/// What CRIU measured.
pub(crate) fn criu_stats(data: &[u8]) {
    scratch(|dir| {
        write(&dir.join("stats-dump"), data);
        write(&dir.join("stats-restore"), data);
        let _ = (criu::stats::dump(dir), criu::stats::restore(dir));
    });
}

/// The users of an image.
pub(crate) fn daemon_users(data: &[u8]) {
    scratch(|dir| daemon::containers::fuzz::users(data, dir).expect("use a folder"));
}

/// daemon.json.
pub(crate) fn dockerd_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = dockerd::options::file::merge_text(&dockerd::options::Options::default(), text);
}

/// An archive of `docker save`, or an OCI layout: nothing may appear outside of the directory.
pub(crate) fn images_archive(data: &[u8]) {
    scratch(|outside| {
        let inside = outside.join("inside");
        fs::create_dir(&inside).expect("make a folder");
        let _ = images::fuzz::archive(data, &inside);
        assert_eq!(fs::read_dir(outside).expect("read a folder").count(), 1, "something was written outside");
    });
}

/// Addresses to listen on.
pub(crate) fn listeners_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for address in [
        listeners::Address::parse(text, false),
        listeners::Address::parse(text, true),
        listeners::Address::parse_complete(text),
    ] {
        if let Ok(listeners::Address::Tcp { host, port }) = address {
            assert!(port != 0 && !host.is_empty());
        }
    }
}

/// Log options, a line each.
pub(crate) fn logs_options(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        logs::fuzz::options(text);
    }
}

/// The runtime's reading of a bundle.
pub(crate) fn runc_config(data: &[u8]) {
    scratch(|dir| {
        fs::create_dir(dir.join("rootfs")).expect("make a folder");
        write(&dir.join("config.json"), data);
        if let Ok(spec) = runc::spec::load(dir) {
            let _ = runc::launch::namespaces::Namespaces::of(&spec);
        }
    });
}

/// The runtime's reading of a process to add.
pub(crate) fn runc_process(data: &[u8]) {
    scratch(|dir| {
        let path = dir.join("process.json");
        write(&path, data);
        let _ = runc::spec::load_process(&path);
    });
}

/// The runtime's own state.
pub(crate) fn runc_state(data: &[u8]) {
    scratch(|root| {
        write(&root.join("c1/state.json"), data);
        write(&root.join("c1/config.json"), data);
        let _ = runc::state::Container::all(root);
        if let Ok(container) = runc::state::Container::open(root, "c1") {
            let _ = container.spec();
        }
    });
}
