//! The whole of a log as the daemon uses it: written in chunks, rotated, read back, followed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures::StreamExt;
use logs::{Batches, ContainerInfo, Entry, Log, ReadOptions, StreamKind};
use tempfile::TempDir;

fn open(dir: &TempDir, options: &[(&str, &str)]) -> Log {
    let options: BTreeMap<String, String> = options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let settings = logs::validate("json-file", &options).unwrap();
    let info = ContainerInfo { id: "c0ffee".into(), labels: [("a".into(), "b".into())].into(), ..Default::default() };
    Log::open(&settings, dir.path(), &info)
}

async fn all(batches: Batches) -> Vec<Entry> {
    batches.map(Result::unwrap).collect::<Vec<_>>().await.into_iter().flatten().collect()
}

async fn text(log: &Log, options: ReadOptions) -> String {
    let entries = all(log.read(options).unwrap()).await;
    String::from_utf8(entries.iter().flat_map(|entry| entry.line.to_vec()).collect()).unwrap()
}

fn numbers(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

#[tokio::test]
async fn written_read_and_appended_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, &[("labels", "a")]);
    assert_eq!(text(&log, ReadOptions::default()).await, "");
    assert!(log.write(StreamKind::Stdout, b"early").is_err());
    log.begin().unwrap();
    log.write(StreamKind::Stdout, b"one\ntw").unwrap();
    log.write(StreamKind::Stderr, b"err\n").unwrap();
    log.write(StreamKind::Stdout, b"o\nunfinished").unwrap();
    log.end().unwrap();
    drop(log);

    let log = open(&dir, &[]);
    log.begin().unwrap();
    log.write(StreamKind::Stdout, b" again\n").unwrap();
    let entries = all(log.read(ReadOptions::default()).unwrap()).await;
    let lines: Vec<&[u8]> = entries.iter().map(|entry| &entry.line[..]).collect();
    assert_eq!(lines, [&b"one\n"[..], b"err\n", b"two\n", b"unfinished", b" again\n"]);
    assert_eq!(entries[1].stream, StreamKind::Stderr);
    assert_eq!(entries[0].attributes.as_ref().unwrap()["a"], "b");
    assert_eq!(entries[4].attributes, None);
    assert!(entries.windows(2).all(|pair| pair[0].time_ns < pair[1].time_ns));
    let path = log.path().unwrap();
    assert_eq!(path, dir.path().join("c0ffee-json.log"));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);

    let stderr_only = ReadOptions { stdout: false, ..Default::default() };
    assert_eq!(text(&log, stderr_only).await, "err\n");
    let between = ReadOptions {
        since_ns: Some(entries[1].time_ns.into()),
        until_ns: Some(entries[2].time_ns.into()),
        ..Default::default()
    };
    assert_eq!(text(&log, between).await, "err\ntwo\n");
}

#[tokio::test]
async fn tail_crosses_blocks_and_files() {
    for options in [&[][..], &[("max-size", "20k"), ("max-file", "50")]] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir, options);
        log.begin().unwrap();
        for start in (0..9000).step_by(100) {
            log.write(StreamKind::Stdout, numbers(start..start + 100).as_bytes()).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count() > 10, !options.is_empty());
        for tail in [0, 1, 10, 5000, 8999, 9000, 9001, usize::MAX] {
            let read = text(&log, ReadOptions { tail: Some(tail), ..Default::default() }).await;
            assert_eq!(read, numbers(9000 - tail.min(9000)..9000), "tail {tail}");
        }
        assert_eq!(text(&log, ReadOptions::default()).await, numbers(0..9000));
    }
}

#[tokio::test]
async fn rotation_keeps_the_newest_files_and_compresses() {
    let dir = tempfile::tempdir().unwrap();
    let options = [("max-size", "10k"), ("max-file", "3"), ("compress", "true")];
    let log = open(&dir, &options);
    log.begin().unwrap();
    for n in 0..2000 {
        log.write(StreamKind::Stdout, numbers(n..n + 1).as_bytes()).unwrap();
    }
    log.end().unwrap();
    let read = text(&log, ReadOptions::default()).await;
    assert!(numbers(0..2000).ends_with(&read) && read.lines().count() > 200, "{}", read.lines().count());
    let tail = text(&log, ReadOptions { tail: Some(150), ..Default::default() }).await;
    assert_eq!(tail, numbers(1850..2000));
    drop(log); // waits for the compressor
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["c0ffee-json.log", "c0ffee-json.log.1.gz", "c0ffee-json.log.2.gz"]);
    // A new process finds them again, and what a crash left uncompressed too.
    let log = open(&dir, &options);
    assert_eq!(text(&log, ReadOptions::default()).await, read);
    let packed = dir.path().join("c0ffee-json.log.2.gz");
    fs::write(&packed, &fs::read(&packed).unwrap()[..200]).unwrap();
    let damaged = text(&log, ReadOptions::default()).await;
    assert!(read.ends_with(&damaged[damaged.len() - 500..]));
}

#[tokio::test]
async fn followers_see_everything_once_across_rotation_and_end_with_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, &[("max-size", "5k"), ("max-file", "1000")]);
    log.begin().unwrap();
    log.write(StreamKind::Stdout, numbers(0..500).as_bytes()).unwrap();
    let reader = |tail| {
        tokio::spawn({
            let log = log.clone();
            async move { text(&log, ReadOptions { follow: true, tail, ..Default::default() }).await }
        })
    };
    let (from_start, from_tail) = (reader(None), reader(Some(10)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    for start in (500..5000).step_by(50) {
        log.write(StreamKind::Stdout, numbers(start..start + 50).as_bytes()).unwrap();
        if start % 1000 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    log.write(StreamKind::Stdout, b"no line feed").unwrap();
    log.end().unwrap();
    let expected = numbers(0..5000) + "no line feed";
    assert_eq!(from_start.await.unwrap(), expected);
    assert_eq!(from_tail.await.unwrap(), numbers(490..5000) + "no line feed");
}

#[tokio::test]
async fn following_ends_at_until_and_of_a_stopped_container_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, &[]);
    log.begin().unwrap();
    log.write(StreamKind::Stdout, b"x\n").unwrap();
    let soon =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i128 + 50_000_000;
    let until = ReadOptions { follow: true, until_ns: Some(soon), ..Default::default() };
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), text(&log, until)).await.unwrap(), "x\n");
    log.end().unwrap();
    let follow = ReadOptions { follow: true, ..Default::default() };
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), text(&log, follow)).await.unwrap(), "x\n");
}

#[tokio::test]
async fn torn_and_foreign_records_are_skipped_then_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c0ffee-json.log");
    let good = "{\"log\":\"good\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:00Z\"}\n";
    let long = "x".repeat(3_000_000);
    fs::write(&path, format!("garbage\n{good}{long}\n{good}{{\"log\":\"torn")).unwrap();
    let log = open(&dir, &[]);
    assert_eq!(text(&log, ReadOptions::default()).await, "good\ngood\n");
    log.begin().unwrap();
    log.write(StreamKind::Stdout, b"new\n").unwrap();
    assert_eq!(text(&log, ReadOptions::default()).await, "good\ngood\nnew\n");
    assert!(!fs::read_to_string(&path).unwrap().contains("torn"));
}

#[tokio::test]
async fn a_file_emptied_by_hand_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, &[]);
    log.begin().unwrap();
    log.write(StreamKind::Stdout, numbers(0..100).as_bytes()).unwrap();
    let mut follower = log.read(ReadOptions { follow: true, ..Default::default() }).unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap().len(), 100);
    fs::OpenOptions::new().write(true).truncate(true).open(log.path().unwrap()).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    log.write(StreamKind::Stdout, b"after\n").unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap()[0].line, "after\n");
    assert_eq!(text(&log, ReadOptions::default()).await, "after\n");
}

#[tokio::test]
async fn an_unusable_path_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("c0ffee-json.log")).unwrap();
    let error = open(&dir, &[]).begin().unwrap_err();
    assert!(error.to_string().contains("c0ffee-json.log"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_log_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(dir.path()).status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs to mount a tmpfs");
        return;
    }
    let log = open(&dir, &[]);
    log.begin().unwrap();
    log.write(StreamKind::Stdout, numbers(0..100).as_bytes()).unwrap();
    let refused = log.write(StreamKind::Stdout, numbers(100..5000).as_bytes());
    log.write(StreamKind::Stdout, b"goes on\n").unwrap();
    let read = text(&log, ReadOptions::default()).await;
    let raw = fs::read_to_string(log.path().unwrap()).unwrap();
    log.end().unwrap();
    assert!(std::process::Command::new("umount").arg(dir.path()).status().unwrap().success());
    assert!(refused.is_err());
    assert_eq!(read, numbers(0..100) + "goes on\n");
    assert!(raw.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
}

#[tokio::test]
async fn none_keeps_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let settings = logs::validate("none", &BTreeMap::new()).unwrap();
    let log = Log::open(&settings, dir.path(), &ContainerInfo::default());
    log.begin().unwrap();
    log.write(StreamKind::Stdout, b"x\n").unwrap();
    log.end().unwrap();
    let error = log.read(ReadOptions::default()).err().unwrap();
    assert_eq!(error.to_string(), "configured logging driver does not support reading");
    assert_eq!(log.path(), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Prints what a million lines cost; run it with an optimised build.
#[tokio::test]
#[ignore = "a measurement"]
async fn a_million_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, &[]);
    log.begin().unwrap();
    let line = [&[b'x'; 99][..], b"\n"].concat();
    let block: Vec<u8> = line.iter().copied().cycle().take(65_500).collect();
    let begin = std::time::Instant::now();
    for _ in 0..100_000_000 / block.len() {
        log.write(StreamKind::Stdout, &block).unwrap();
    }
    println!("written in 64 KiB blocks: {:?}", begin.elapsed());
    let begin = std::time::Instant::now();
    let mut batches = log.read(ReadOptions::default()).unwrap();
    let mut lines = 0;
    while let Some(batch) = batches.next().await {
        lines += batch.unwrap().len();
    }
    println!("{lines} lines read: {:?}", begin.elapsed());
    let begin = std::time::Instant::now();
    let tail = all(log.read(ReadOptions { tail: Some(10), ..Default::default() }).unwrap()).await;
    println!("tail {}: {:?}", tail.len(), begin.elapsed());
    let begin = std::time::Instant::now();
    for _ in 0..1_000_000 {
        log.write(StreamKind::Stderr, &line).unwrap();
    }
    println!("written line by line: {:?}", begin.elapsed());
}
