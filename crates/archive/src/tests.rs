//! Trees there and back, and hostile archives, made here byte by byte.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (entry, content) in entries {
        tar.append_bytes(entry, content).unwrap();
    }
    tar.finish().unwrap()
}

fn file(path: &str) -> Entry {
    Entry::new(path, EntryKind::File, 0o644)
}

fn link(path: &str, kind: EntryKind, target: &str) -> Entry {
    Entry { link: target.into(), ..Entry::new(path, kind, 0o777) }
}

fn unpack_all(entries: &[(Entry, &[u8])], dir: &Path, whiteouts: Whiteouts) -> Result<Unpacked> {
    unpack(&archive(entries)[..], dir, &UnpackOptions { whiteouts, ..UnpackOptions::default() })
}

fn listing(data: &[u8]) -> Vec<Entry> {
    let mut tar = TarReader::new(data, Limits::default());
    std::iter::from_fn(|| tar.next_entry().unwrap()).collect()
}

fn packed(dir: &Path, options: &PackOptions) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    pack(dir, &mut tar, options).unwrap();
    tar.finish().unwrap()
}

#[test]
fn a_tree_goes_there_and_back_unchanged() {
    let from = tempfile::tempdir().unwrap();
    let long = "x".repeat(200);
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d").join(&long), b"hello").unwrap();
    fs::write(from.path().join("d/umläut"), vec![7; 1000]).unwrap();
    fs::hard_link(from.path().join("d/umläut"), from.path().join("z")).unwrap();
    fs::set_permissions(from.path().join("z"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("/etc/passwd", from.path().join("d/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.path().join("null"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    std::os::unix::fs::chown(from.path().join("d"), Some(3_000_000), Some(7)).unwrap();
    xattr::set(from.path().join("z"), "user.note", b"a\0b").unwrap();
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(from.path().join("z"), "security.capability", &cap).unwrap();

    let options = PackOptions { nanoseconds: true, root_entry: true, ..PackOptions::default() };
    let tar = packed(from.path(), &options);
    let to = tempfile::tempdir().unwrap();
    let done = unpack(&tar[..], to.path(), &UnpackOptions::default()).unwrap();
    assert_eq!(done.content_bytes, 1005);
    assert_eq!(packed(to.path(), &options), tar, "the same tree gives the same bytes");

    let z = fs::metadata(to.path().join("z")).unwrap();
    assert_eq!(z.mode() & 0o7777, 0o4755);
    assert_eq!(z.ino(), fs::metadata(to.path().join("d/umläut")).unwrap().ino());
    assert_eq!(xattr::get(to.path().join("z"), "security.capability").unwrap().unwrap(), cap);
    assert_eq!(fs::metadata(to.path().join("d")).unwrap().uid(), 3_000_000);
    assert_eq!(fs::metadata(to.path().join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    assert!(fs::metadata(to.path().join("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn other_programs_read_what_is_written() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("a".repeat(150)), b"one").unwrap();
    fs::write(from.path().join("b"), b"two").unwrap();
    let tar = packed(from.path(), &PackOptions { prefix: b"top".to_vec(), ..PackOptions::default() });
    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("t.tar"), &tar).unwrap();
    let ok = std::process::Command::new("tar").arg("-xf").arg("t.tar").current_dir(to.path()).status().unwrap();
    assert!(ok.success());
    assert_eq!(fs::read(to.path().join("top/b")).unwrap(), b"two");
    assert_eq!(fs::read(to.path().join("top").join("a".repeat(150))).unwrap(), b"one");
}

#[test]
fn what_other_programs_write_is_read() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir_all(from.path().join("t/sub")).unwrap();
    fs::write(from.path().join("t/sub").join("n".repeat(120)), b"long").unwrap();
    symlink("q".repeat(130), from.path().join("t/s")).unwrap();
    for format in ["gnu", "pax", "ustar", "oldgnu"] {
        for compression in ["--no-auto-compress", "-z", "-j", "-J", "--zstd"] {
            let out = std::process::Command::new("tar")
                .args([compression, &format!("--format={format}"), "-cf", "-", "-C"])
                .arg(from.path())
                .args(if format == "ustar" { &["t/sub"][..] } else { &["t"][..] })
                .output()
                .unwrap();
            if !out.status.success() {
                continue; // that compressor is not installed
            }
            let to = tempfile::tempdir().unwrap();
            let plain = compression::decompress(&out.stdout[..]).unwrap();
            unpack(plain, to.path(), &UnpackOptions::default()).unwrap();
            let read = fs::read(to.path().join("t/sub").join("n".repeat(120))).unwrap();
            assert_eq!(read, b"long", "{format} {compression}");
        }
    }
}

#[test]
fn nothing_leaves_the_directory() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(outer.path().join("victim"), b"safe").unwrap();

    for path in ["../evil", "a/../../evil", "./../evil", "a/.."] {
        let error = unpack_all(&[(file(path), b"x")], &root, Whiteouts::None).unwrap_err();
        assert!(matches!(error, Error::Escape { .. }), "{path}: {error}");
    }
    // An absolute path is the root's; through a link one stays inside.
    unpack_all(&[(file("/abs"), b"x")], &root, Whiteouts::None).unwrap();
    assert!(root.join("abs").exists());
    let up = outer.path().to_str().unwrap();
    for target in [up, "../..", "/"] {
        let entries = [(link("out", EntryKind::Symlink, target), &b""[..]), (file("out/victim"), b"evil")];
        let _ = unpack_all(&entries, &root, Whiteouts::None);
        assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"safe", "{target}");
        let _ = fs::remove_file(root.join("out"));
    }
    // A file entry replaces a link, it does not write through it.
    symlink(outer.path().join("victim"), root.join("l")).unwrap();
    unpack_all(&[(file("l"), b"evil")], &root, Whiteouts::None).unwrap();
    assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"safe");
    assert!(!root.join("l").is_symlink());
    // Hard links.
    for target in ["../victim", &format!("{up}/victim")] {
        let entries = [(link("h", EntryKind::HardLink, target), &b""[..]), (file("h"), b"evil")];
        assert!(unpack_all(&entries, &root, Whiteouts::None).is_err(), "{target}");
    }
    symlink("../", root.join("up")).unwrap();
    fs::remove_file(root.join("victim")).unwrap();
    assert!(unpack_all(&[(link("h", EntryKind::HardLink, "up/victim"), b"")], &root, Whiteouts::None).is_err());
    // Whiteouts.
    for path in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        assert!(unpack_all(&[(file(path), b"")], &root, Whiteouts::Apply).is_err(), "{path}");
    }
    symlink("..", root.join("up2")).unwrap();
    let _ = unpack_all(&[(file("up2/.wh.victim"), b"")], &root, Whiteouts::Apply);
    assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"safe");
    assert_eq!(fs::metadata(outer.path().join("victim")).unwrap().nlink(), 1);
}

#[test]
fn damaged_archives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = archive(&[(file("a"), &[1; 700][..])]);
    for cut in [100, 512, 600, 1400] {
        let error = unpack(&good[..cut], dir.path(), &UnpackOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Truncated), "{cut}: {error}");
    }
    let mut bad = good.clone();
    bad[0] ^= 1;
    assert!(matches!(unpack(&bad[..], dir.path(), &UnpackOptions::default()), Err(Error::Invalid(_))));
    // No end mark is fine; nothing at all as well.
    unpack(&good[..good.len() - 1024], dir.path(), &UnpackOptions::default()).unwrap();
    unpack(&[][..], dir.path(), &UnpackOptions::default()).unwrap();

    let small = Limits { max_entries: 1, max_bytes: 1 << 20 };
    let options = UnpackOptions { limits: small, ..UnpackOptions::default() };
    let two = archive(&[(file("a"), b""), (file("b"), b"")]);
    assert!(matches!(unpack(&two[..], dir.path(), &options), Err(Error::TooLarge(_))));
    let options = UnpackOptions { limits: Limits { max_entries: 9, max_bytes: 1024 }, ..options };
    assert!(matches!(unpack(&good[..], dir.path(), &options), Err(Error::TooLarge(_))));

    let mut huge = tar::Header::new_ustar();
    huge.set_entry_type(tar::EntryType::XHeader);
    huge.set_size(1 << 33);
    huge.set_cksum();
    assert!(matches!(unpack(&huge.as_bytes()[..], dir.path(), &UnpackOptions::default()), Err(Error::TooLarge(_))));
}

#[test]
fn devices_only_where_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let device = Entry { device: (1, 3), ..Entry::new("dev/null", EntryKind::CharDevice, 0o666) };
    let tar = archive(&[(device, b"")]);
    let options = UnpackOptions { devices: false, ..UnpackOptions::default() };
    assert!(matches!(unpack(&tar[..], dir.path(), &options), Err(Error::Forbidden { .. })));
    unpack(&tar[..], dir.path(), &UnpackOptions::default()).unwrap();
    assert!(dir.path().join("dev/null").exists());
}

#[test]
fn the_last_of_two_entries_wins_and_directories_merge() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [
        (Entry::new("d", EntryKind::Directory, 0o700), &b""[..]),
        (file("d/a"), b"1"),
        (Entry::new("d", EntryKind::Directory, 0o755), b""),
        (file("d/a"), b"2"),
        (file("x"), b""),
        (Entry::new("x", EntryKind::Directory, 0o755), b""),
        (file("x/y"), b""),
    ];
    unpack_all(&entries, dir.path(), Whiteouts::None).unwrap();
    assert_eq!(fs::read(dir.path().join("d/a")).unwrap(), b"2");
    assert_eq!(fs::metadata(dir.path().join("d")).unwrap().mode() & 0o777, 0o755);
    assert!(dir.path().join("x/y").exists());

    let options = UnpackOptions { keep_types: true, ..UnpackOptions::default() };
    let error = unpack(&archive(&[(file("d"), b"")])[..], dir.path(), &options).unwrap_err();
    assert!(error.to_string().contains("cannot overwrite directory \"d\" with non-directory"), "{error}");
}

#[test]
fn whiteouts_become_overlay_markers_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let opaque = file("d/.wh..wh..opq");
    let entries = [
        (Entry::new("d", EntryKind::Directory, 0o755), &b""[..]),
        (opaque, b""),
        (file("d/new"), b"n"),
        (file(".wh.gone"), b""),
        (file(".wh..wh.plnk"), b""),
    ];
    unpack_all(&entries, dir.path(), Whiteouts::Oci).unwrap();
    assert_eq!(xattr::get(dir.path().join("d"), "trusted.overlay.opaque").unwrap().unwrap(), b"y");
    let gone = fs::symlink_metadata(dir.path().join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);

    let oci = packed(dir.path(), &PackOptions { whiteouts: Whiteouts::Oci, ..PackOptions::default() });
    let names: Vec<String> = listing(&oci).iter().map(Entry::display).collect();
    assert_eq!(names, ["d/", "d/.wh..wh..opq", ".wh.gone", "d/new"]);
    let raw = packed(dir.path(), &PackOptions { whiteouts: Whiteouts::Raw, ..PackOptions::default() });
    let again = tempfile::tempdir().unwrap();
    let options = UnpackOptions { whiteouts: Whiteouts::Raw, ..UnpackOptions::default() };
    unpack(&raw[..], again.path(), &options).unwrap();
    assert_eq!(xattr::get(again.path().join("d"), "trusted.overlay.opaque").unwrap().unwrap(), b"y");
    assert_eq!(fs::symlink_metadata(again.path().join("gone")).unwrap().rdev(), 0);
    // Overlay's attributes do not come in with anything but a checkpoint.
    let plain = tempfile::tempdir().unwrap();
    unpack(&raw[..], plain.path(), &UnpackOptions::default()).unwrap();
    assert_eq!(xattr::get(plain.path().join("d"), "trusted.overlay.opaque").unwrap(), None);
}

#[test]
fn a_diff_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("d/sub")).unwrap();
    fs::write(dir.path().join("d/old"), b"").unwrap();
    fs::write(dir.path().join("d/sub/old"), b"").unwrap();
    fs::write(dir.path().join("gone"), b"").unwrap();
    let entries = [
        (file("d/sub/new"), &b""[..]),
        (file("d/.wh..wh..opq"), b""),
        (file(".wh.gone"), b""),
        (file(".wh.never"), b""),
    ];
    unpack_all(&entries, dir.path(), Whiteouts::Apply).unwrap();
    assert!(!dir.path().join("d/old").exists() && !dir.path().join("d/sub/old").exists());
    assert!(dir.path().join("d/sub/new").exists() && !dir.path().join("gone").exists());
}

#[test]
fn copies_are_named_as_docker_names_them() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc/conf")).unwrap();
    fs::write(dir.path().join("etc/conf/f"), b"data").unwrap();
    symlink("/etc/conf", dir.path().join("lnk")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let names = |path: &str| -> Vec<String> {
        listing(&copy_out(&root, path, Vec::new()).unwrap()).iter().map(Entry::display).collect()
    };
    assert_eq!(names("/etc/conf"), ["conf/", "conf/f"]);
    assert_eq!(names("etc/conf/f"), ["f"]);
    assert_eq!(names("/etc/conf/."), ["./", "./f"]);
    assert_eq!(names("/lnk"), ["lnk"]);
    assert_eq!(names("/lnk/"), ["lnk/", "lnk/f"]);
    assert_eq!(names("/lnk/f"), ["f"]);
    assert_eq!(names("/../.././etc/conf/f"), ["f"]);
    assert!(names("/").contains(&"/etc/conf/f".to_owned()));
    let stat = stat_path(&root, "/lnk").unwrap();
    assert_eq!((stat.name.as_str(), stat.link_target.as_str(), stat.mode >> 27), ("lnk", "/etc/conf", 1));
    assert_eq!(stat_path(&root, "/etc").unwrap().mode, 1 << 31 | 0o755);
    assert!(matches!(stat_path(&root, "/nope/x"), Err(Error::NotFound(_))));

    let tar = archive(&[(file("in/side"), b"x")]);
    let options = UnpackOptions { subdirectory: b"lnk".to_vec(), ..UnpackOptions::default() };
    unpack_in(&tar[..], &root, &options).unwrap();
    assert!(dir.path().join("etc/conf/in/side").exists());
}

#[test]
fn odd_bytes_do_not_panic() {
    let good = archive(&[(file("a/b"), b"content"), (link("l", EntryKind::Symlink, "a/b"), b"")]);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2_000 {
        let mut data = good.clone();
        for _ in 0..3 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = seed as usize % data.len();
            data[at] = (seed >> 32) as u8;
        }
        fuzz_read(&data);
    }
    let dir = tempfile::tempdir().unwrap();
    fuzz_unpack(&good, dir.path());
}

#[test]
fn a_long_name_with_a_length_that_counts_itself() {
    // Around the lengths where the record's own length gains a digit.
    for length in 85..110 {
        let name = "n".repeat(length + 20);
        let entries = listing(&archive(&[(file(&name), b"")]));
        assert_eq!(entries[0].display(), name);
    }
    let times = [(1, 500_000_000), (-1, 0), (-2, 250_000_000), (1 << 40, 0)];
    for (seconds, nanoseconds) in times {
        let mtime = Timestamp { seconds, nanoseconds };
        assert_eq!(listing(&archive(&[(Entry { mtime, ..file("t") }, b"")]))[0].mtime, mtime);
    }
}

#[test]
fn odd_archives_change_nothing_outside() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("victim"), b"safe").unwrap();
    let good = archive(&[
        (Entry::new("d", EntryKind::Directory, 0o755), &b""[..]),
        (link("d/l", EntryKind::Symlink, "../../victim"), b""),
        (file("d/l"), b"evil"),
        (link("h", EntryKind::HardLink, "d/l"), b""),
        (file(".wh.d"), b""),
        (Entry { xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())], ..file("x") }, b"x"),
    ]);
    let mut seed = 0x1234_5678_9abc_def1_u64;
    for round in 0..300 {
        let root = outer.path().join(format!("r{round}"));
        fs::create_dir(&root).unwrap();
        let mut data = good.clone();
        for _ in 0..2 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Names, types and links, with the checksum made right again.
            let block = (seed as usize % (data.len() / 512)) * 512;
            let at = [0, 1, 2, 5, 156, 157, 158, 160][(seed >> 16) as usize % 8];
            data[block + at] = *b"./5120dlxw".get((seed >> 24) as usize % 10).unwrap();
            let sum: u32 =
                (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(data[block + i]) }).sum();
            data[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        fuzz_unpack(&data, &root);
        assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"safe");
        assert_eq!(fs::metadata(outer.path().join("victim")).unwrap().nlink(), 1);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
