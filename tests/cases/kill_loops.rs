//! SIGKILL of any program at any moment of a checkpoint or a wake: afterwards the container runs on or can be woken, its
//! checkpoints are whole, and nothing is left over.
//!
//! Every round asks for something, waits until the victim is at work, waits a little longer (that is what is varied), and
//! kills it. Meanwhile somebody outside is connected with the container, so that its traffic is blocked for a moment in
//! each round. Afterwards the machine must look as before: no mount, no frozen control group, no namespace, no firewall
//! rule more. The ordinary run makes a round for each victim; the long one goes on for `DORMOUSE_LOOP_SECONDS`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{Background, COUNT_SCRIPT, Engine, eventually, eventually_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Dockerd,
    Containerd,
    Shim,
    Runtime,
    Criu,
    /// The container itself.
    Container,
}

impl Victim {
    /// How long it has to do with a deed, about. What is later kills it when all is over.
    fn busy_milliseconds(self) -> u64 {
        match self {
            Victim::Dockerd | Victim::Containerd | Victim::Shim => 160,
            Victim::Runtime => 100,
            Victim::Criu | Victim::Container => 60,
        }
    }
}

/// What is going on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// A checkpoint that ends the container.
    Sleep,
    /// A checkpoint that does not.
    Snapshot,
    /// A wake.
    Wake,
}

const VICTIMS: [Victim; 6] =
    [Victim::Dockerd, Victim::Containerd, Victim::Shim, Victim::Runtime, Victim::Criu, Victim::Container];
const DEEDS: [Deed; 3] = [Deed::Sleep, Deed::Snapshot, Deed::Wake];

#[test]
fn whoever_is_killed_the_container_goes_on_or_can_be_woken() {
    // Each victim once, in a deed that is another one from victim to victim; more if the machine is quick.
    rounds(Duration::from_secs(12), VICTIMS.len());
}

#[test]
#[ignore = "takes DORMOUSE_LOOP_SECONDS, ten minutes if not said"]
fn whoever_is_killed_for_a_long_time() {
    let seconds = std::env::var("DORMOUSE_LOOP_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    rounds(Duration::from_secs(seconds), VICTIMS.len() * DEEDS.len());
}

fn rounds(at_least: Duration, least_rounds: usize) {
    let mut chance = Chance::new();
    let engine = Engine::start();
    let mut subject = Subject::start(&engine);
    let began = Instant::now();
    let mut told = Vec::new();
    let mut round = 0;
    while round < least_rounds || began.elapsed() < at_least {
        let victim = VICTIMS[round % VICTIMS.len()];
        // Every victim in every deed in turn.
        let deed = DEEDS[(round + round / VICTIMS.len()) % DEEDS.len()];
        let moment = Duration::from_millis(chance.below(victim.busy_milliseconds()));
        let what = format!("round {round}: {victim:?} is killed {moment:?} into {deed:?}");
        eprintln!("{what}");
        let outcome = subject.round(round, victim, deed, moment);
        told.push(format!("{what}: {outcome}"));
        eprintln!("  {outcome}");
        round += 1;
    }
    eprintln!("{round} rounds in {:?}, seed {}", began.elapsed(), chance.seed);
    subject.end();
}

/// Reproducible chance (xorshift).
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
        let seed = std::env::var("DORMOUSE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now as u64 | 1);
        eprintln!("DORMOUSE_SEED={seed}");
        Self { seed, state: seed }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }
}

/// The container that is put to sleep and woken.
struct Subject<'a> {
    engine: &'a Engine,
    id: String,
    /// The checkpoint to wake from when there is no other.
    last: (String, u64),
    /// Somebody outside who is connected.
    caller: Background,
    calls: u32,
    /// What there is for it on the machine while it runs.
    belongings: Vec<String>,
}

/// In time before the block of a checkpoint that nobody ends would run out by itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

impl<'a> Subject<'a> {
    fn start(engine: &'a Engine) -> Self {
        let id = engine.ok(&format!(
            "docker run -d --name c1 -p 127.0.0.1::80 --tmpfs /scratch -v data:/data busybox \
             sh -c 'nc -ll -p 80 -e cat & {COUNT_SCRIPT}'"
        ));
        let caller = Self::call(engine, 0);
        let mut subject = Self { engine, id, last: (String::new(), 0), caller, calls: 0, belongings: Vec::new() };
        let counted = subject.counts_past(3);
        assert!(subject.is_answered(), "the port answers");
        engine.ok("docker checkpoint create --leave-running c1 base");
        subject.last = ("base".into(), counted);
        assert!(subject.is_answered(), "the port answers after a checkpoint");
        subject.belongings = engine.belongings(&subject.id);
        subject
    }

    fn call(engine: &Engine, number: u32) -> Background {
        let address = engine.inspect("c1", "{{.NetworkSettings.IPAddress}}");
        engine.background(&format!("caller{number}"), &format!("busybox nc {address} 80"))
    }

    /// Whether the container answers whoever is connected.
    fn is_answered(&mut self) -> bool {
        self.calls += 1;
        let word = format!("call-{}-", self.calls);
        let deadline = Instant::now() + ANSWER_LIMIT;
        if !self.caller.hears(&format!("{word}\n")) {
            return false;
        }
        while !self.caller.output().contains(&word) {
            if Instant::now() > deadline || self.caller.has_ended() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// It has what it had, and nothing else: no mount, no frozen group, no namespace, no rule was left behind.
    fn nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.engine.belongings(&self.id);
            if now == self.belongings {
                return;
            }
            // Some are there several times, as the rules of the firewall are.
            let count = |all: &[String], thing: &String| all.iter().filter(|other| *other == thing).count();
            let more_than = |a: &[String], b: &[String]| -> BTreeSet<String> {
                a.iter().filter(|thing| count(a, thing) > count(b, thing)).cloned().collect()
            };
            let (more, less) = (more_than(&now, &self.belongings), more_than(&self.belongings, &now));
            assert!(
                Instant::now() < deadline,
                "left behind: {more:#?}; missing: {less:#?}\n{}",
                self.engine.log_tail()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> Vec<u64> {
        let log = self.engine.ok("docker logs --tail 200 c1");
        log.lines().map(|line| line.trim().parse().unwrap_or_else(|_| panic!("no number: {line:?}"))).collect()
    }

    fn counts_past(&self, number: u64) -> u64 {
        eventually(format!("c1 counts past {number}"), || self.log().last().copied().filter(|last| *last > number))
    }

    fn runs(&self) -> bool {
        self.engine.inspect("c1", "{{.State.Running}}") == "true"
    }

    /// It counts on, and never began anew: numbers only ever follow each other, but for a step back to a checkpoint.
    fn goes_on(&self, at_least: u64) {
        let first = self.log().last().copied().unwrap_or(0);
        let log = eventually("c1 counts", || {
            let log = self.log();
            (self.runs() && log.last() > Some(&at_least) && log.last() != Some(&first)).then_some(log)
        });
        for pair in log.windows(2) {
            assert!(pair[1] == pair[0] + 1 || (pair[1] > 3 && pair[1] <= pair[0] + 1), "the count broke: {pair:?}");
        }
    }

    fn wake(&mut self) -> String {
        let (name, counted) = self.last.clone();
        self.engine.ok(&format!("docker start --checkpoint {name} c1"));
        self.goes_on(counted);
        name
    }

    /// The names of its checkpoints; every one is whole, to the last byte.
    fn checkpoints(&self) -> BTreeSet<String> {
        let answer = self.engine.get("/containers/c1/checkpoints?verify=1");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let list: serde_json::Value = serde_json::from_str(&answer.text()).expect("a list");
        let list = list.as_array().expect("a list");
        for entry in list {
            assert_eq!(entry["Valid"], true, "{entry}");
        }
        list.iter().filter_map(|entry| Some(entry["Name"].as_str()?.to_owned())).collect()
    }

    fn round(&mut self, round: usize, victim: Victim, deed: Deed, moment: Duration) -> String {
        let engine = self.engine;
        let name = format!("cp{round}");
        if deed == Deed::Wake {
            let asleep = format!("asleep{round}");
            let counted = self.log().last().copied().unwrap_or(0);
            engine.ok(&format!("docker checkpoint create c1 {asleep}"));
            self.last = (asleep, counted);
        }
        let counted = self.log().last().copied().unwrap_or(0);
        let init: i32 = engine.inspect("c1", "{{.State.Pid}}").parse().expect("a pid");
        let command = match deed {
            Deed::Sleep => format!("docker checkpoint create c1 {name}"),
            Deed::Snapshot => format!("docker checkpoint create --leave-running c1 {name}"),
            Deed::Wake => format!("docker start --checkpoint {} c1", self.last.0),
        };
        let mut deed_done = engine.background("deed", &command);
        let found = self.find(victim, deed, init, &mut || deed_done.has_ended());
        if let Some(pid) = found {
            std::thread::sleep(moment); // the moments are the test
            match victim {
                Victim::Dockerd => engine.kill_dockerd(),
                // It may have ended meanwhile.
                _ => drop(kill(pid, Signal::SIGKILL)),
            }
        }
        let code = deed_done.ends();
        if victim == Victim::Dockerd && found.is_some() {
            engine.boot();
        }
        eventually_within(Duration::from_secs(30), "the engine works", || {
            (engine.run("docker ps -q").code == 0).then_some(())
        });
        self.nobody_is_at_it();
        if victim == Victim::Shim && found.is_some() {
            // Whatever was asked for, its container ends with it, a moment later.
            engine.wait_for_state("c1", "exited");
        }
        let there = self.checkpoints();
        let answered = if found.is_none() {
            "not met"
        } else if code == 0 {
            "done"
        } else {
            "failed"
        };
        if deed != Deed::Wake && code == 0 {
            assert!(there.contains(&name), "what was answered for is there");
        }
        if there.contains(&name) {
            self.last = (name.clone(), counted);
        }
        // What became of it is known at once, but for an end that is on its way.
        let runs = self.stands();
        let outcome = match (runs, deed) {
            (true, Deed::Sleep) if there.contains(&name) => {
                panic!("{name} is whole, and the container runs on\n{}", engine.log_tail())
            }
            (true, _) => {
                self.goes_on(counted);
                format!("{answered}, runs on")
            }
            (false, Deed::Sleep) if there.contains(&name) => format!("{answered}, woken from {}", self.wake()),
            (false, Deed::Wake) => format!("{answered}, woken from {}", self.wake()),
            // Its shim is the one program that a container cannot live without.
            (false, _) if victim == Victim::Shim => {
                format!("{answered}, ended with its shim, woken from {}", self.wake())
            }
            // CRIU lets a process do system calls for it, one by one. If it is killed just then, the kernel lets go of the
            // process in the middle of one that is followed by a breakpoint, and that is its end.
            (false, _) if victim == Victim::Criu && engine.inspect("c1", "{{.State.ExitCode}}") == "133" => {
                format!("{answered}, ended with CRIU, woken from {}", self.wake())
            }
            (false, _) if victim == Victim::Container => format!("{answered}, ended, woken from {}", self.wake()),
            (false, _) => panic!("neither does it run nor was it put to sleep: {}", engine.log_tail()),
        };
        self.nothing_is_left();
        // Whoever is connected is answered by one process, whoever comes later by another.
        let listens = || engine.ok("docker top c1 -o pid,comm").contains(" nc");
        let answered = self.is_answered() && (victim != Victim::Criu || listens());
        // The same of a process that is not the first one.
        let outcome = match answered || victim != Victim::Criu || deed == Deed::Wake || outcome.contains("woken") {
            true => outcome,
            false => {
                engine.ok("docker kill c1");
                engine.wait_for_state("c1", "exited");
                format!("{outcome} without a process, woken from {}", self.wake())
            }
        };
        // Whoever went on has lost nobody. One that was woken as it was before may have said or heard more than it knows.
        assert!(answered || outcome.contains("woken"), "{outcome}, and whoever is connected is not answered");
        if !answered {
            self.caller = Self::call(engine, self.calls);
            assert!(self.is_answered(), "{outcome}, and does not answer a newcomer\n{}", engine.log_tail());
        }
        for old in there.iter().filter(|old| **old != self.last.0 && *old != "base") {
            engine.ok(&format!("docker checkpoint rm c1 {old}"));
        }
        outcome
    }

    /// Whether it runs, once that does not change any more.
    fn stands(&self) -> bool {
        eventually("the engine says what became of it", || {
            let pid: i32 = self.engine.inspect("c1", "{{.State.Pid}}").parse().ok()?;
            match pid {
                0 => Some(false),
                pid => {
                    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                    let state = stat.rsplit_once(") ")?.1.chars().next()?;
                    (!matches!(state, 'Z' | 'X')).then_some(true)
                }
            }
        })
    }

    /// The victim, once it is at work; `None` if the deed was done before it was seen.
    fn find(&self, victim: Victim, deed: Deed, init: i32, done: &mut dyn FnMut() -> bool) -> Option<Pid> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let found = match victim {
                Victim::Dockerd => Some(self.engine.dockerd_pid()),
                Victim::Containerd => Some(self.engine.containerd_pid()),
                Victim::Shim => self.processes().find(|(_, command)| is_shim(command)).map(|p| p.0),
                Victim::Runtime => self.processes().find(|(_, command)| is_runtime(command)).map(|p| p.0),
                Victim::Criu => criu(self.engine.home()).into_iter().next(),
                // Once CRIU is at it.
                Victim::Container if deed != Deed::Wake => {
                    criu(self.engine.home()).first().map(|_| Pid::from_raw(init))
                }
                // There is only what is becoming a container.
                Victim::Container => criu(self.engine.home()).into_iter().next(),
            };
            if found.is_some() {
                return found;
            }
            if done() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no {victim:?} was ever seen");
    }

    /// The engine's processes and their command lines, words parted by blanks.
    fn processes(&self) -> impl Iterator<Item = (Pid, String)> {
        let home = self.engine.home().to_string_lossy().into_owned();
        all_processes().filter(move |(_, command)| command.contains(&home))
    }

    /// Neither a runtime nor CRIU is left at work, and nothing in the making.
    fn nobody_is_at_it(&self) {
        let folder = self.engine.data_root().join("containers").join(&self.id).join("checkpoints");
        eventually_within(Duration::from_secs(30), "everything has come to its end", || {
            let entries = fs::read_dir(&folder).expect("read a folder").flatten();
            let staged = entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with('.'));
            let idle = !staged
                && !self.processes().any(|(_, command)| is_runtime(&command))
                && criu(self.engine.home()).is_empty();
            idle.then_some(())
        });
    }

    fn end(self) {
        let engine = self.engine;
        let address = engine.inspect("c1", "{{.NetworkSettings.IPAddress}}");
        engine.ok("docker rm -f -v c1");
        let ruleset = engine.ok("nft list ruleset");
        let named = ruleset.split(|c: char| !c.is_ascii_digit() && c != '.').any(|word| word == address);
        assert!(!named, "{address} is still in the firewall");
        assert_eq!(engine.ok(&format!("ip -o link show master {}", engine.bridge())), "", "veths");
        eventually("its network namespace is gone", || {
            let netns = engine.exec_root().join("netns");
            (fs::read_dir(netns).map_or(0, Iterator::count) == 0).then_some(())
        });
        assert_eq!(engine.stop_dockerd(), 0);
        let left = engine.leftovers(&[&self.id]);
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

fn is_shim(command: &str) -> bool {
    command.split(' ').next().is_some_and(|program| program.ends_with("docker-containerd-shim"))
}

fn is_runtime(command: &str) -> bool {
    command.split(' ').next().is_some_and(|program| program.ends_with("docker-runc")) && command.contains(" --")
}

/// CRIU does not say for whom it works; its descriptors do.
fn criu(home: &Path) -> Vec<Pid> {
    let ours = |pid: Pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target.starts_with(home))
    };
    all_processes().filter(|(pid, command)| command.contains(" swrk ") && ours(*pid)).map(|(pid, _)| pid).collect()
}

fn all_processes() -> impl Iterator<Item = (Pid, String)> {
    fs::read_dir("/proc").expect("read /proc").flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok().filter(|command| !command.is_empty())?;
        let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        Some((Pid::from_raw(pid), words.join(" ")))
    })
}
