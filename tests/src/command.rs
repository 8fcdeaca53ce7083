//! Commands with a deadline, and what came of them.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{self, PidfdFlags, pidfd_open};

/// What came of a command.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command as it was given.
    pub command: String,
    /// Its exit status; 128 + n when signal n ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Done {
    /// Standard output without the white space around it.
    pub fn out(&self) -> &str {
        self.stdout.trim()
    }

    /// The lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Both outputs, as an error message wants them.
    pub fn report(&self) -> String {
        format!(
            "$ {}\nexit status {} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.took, self.stdout, self.stderr
        )
    }

    /// Panics unless one of the outputs holds `words`; gives itself back.
    #[track_caller]
    pub fn tells(self, words: &str) -> Self {
        let told = self.stderr.contains(words) || self.stdout.contains(words);
        assert!(told, "neither output says {words:?}\n{}", self.report());
        self
    }

    /// Panics unless standard error holds `words`; gives itself back.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        self.says_one_of(&[words])
    }

    /// The same of any of them: clients before 23 have words of their own for what is not found.
    #[track_caller]
    pub fn says_one_of(self, words: &[&str]) -> Self {
        let said = words.iter().any(|words| self.stderr.contains(words));
        assert!(said, "standard error does not say {words:?}\n{}", self.report());
        self
    }
}

/// Waits until `child` has ended, `limit` at most. `None` if it has not.
pub fn wait_within(child: &mut Child, limit: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;

    if let Some(pid) = i32::try_from(child.id()).ok().and_then(process::Pid::from_raw)
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
    {
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return None,
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => panic!("poll: {error}"),
            }
        }
    }
    let status = child.wait().expect("wait for a child");
    Some(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1))
}

/// Runs `command` with `input` as its standard input; kills it and panics when it takes longer than `limit`.
#[track_caller]
pub fn run(mut command: Command, words: &str, input: Option<Vec<u8>>, limit: Duration) -> Done {
    let began = Instant::now();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    // A group of its own, so that whatever it started can be ended with it.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("could not start `{words}`: {error}"));
    let writer = input.zip(child.stdin.take()).map(|(bytes, mut stdin)| {
        // A program that does not read its input is not an error of the test.
        thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &bytes)))
    });
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let ended = wait_within(&mut child, limit);
    if ended.is_none() {
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        child.wait().expect("wait for a child");
    }
    if let Some(writer) = writer {
        writer.join().expect("the writing thread");
    }
    let done = Done {
        command: words.to_owned(),
        code: ended.unwrap_or(-1),
        stdout: stdout.join().expect("the reading thread"),
        stderr: stderr.join().expect("the reading thread"),
        took: began.elapsed(),
    };
    assert!(ended.is_some(), "this took longer than {limit:?} and was killed\n{}", done.report());
    done
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
