//! Requests per second over one connection that is kept, and the price of a million lines of log.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::peer::Peer;
use crate::table::Table;

/// How long each path is asked for.
const SPAN: Duration = Duration::from_secs(2);
const LINES: usize = 1_000_000;

/// Paths that are asked for most, with the containers that are there.
pub fn rates(table: &mut Table, peers: &[Peer]) {
    for path in ["/_ping", "/containers/json"] {
        let mut rates = Vec::new();
        for peer in peers {
            match rate(peer.socket(), path) {
                Ok(rate) => rates.push(Some(rate)),
                Err(error) => {
                    table.note(format!("{}: GET {path}: {error}", peer.name));
                    rates.push(None);
                }
            }
        }
        table.rates(&format!("GET {path}, one connection"), rates);
    }
}

fn rate(socket: &Path, path: &str) -> std::io::Result<f64> {
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    let (began, mut count) = (Instant::now(), 0u32);
    while began.elapsed() < SPAN {
        stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())?;
        read_answer(&mut stream)?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Reads one answer to its end, however long it says it is.
fn read_answer(stream: &mut BufReader<UnixStream>) -> std::io::Result<()> {
    let (mut length, mut chunked, mut line) = (0, false, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.trim_end().to_ascii_lowercase();
        match lower.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("transfer-encoding", "chunked")) => chunked = true,
            _ if lower.is_empty() => break,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !chunked {
        body.resize(length, 0);
        return stream.read_exact(&mut body);
    }
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        body.resize(size + 2, 0);
        stream.read_exact(&mut body)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// A million lines of a hundred bytes: written by a container, read whole, and their end.
pub fn logs(table: &mut Table, peers: &[Peer]) {
    let line = "x".repeat(99);
    let script = format!("yes {line} | head -n {LINES}");
    let (mut written, mut whole, mut tail) = (Vec::new(), Vec::new(), Vec::new());
    for peer in peers {
        let measured = (|| {
            let id = peer.create(&["sh", "-c", &script], "none")?;
            let began = Instant::now();
            peer.start(&id)?;
            peer.wait(&id)?;
            let wrote = began.elapsed();
            let timed = |tail: &str, bytes: usize| {
                let began = Instant::now();
                let got = peer.logs(&id, tail)?;
                if got < bytes { Err(format!("{got} bytes of log instead of {bytes}")) } else { Ok(began.elapsed()) }
            };
            let read = timed("all", LINES * 100);
            let end = timed("10", 1000);
            peer.remove(&id)?;
            Ok::<_, String>((wrote, read?, end?))
        })();
        let (wrote, read, end) = match measured {
            Ok((wrote, read, end)) => (vec![wrote], vec![read], vec![end]),
            Err(error) => {
                table.note(format!("{}: logs: {error}", peer.name));
                Default::default()
            }
        };
        written.push(wrote);
        whole.push(read);
        tail.push(end);
    }
    table.times_as_far("a container writes 1 000 000 lines", written);
    table.times_as_far("logs, all of them", whole);
    table.times_as_far("logs --tail 10", tail);
}
