//! Times what people wait for, over the API socket, and weighs the programs; beside other engines where there are any.
//!
//! `DORMOUSE_BENCH_PEERS="docker=/var/run/docker.sock podman=/run/podman/podman.sock"` names them. Every measurement is
//! made in turn on every engine, so that the machine's moods hit all alike, and what counts is the ratio of the
//! medians. `DORMOUSE_BENCH_ROUNDS` (15) says how often. `DORMOUSE_BENCH_HOLD` is the program that holds memory to be put to
//! sleep with (`scripts/bench` makes it); without it that part is left out.
#![forbid(unsafe_code)]

mod direct;
mod hold;
mod memory;
mod peer;
mod requests;
mod sleep;
mod table;

use std::env;
use std::time::{Duration, Instant};

use e2e::Engine;

use crate::memory::Weight;
use crate::peer::Peer;
use crate::table::Table;

const CROWD: usize = 50;

fn main() {
    let rounds = env::var("DORMOUSE_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let engine = Engine::start();
    let mut peers = vec![Peer::ours(&engine)];
    for word in env::var("DORMOUSE_BENCH_PEERS").unwrap_or_default().split_whitespace() {
        match word.split_once('=') {
            Some((name, socket)) => peers.push(Peer::other(name, socket)),
            None => {
                eprintln!("bench: DORMOUSE_BENCH_PEERS holds {word:?}, which is not name=socket");
                std::process::exit(2);
            }
        }
    }
    for peer in &peers {
        peer.provide_image();
    }
    let mut table = Table::new(peers.iter().map(|peer| peer.name.clone()).collect());
    let idle = peers.iter().map(Weight::of).collect::<Vec<_>>();
    life(&mut table, &peers, rounds);
    exec(&mut table, &peers, rounds);
    checkpoints(&mut table, &peers, rounds);
    requests::logs(&mut table, &peers);
    crowd(&mut table, &peers, rounds, &idle);
    sleep::measure(&mut table, &peers, rounds);
    for peer in &peers {
        peer.remove_everything();
    }
    print!("{table}");
}

/// Runs `measure` in turn on every peer, `rounds` times after one that does not count. An error ends that peer's part.
fn interleaved(
    table: &mut Table,
    what: &str,
    peers: &[Peer],
    rounds: usize,
    mut measure: impl FnMut(&Peer, usize) -> Result<Duration, String>,
) {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); peers.len()];
    let mut failures: Vec<Option<String>> = vec![None; peers.len()];
    for round in 0..=rounds {
        for (place, peer) in peers.iter().enumerate() {
            if failures[place].is_some() {
                continue;
            }
            match measure(peer, round) {
                Ok(time) if round > 0 => times[place].push(time),
                Ok(_) => {}
                Err(error) => failures[place] = Some(error),
            }
        }
    }
    table.times(what, times, &failures);
}

fn timed<T>(work: impl FnOnce() -> Result<T, String>) -> Result<(Duration, T), String> {
    let began = Instant::now();
    let value = work()?;
    Ok((began.elapsed(), value))
}

fn life(table: &mut Table, peers: &[Peer], rounds: usize) {
    for network in ["none", "bridge"] {
        interleaved(table, &format!("create+start+wait+remove, {network}"), peers, rounds, |peer, _| {
            timed(|| {
                let id = peer.create(&["true"], network)?;
                peer.start(&id)?;
                peer.wait(&id)?;
                peer.remove(&id)
            })
            .map(|(time, ())| time)
        });
    }
}

fn exec(table: &mut Table, peers: &[Peer], rounds: usize) {
    let ids: Vec<_> = peers.iter().map(|peer| peer.run(&["sleep", "1000"], "none")).collect();
    interleaved(table, "exec true", peers, rounds, |peer, _| {
        let place = peers.iter().position(|other| std::ptr::eq(other, peer)).unwrap_or(0);
        let id = ids[place].as_ref().map_err(Clone::clone)?;
        timed(|| peer.exec(id, &["true"])).map(|(time, ())| time)
    });
    for (peer, id) in peers.iter().zip(ids) {
        if let Ok(id) = id {
            let _ = peer.remove(&id);
        }
    }
}

/// On the host's network: other engines restore hardly any other. Ours also with one of its own.
fn checkpoints(table: &mut Table, peers: &[Peer], rounds: usize) {
    for (network, of) in [("host", peers), ("bridge", &peers[..1])] {
        let mut wakes: Vec<Vec<Duration>> = vec![Vec::new(); peers.len()];
        let mut failures: Vec<Option<String>> = vec![None; peers.len()];
        let ids: Vec<_> = of.iter().map(|peer| peer.run(&["sleep", "100000"], network)).collect();
        interleaved(table, &format!("checkpoint and stop, {network}"), of, rounds, |peer, round| {
            let place = peers.iter().position(|other| std::ptr::eq(other, peer)).unwrap_or(0);
            let id = ids[place].as_ref().map_err(Clone::clone)?;
            let name = format!("nap{round}");
            let (slept, ()) = timed(|| peer.checkpoint(id, &name))?;
            match timed(|| peer.wake(id, &name)) {
                Ok((woke, ())) if round > 0 => wakes[place].push(woke),
                Ok(_) => {}
                Err(error) => {
                    failures[place] = Some(error.clone());
                    return Err(error);
                }
            }
            Ok(slept)
        });
        wakes.truncate(of.len());
        failures.truncate(of.len());
        table.times(&format!("wake, {network}"), wakes, &failures);
        for (peer, id) in of.iter().zip(ids) {
            if let Ok(id) = id {
                let _ = peer.remove(&id);
            }
        }
    }
}

fn crowd(table: &mut Table, peers: &[Peer], rounds: usize, idle: &[Weight]) {
    let grow = |from: usize, to: usize| {
        for peer in peers {
            for _ in from..to {
                if let Err(error) = peer.run(&["sleep", "100000"], "none") {
                    eprintln!("bench: {}: {error}", peer.name);
                }
            }
        }
    };
    grow(0, 10);
    let ten: Vec<Weight> = peers.iter().map(Weight::of).collect();
    grow(10, CROWD);
    let fifty: Vec<Weight> = peers.iter().map(Weight::of).collect();
    interleaved(table, &format!("list of {CROWD} running containers"), peers, rounds * 4, |peer, _| {
        timed(|| peer.list()).map(|(time, ())| time)
    });
    requests::rates(table, peers);
    table.weights("memory (PSS) idle", idle, |weight| weight.total_bytes);
    table.weights("memory (PSS) with 10 containers", &ten, |weight| weight.total_bytes);
    table.weights(&format!("memory (PSS) with {CROWD} containers"), &fifty, |weight| weight.total_bytes);
    table.weights("private memory of each shim", &fifty, |weight| weight.private_bytes_per_shim);
    for (peer, weight) in peers.iter().zip(&fifty) {
        table.note(format!("{} with {CROWD}: {}", peer.name, weight.programs()));
    }
}
