//! The targets as ordinary tests: the corpus and everything that ever went wrong, then mutations for a moment
//! (`FUZZ_TEST_SECONDS`, 1). An input that panics, takes too long or too much memory is kept in `artifacts/`.
//!
//! The mutations are the same in every run: what is gated by these tests fails for what was changed, not by chance.
//! `make fuzz` is the search. `FUZZ_SEED` chooses others.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::Target;
use crate::mutate::mutate;

/// In the slow build of the tests, beside others.
const MAX_TIME: Duration = Duration::from_secs(20);
const MAX_MEMORY_KIB: u64 = 1 << 20;
const LOOK_AT_IT: Duration = Duration::from_millis(100);

/// Runs one target.
pub(crate) fn run(target: &Target) {
    let seeds: Vec<Vec<u8>> = ["corpus", "regressions"].iter().flat_map(|kind| files(kind, target.name)).collect();
    assert!(!seeds.is_empty(), "fuzz/corpus/{} is empty: without seeds nothing is tested", target.name);
    let seconds: u64 = number("FUZZ_TEST_SECONDS").unwrap_or(1);
    let seed = number("FUZZ_SEED").unwrap_or_default();
    println!("FUZZ_SEED={seed}");

    let input = Input::default();
    let (done, end) = channel::<()>();
    let watcher = std::thread::spawn({
        let (input, name) = (input.clone(), target.name);
        move || watch(name, &input, || end.recv_timeout(LOOK_AT_IT) != Err(RecvTimeoutError::Timeout))
    });
    for seed in &seeds {
        input.run(target, seed.clone());
    }
    let mut random = SmallRng::seed_from_u64(seed);
    let (began, mut count) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        input.run(target, mutate(&seeds, &mut random));
        count += 1;
    }
    drop(done);
    watcher.join().expect("the watcher does not panic");
    println!("{}: {} seeds, {count} mutations", target.name, seeds.len());
}

/// The input that is being read, if one is.
#[derive(Clone, Default)]
struct Input(Arc<Mutex<Option<Reading>>>);

#[derive(Clone)]
struct Reading {
    bytes: Arc<Vec<u8>>,
    since: Instant,
}

impl Input {
    fn set(&self, value: Option<Reading>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn run(&self, target: &Target, bytes: Vec<u8>) {
        let bytes = Arc::new(bytes);
        self.set(Some(Reading { bytes: Arc::clone(&bytes), since: Instant::now() }));
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
            panic!("{} panicked, see above; the input is {}", target.name, keep(target.name, &bytes).display());
        }
        self.set(None);
    }
}

/// Ends the program when an input takes too long or too much.
fn watch(name: &str, input: &Input, ended: impl Fn() -> bool) {
    while !ended() {
        let memory_kib = peak_memory_kib();
        let current = input.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Reading { bytes, since }) = current else { continue };
        let why = match since.elapsed() {
            long if long > MAX_TIME => format!("takes longer than {long:?}"),
            _ if memory_kib > MAX_MEMORY_KIB => format!("(or one just before) took {memory_kib} KiB of memory"),
            _ => continue,
        };
        eprintln!("{name}: the input {} {why}", keep(name, &bytes).display());
        std::process::exit(101);
    }
}

fn peak_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn folder(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name)
}

/// In the order of their names, so that a seed means the same everywhere.
fn files(kind: &str, name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder(kind, name)) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("read a folder").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("read a seed")).collect()
}

fn keep(name: &str, bytes: &[u8]) -> PathBuf {
    let dir = folder("artifacts", name);
    fs::create_dir_all(&dir).expect("make a folder");
    let path = dir.join(format!("test-{}", std::process::id()));
    fs::write(&path, bytes).expect("keep an input");
    path
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
