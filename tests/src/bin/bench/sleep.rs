//! Sleeping and waking by size, and clones: on every engine, and on runc with CRIU and nothing above them.
//!
//! Everything is on the host's network, because other engines wake hardly anything else; clones are on none, because ten of
//! them cannot listen on one port.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::direct::Direct;
use crate::hold;
use crate::peer::Peer;
use crate::table::Table;

const SIZES_MIB: [u64; 4] = [1, 64, 256, 1024];
const CLONES: usize = 10;
const FIRST_PORT: u16 = 27_500;

/// Whoever can put a container to sleep.
pub trait Sleeper {
    fn name(&self) -> &str;
    /// Starts `hold`; gives the container's id.
    fn hold(&self, mebibytes: u64, port: u16) -> Result<String, String>;
    fn checkpoint(&self, id: &str, name: &str, leave_running: bool) -> Result<(), String>;
    fn wake(&self, id: &str, name: &str) -> Result<(), String>;
    fn remove_checkpoint(&self, id: &str, name: &str) -> Result<(), String>;
    /// Where a checkpoint's files are.
    fn files(&self, id: &str, name: &str) -> Option<PathBuf>;
    fn remove(&self, id: &str) -> Result<(), String>;
    /// Makes `count` containers that are like `id` was at its checkpoint `name` in `dir`; how long all took.
    fn clones(&self, id: &str, count: usize) -> Result<Duration, String>;
}

/// What one round on one size measured.
#[derive(Default)]
struct Round {
    frozen: Vec<Duration>,
    leave: Vec<Duration>,
    slept: Vec<Duration>,
    woke: Vec<Duration>,
    answered: Vec<Duration>,
    bytes: Option<u64>,
    failure: Option<String>,
}

/// All of it, into the table.
pub fn measure(table: &mut Table, peers: &[Peer], rounds: usize) {
    if hold::program().is_none() {
        table.note("no DORMOUSE_BENCH_HOLD: nothing was put to sleep by size (scripts/bench makes it)".into());
        return;
    }
    let direct = Direct::prepare();
    let mut sleepers: Vec<&dyn Sleeper> = peers.iter().map(|peer| peer as &dyn Sleeper).collect();
    match &direct {
        Ok(direct) => sleepers.push(direct),
        Err(reason) => table.note(format!("runc + CRIU: {reason}")),
    }
    let mut table_of_sleep = Table::new(sleepers.iter().map(|sleeper| sleeper.name().to_owned()).collect());
    for mebibytes in SIZES_MIB {
        let rounds = if mebibytes < 256 { rounds } else { rounds.min(3) };
        let all: Vec<Round> = sleepers
            .iter()
            .enumerate()
            .map(|(place, sleeper)| {
                let mut round = Round::default();
                let port = FIRST_PORT + place as u16;
                if let Err(error) = sleep_and_wake(*sleeper, mebibytes, port, rounds, &mut round) {
                    round.failure = Some(error);
                }
                round
            })
            .collect();
        let failures: Vec<_> = all.iter().map(|round| round.failure.clone()).collect();
        type Part = fn(&Round) -> &Vec<Duration>;
        let parts: [(&str, Part); 5] = [
            ("checkpoint, runs on: call", |round| &round.leave),
            ("– frozen, as it sees it", |round| &round.frozen),
            ("checkpoint and stop: call", |round| &round.slept),
            ("wake: call", |round| &round.woke),
            ("– to its first answer", |round| &round.answered),
        ];
        for (what, part) in parts {
            let times = all.iter().map(|round| part(round).clone()).collect();
            table_of_sleep.times_as_far(&format!("{mebibytes} MiB, {what}"), times);
        }
        table_of_sleep
            .sizes(&format!("{mebibytes} MiB, files of a checkpoint"), all.iter().map(|round| round.bytes).collect());
        for (sleeper, failure) in sleepers.iter().zip(failures) {
            if let Some(failure) = failure {
                table_of_sleep.note(format!("{}: {mebibytes} MiB: {failure}", sleeper.name()));
            }
        }
    }
    clones(&mut table_of_sleep, &sleepers);
    table.append(table_of_sleep);
}

fn sleep_and_wake(
    sleeper: &dyn Sleeper,
    mebibytes: u64,
    port: u16,
    rounds: usize,
    into: &mut Round,
) -> Result<(), String> {
    let id = sleeper.hold(mebibytes, port)?;
    let done = (|| {
        hold::ask(port)?;
        for round in 0..=rounds {
            let counts = round > 0;
            let nap = format!("nap{round}");
            hold::ask(port)?;
            let began = Instant::now();
            sleeper.checkpoint(&id, &nap, true)?;
            let call = began.elapsed();
            let (_, answer) = hold::ask(port)?;
            if counts {
                into.leave.push(call);
                into.frozen.push(answer.gap);
            }
            sleeper.remove_checkpoint(&id, &nap)?;

            let night = format!("night{round}");
            let began = Instant::now();
            sleeper.checkpoint(&id, &night, false)?;
            let slept = began.elapsed();
            into.bytes = sleeper.files(&id, &night).map(|path| tree_bytes(&path)).filter(|bytes| *bytes > 0);
            let began = Instant::now();
            // Some engines wake a container only at the second try.
            if let Err(first) = sleeper.wake(&id, &night) {
                sleeper.wake(&id, &night).map_err(|_| first)?;
            }
            let woke = began.elapsed();
            hold::ask(port)?;
            if counts {
                into.slept.push(slept);
                into.woke.push(woke);
                into.answered.push(began.elapsed());
            }
            sleeper.remove_checkpoint(&id, &night)?;
        }
        Ok(())
    })();
    let _ = sleeper.remove(&id);
    done
}

fn clones(table: &mut Table, sleepers: &[&dyn Sleeper]) {
    let mut times = Vec::new();
    for sleeper in sleepers {
        let made = sleeper.hold(1, 0).and_then(|id| {
            let made = sleeper.clones(&id, CLONES);
            let _ = sleeper.remove(&id);
            made
        });
        match made {
            Ok(time) => times.push(vec![time / CLONES as u32]),
            Err(error) => {
                table.note(format!("{}: clones: {error}", sleeper.name()));
                times.push(Vec::new());
            }
        }
    }
    table.times_as_far(&format!("each of {CLONES} clones in a row"), times);
}

/// Bytes on disk below a path.
fn tree_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(data) = path.symlink_metadata() else { return 0 };
    let below: u64 = match data.is_dir() {
        true => std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| tree_bytes(&entry.path())).sum(),
        false => 0,
    };
    data.blocks() * 512 + below
}
