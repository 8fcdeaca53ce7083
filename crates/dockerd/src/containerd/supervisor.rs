//! The task that looks after our docker-containerd.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::health;
use super::launch::Launch;
use super::process::Process;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// So many bad answers in a row are the end of it.
const BAD_ANSWERS: u32 = 3;
/// How long it may take from its launch to its first good answer.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long it may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Between two tries to connect while it starts.
const CONNECT_EVERY: Duration = Duration::from_millis(5);
/// The longest pause between two launches that both fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Our docker-containerd.
pub struct Supervisor {
    socket: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Uses the living one or launches one; returns when it answers.
    pub async fn start(launch: Launch) -> anyhow::Result<Self> {
        launch.prepare().with_context(|| format!("mkdir {}", launch.root.display()))?;
        let socket = launch.socket();
        let adopted = match Process::living(&socket, &launch.pid_file()).await {
            Some(mut process) => match wait_until_well(&mut process, &socket).await {
                Ok(channel) => {
                    tracing::info!(pid = process.pid(), "containerd is still running");
                    write_pid(&launch, process.pid())?;
                    Some((process, channel))
                }
                Err(error) => {
                    tracing::warn!(
                        pid = process.pid(),
                        error = format!("{error:#}"),
                        "the running containerd is unwell"
                    );
                    process.kill().await;
                    None
                }
            },
            None => None,
        };
        let (process, channel) = match adopted {
            Some(adopted) => adopted,
            None => start_one(&launch).await?,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(look_after(launch, process, channel, stop.clone()));
        Ok(Self { socket, stop, task })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it: SIGTERM, and SIGKILL after a while. Removes its pid file and socket.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that looks after containerd died");
        }
    }
}

/// Launches one and waits until it answers. One that does not is killed, also when this future is dropped.
async fn start_one(launch: &Launch) -> anyhow::Result<(Process, Channel)> {
    let mut process = Unready(Some(Process::child(launch.spawn()?)?));
    let Some(starting) = &mut process.0 else { bail!("the process is there until it is taken") };
    write_pid(launch, starting.pid())?;
    let well = wait_until_well(starting, &launch.socket()).await;
    match (well, process.0.take()) {
        (Ok(channel), Some(process)) => Ok((process, channel)),
        (Err(error), Some(mut process)) => {
            process.kill().await;
            Err(error)
        }
        (_, None) => bail!("the process is there until it is taken"),
    }
}

/// A process that is killed unless somebody takes it.
struct Unready(Option<Process>);

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            process.kill_now();
        }
    }
}

async fn wait_until_well(process: &mut Process, socket: &Path) -> anyhow::Result<Channel> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let tried = async {
            let channel = containerd_api::connect(socket).await?;
            health::ask(&channel).await.map(|()| channel)
        };
        let error = tokio::select! {
            tried = tried => match tried {
                Ok(channel) => return Ok(channel),
                Err(error) => error,
            },
            status = process.ended() => bail!("it ended at once: {status}"),
        };
        if Instant::now() >= deadline {
            return Err(error.context("it does not answer"));
        }
        // A socket cannot be waited for until it listens.
        tokio::time::sleep(CONNECT_EVERY).await;
    }
}

async fn look_after(launch: Launch, mut process: Process, mut channel: Channel, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break end(&launch, process).await,
            why = unwell(&mut process, &channel) => tracing::error!(pid = process.pid(), why, "containerd is gone"),
        }
        process.kill().await;
        let again = tokio::select! {
            () = stop.cancelled() => break remove_files(&launch),
            again = start_again(&launch) => again,
        };
        (process, channel) = again;
    }
}

/// Returns when it has ended, or has given too many bad answers.
async fn unwell(process: &mut Process, channel: &Channel) -> String {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bad = 0;
    loop {
        let asked = async {
            ticks.tick().await;
            health::ask(channel).await
        };
        tokio::select! {
            status = process.ended() => return format!("it ended: {status}"),
            answer = asked => match answer {
                Ok(()) => bad = 0,
                Err(error) => {
                    bad += 1;
                    tracing::warn!(error = format!("{error:#}"), bad, "containerd did not answer well");
                    if bad >= BAD_ANSWERS {
                        return format!("{bad} bad answers in a row");
                    }
                }
            }
        }
    }
}

/// Launches until one answers, with pauses that grow. May be cancelled.
async fn start_again(launch: &Launch) -> (Process, Channel) {
    let mut pause = Duration::from_millis(100);
    loop {
        match start_one(launch).await {
            Ok(started) => return started,
            Err(error) => tracing::error!(error = format!("{error:#}"), "containerd cannot be started again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn end(launch: &Launch, mut process: Process) {
    process.signal(Signal::TERM);
    if tokio::time::timeout(STOP_LIMIT, process.ended()).await.is_err() {
        tracing::warn!(pid = process.pid(), "containerd does not end on SIGTERM and is killed");
        process.kill().await;
    }
    remove_files(launch);
}

fn remove_files(launch: &Launch) {
    for path in [launch.pid_file(), launch.socket()] {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot be removed");
        }
    }
}

/// The pid file: a new one renamed into place, so that a reader never sees half a number.
fn write_pid(launch: &Launch, pid: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = launch.pid_file();
    let temporary = path.with_extension("pid.tmp");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, pid.to_string().as_bytes()));
    written.and_then(|()| std::fs::rename(&temporary, &path)).with_context(|| format!("write {}", path.display()))
}
