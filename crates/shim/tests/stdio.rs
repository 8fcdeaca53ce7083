//! The container's streams through the real shim and the real runtime: nothing stalls, nothing is lost.
#![allow(missing_docs)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use common::{Fixture, read_to_end, read_until, reader, text};
use shim::protocol::{Call, Stdio};

#[test]
fn output_of_both_streams_arrives_and_ends() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "echo out; echo err >&2; exit 42"]);
    let (stdout, stderr) = (fixture.fifo("out"), fixture.fifo("err"));
    let (out, err) = (reader(&stdout), reader(&stderr));
    client.create_and_start(Stdio { stdout, stderr, ..Stdio::default() });
    assert_eq!(client.exit("init").status, 42);
    assert_eq!(text(read_to_end(out)), "out\n");
    assert_eq!(text(read_to_end(err)), "err\n");
    assert_eq!(fixture.exit_status("init").unwrap(), "42");
    assert_eq!(fixture.wait_for_shim(), 0);
    assert!(!fixture.dir().join("shim.sock").exists());
}

#[test]
fn one_file_for_both_streams_keeps_their_order() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "echo 1; echo 2 >&2; echo 3; echo 4 >&2"]);
    let path = fixture.fifo("out");
    let out = reader(&path);
    client.create_and_start(Stdio { stdout: path.clone(), stderr: path, ..Stdio::default() });
    assert_eq!(text(read_to_end(out)), "1\n2\n3\n4\n");
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn no_stdio_at_all_does_not_block_much_output() {
    let (mut fixture, mut client) =
        Fixture::begin(&["sh", "-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"]);
    client.create_and_start(Stdio::default());
    assert_eq!(client.exit("init").status, 0);
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn an_ordinary_file_is_appended_to() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "echo more"]);
    let path = fixture.bundle().join("log");
    std::fs::write(&path, "before\n").unwrap();
    client.create_and_start(Stdio { stdout: path.clone(), ..Stdio::default() });
    assert_eq!(client.exit("init").status, 0);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "before\nmore\n");
    fixture.wait_for_shim();
}

#[test]
fn a_mebibyte_through_cat_arrives_whole_after_close_stdin() {
    let (mut fixture, mut client) = Fixture::begin(&["cat"]);
    let (stdin, stdout) = (fixture.fifo("in"), fixture.fifo("out"));
    let out = reader(&stdout);
    client.create_and_start(Stdio { stdin: stdin.clone(), stdout, ..Stdio::default() });
    let data: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let copy = data.clone();
    let mut input = OpenOptions::new().write(true).open(&stdin).unwrap();
    let writer = std::thread::spawn(move || input.write_all(&copy).unwrap());
    let reading = std::thread::spawn(move || read_to_end(out));
    writer.join().unwrap();
    // The writer has gone, and that alone is not the end of the input.
    client.ask(Call::CloseStdin { process: "init".into() }).unwrap();
    assert!(reading.join().unwrap() == data);
    assert_eq!(client.exit("init").status, 0);
    assert_eq!(fixture.wait_for_shim(), 0);
}

#[test]
fn a_client_that_goes_away_does_not_end_the_input() {
    let (mut fixture, mut client) = Fixture::begin(&["cat"]);
    let (stdin, stdout) = (fixture.fifo("in"), fixture.fifo("out"));
    let mut out = reader(&stdout);
    client.create_and_start(Stdio { stdin: stdin.clone(), stdout, ..Stdio::default() });
    for word in ["one", "two"] {
        let mut input = OpenOptions::new().write(true).open(&stdin).unwrap();
        writeln!(input, "{word}").unwrap();
        drop(input);
        read_until(&mut out, word);
    }
    client.ask(Call::CloseStdin { process: "init".into() }).unwrap();
    assert_eq!(client.exit("init").status, 0);
    fixture.wait_for_shim();
}

#[test]
fn a_late_reader_gets_everything() {
    let (mut fixture, mut client) = Fixture::begin(&[
        "sh",
        "-c",
        "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo written > /tmp/done; cat; echo end",
    ]);
    let (stdin, stdout) = (fixture.fifo("in"), fixture.fifo("out"));
    client.create_and_start(Stdio { stdin, stdout: stdout.clone(), ..Stdio::default() });
    // It is not held up by there being no reader.
    let done = fixture.bundle().join("rootfs/tmp/done");
    let end = Instant::now() + Duration::from_secs(20);
    while !done.exists() {
        assert!(Instant::now() < end, "the container waits for a reader");
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = reader(&stdout);
    let reading = std::thread::spawn(move || read_to_end(out));
    client.ask(Call::CloseStdin { process: "init".into() }).unwrap();
    let all = reading.join().unwrap();
    assert_eq!(all.len(), 3_000_001 + 4);
    assert!(all.ends_with(b"x\nend\n"));
    assert_eq!(client.exit("init").status, 0);
    fixture.wait_for_shim();
}

#[test]
fn a_reader_who_never_comes_finds_everything_in_a_file() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' y; echo end"]);
    let stdout = fixture.fifo("out");
    client.create_and_start(Stdio { stdout: stdout.clone(), ..Stdio::default() });
    assert_eq!(client.exit("init").status, 0);
    assert_eq!(fixture.wait_for_shim(), 0);
    let kind = std::fs::metadata(&stdout).unwrap().file_type();
    assert!(kind.is_file(), "{kind:?}");
    let all = std::fs::read(&stdout).unwrap();
    assert_eq!(all.len(), 200_004);
    assert!(all.ends_with(b"yend\n"));
}

#[test]
fn output_between_two_readers_is_for_the_second() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "echo first; cat; echo last"]);
    let (stdin, stdout) = (fixture.fifo("in"), fixture.fifo("out"));
    let mut out = reader(&stdout);
    client.create_and_start(Stdio { stdin: stdin.clone(), stdout: stdout.clone(), ..Stdio::default() });
    read_until(&mut out, "first\n");
    drop(out);
    let mut input = OpenOptions::new().write(true).open(&stdin).unwrap();
    writeln!(input, "between").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut out = File::open(&stdout).unwrap();
    assert_eq!(read_until(&mut out, "between\n"), "between\n");
    drop(out);
    client.ask(Call::CloseStdin { process: "init".into() }).unwrap();
    assert_eq!(client.exit("init").status, 0);
    fixture.wait_for_shim();
    assert_eq!(std::fs::read_to_string(&stdout).unwrap(), "last\n");
}

#[test]
fn ten_mebibytes_to_a_slow_reader_are_unharmed() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "head -c 10485760 /dev/zero; echo end"]);
    let stdout = fixture.fifo("out");
    let mut out = reader(&stdout);
    client.create_and_start(Stdio { stdout: stdout.clone(), ..Stdio::default() });
    let mut buffer = vec![0_u8; 65536];
    let (mut count, mut turns) = (0, 0);
    loop {
        let read = out.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        count += read;
        turns += 1;
        if turns % 16 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(count, 10_485_764);
    assert_eq!(client.exit("init").status, 0);
    assert_eq!(fixture.wait_for_shim(), 0);
    assert!(std::fs::metadata(&stdout).unwrap().file_type().is_fifo());
}

#[test]
fn a_terminal_has_a_size_and_an_end() {
    let script = "read line; stty size; read line; stty size; echo got $line; exit 3";
    let mut fixture = Fixture::new(&["sh", "-c", script]);
    fixture.edit_config(|config| config["process"]["terminal"] = true.into());
    fixture.start_shim();
    let mut client = fixture.connect();
    let (stdin, stdout) = (fixture.fifo("in"), fixture.fifo("out"));
    let mut out = reader(&stdout);
    client.create_and_start(Stdio { stdin: stdin.clone(), stdout, terminal: true, ..Stdio::default() });
    let mut input = OpenOptions::new().write(true).open(&stdin).unwrap();
    client.ask(Call::Resize { process: "init".into(), width: 91, height: 33 }).unwrap();
    writeln!(input, "a").unwrap();
    read_until(&mut out, "33 91\r\n");
    client.ask(Call::Resize { process: "init".into(), width: 120, height: 40 }).unwrap();
    writeln!(input, "hello").unwrap();
    let rest = text(read_to_end(out));
    assert!(rest.contains("40 120\r\n") && rest.contains("got hello\r\n"), "{rest:?}");
    assert_eq!(client.exit("init").status, 3);
    assert_eq!(fixture.wait_for_shim(), 0);
    let left = std::fs::read_dir(fixture.dir()).unwrap().filter_map(Result::ok);
    assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().starts_with("console")));
}

#[test]
fn the_last_words_on_a_terminal_are_not_lost() {
    let mut fixture = Fixture::new(&["sh", "-c", "head -c 50000 /dev/zero | tr '\\0' z; echo end"]);
    fixture.edit_config(|config| config["process"]["terminal"] = true.into());
    fixture.start_shim();
    let mut client = fixture.connect();
    let stdout = fixture.fifo("out");
    let out = reader(&stdout);
    client.create_and_start(Stdio { stdout, terminal: true, ..Stdio::default() });
    let reading = std::thread::spawn(move || read_to_end(out));
    assert_eq!(client.exit("init").status, 0);
    let all = reading.join().unwrap();
    assert_eq!(all.len(), 50_000 + 5);
    assert!(all.ends_with(b"zend\r\n"));
    fixture.wait_for_shim();
}

#[test]
fn output_that_nobody_can_ever_read_holds_nothing_up() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "head -c 100000000 /dev/zero; head -c 100 /dev/zero"]);
    let stdout = fixture.fifo("out");
    client.create_and_start(Stdio { stdout: stdout.clone(), ..Stdio::default() });
    std::thread::sleep(Duration::from_millis(200));
    std::fs::remove_file(&stdout).unwrap();
    assert_eq!(client.exit("init").status, 0);
    assert_eq!(fixture.wait_for_shim(), 0);
    assert!(!stdout.exists());
}

#[test]
fn what_a_reader_did_not_take_before_it_went_is_kept() {
    let (mut fixture, mut client) = Fixture::begin(&["sh", "-c", "echo first; cat; echo last"]);
    let (stdin, stdout) = (fixture.fifo("in"), fixture.fifo("out"));
    let mut out = reader(&stdout);
    client.create_and_start(Stdio { stdin, stdout: stdout.clone(), ..Stdio::default() });
    read_until(&mut out, "first\n");
    client.ask(Call::CloseStdin { process: "init".into() }).unwrap();
    // The end is reported, and the shim's place is free, although the reader has not read it all.
    assert_eq!(client.exit("init").status, 0);
    assert_eq!(fixture.wait_for_shim(), 0);
    drop(out);
    let end = Instant::now() + Duration::from_secs(10);
    while std::fs::metadata(&stdout).unwrap().file_type().is_fifo() {
        assert!(Instant::now() < end, "what was not read is not kept");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(std::fs::read_to_string(&stdout).unwrap(), "last\n");
}
