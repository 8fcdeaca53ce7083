//! The program `hold` (`tests/bench/hold.rs`): where it is, the image with it, and asking one that runs.

use std::env;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one may take to fill its memory, or to answer after a wake.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one answers.
pub struct Answer {
    /// The longest time it stood still since it was last asked.
    pub gap: Duration,
}

/// The static program, if `scripts/bench` has made it.
pub fn program() -> Option<PathBuf> {
    env::var_os("DORMOUSE_BENCH_HOLD").map(PathBuf::from)
}

/// A root file system with busybox and, if it is there, the program.
pub fn image_tar() -> Vec<u8> {
    let tar = fs::read(e2e::busybox_tar()).expect("read the image's tar");
    let Some(program) = program() else { return tar };
    let mut all = tar::Builder::new(Vec::new());
    let mut base = tar::Archive::new(tar.as_slice());
    for entry in base.entries().expect("read the image's tar") {
        let mut entry = entry.expect("read an entry of the image's tar");
        let mut header = entry.header().clone();
        let path = entry.path().expect("an entry has a path").into_owned();
        match entry.link_name().ok().flatten().map(|link| link.into_owned()) {
            Some(link) => all.append_link(&mut header, path, link).expect("copy a link"),
            None => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("read an entry of the image's tar");
                all.append_data(&mut header, path, content.as_slice()).expect("copy an entry");
            }
        }
    }
    let mut file = File::open(program).expect("open the program");
    all.append_file("./bin/hold", &mut file).expect("add the program");
    all.into_inner().expect("finish a tar in memory")
}

/// Asks again and again until there is an answer; gives it with the time that took.
pub fn ask(port: u16) -> Result<(Duration, Answer), String> {
    let began = Instant::now();
    loop {
        if let Some(answer) = try_ask(port) {
            return answer.map(|answer| (began.elapsed(), answer));
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("nobody answers on port {port}"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn try_ask(port: u16) -> Option<Result<Answer, String>> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (gap, wrong) = text.trim().split_once(' ')?;
    let gap = Duration::from_micros(gap.parse().ok()?);
    Some(if wrong == "0" { Ok(Answer { gap }) } else { Err(format!("{wrong} words of its memory are wrong")) })
}
