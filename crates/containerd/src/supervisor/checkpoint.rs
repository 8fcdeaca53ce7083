//! Checkpoints as docker-containerd sees them: directories with CRIU images and a `config.json`.
//!
//! `config.json` is written last and by a rename: a directory without one is not a checkpoint but what is left of an
//! attempt, is not listed, and does not stand in the way of the next attempt.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use containerd_api::types;
use serde::{Deserialize, Serialize};
use shim::protocol::Call;
use tracing::{info, warn};

use super::Shared;
use super::container::Container;
use super::writers::remove_behind;
use crate::appear::appear;
use crate::error::{Error, Result};
use crate::lookout;
use crate::process::HostProcess;
use crate::shims::ShimClient;
use crate::statedir::{self, ContainerDir};

const RECORD_NAME: &str = "config.json";
/// CRIU's work directory in that of the images.
pub const WORK_NAME: &str = "criu.work";
/// The same before the dump is complete.
const RECORD_NEW: &str = "config.json.new";
/// What our runtime measures, in the image or work directory.
const STATS_NAME: &str = "dormouse-stats.json";
const MAX_STATS_BYTES: u64 = 1 << 20;

/// What CRIU writes, in the work directory, when a dump is complete.
const DUMP_STATS_NAME: &str = "stats-dump";

/// What our runtime writes last of all that belongs to a checkpoint.
const OPTIONS_NAME: &str = "dormouse-options.json";
/// How long a shim may take to begin what it was asked for.
const BEGIN_PATIENCE: Duration = Duration::from_secs(1);
/// How long CRIU may take to end a container without its runtime.
pub const END_PATIENCE: Duration = Duration::from_secs(3);
/// How long a shim whose connection broke may take to end.
const SHIM_END_PATIENCE: Duration = Duration::from_secs(2);

/// A checkpoint that is being made, noted so that it is not lost when docker-containerd is: the dump goes on without it,
/// and may have ended the container.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    image_path: PathBuf,
    /// The runtime's last word.
    marker: PathBuf,
    record: Record,
}

/// `config.json` of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    #[serde(default)]
    created: DateTime<Utc>,
    name: String,
    #[serde(default)]
    tcp: bool,
    #[serde(default)]
    unix_sockets: bool,
    #[serde(default)]
    shell: bool,
    #[serde(default)]
    exit: bool,
    #[serde(default, rename = "emptyNS", skip_serializing_if = "Vec::is_empty")]
    empty_ns: Vec<String>,
    /// The runtime chose the options and stored them with the images.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    auto: bool,
}

impl Record {
    fn args(&self) -> Vec<String> {
        let flags =
            [(self.shell, "--shell-job"), (self.tcp, "--tcp-established"), (self.unix_sockets, "--ext-unix-sk")];
        let mut args: Vec<String> = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| (*flag).to_owned()).collect();
        for ns in &self.empty_ns {
            args.extend(["--empty-ns".to_owned(), ns.clone()]);
        }
        args
    }

    /// The options of `restore`; `--auto` when the images say how.
    pub fn restore_args(&self, auto: bool) -> Vec<String> {
        if auto || self.auto { vec!["--auto".to_owned()] } else { self.args() }
    }
}

/// Where the checkpoints of a bundle are: `dir`, or `checkpoints` in the bundle.
///
/// # Errors
/// When `dir` is not absolute.
pub fn directory(bundle: &Path, dir: &str) -> Result<PathBuf> {
    let dir = if dir.is_empty() { bundle.join("checkpoints") } else { PathBuf::from(dir) };
    if dir.is_absolute() {
        return Ok(dir);
    }
    Err(Error::InvalidName { what: "checkpoint directory", name: dir.to_string_lossy().into_owned() })
}

/// The record of the checkpoint in this directory.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn read_record(checkpoint: &Path) -> Result<Record> {
    statedir::read_json(&checkpoint.join(RECORD_NAME))
}

/// What the runtime measured, from the first of its directories that has it; empty when it measured nothing.
pub fn stats(work_path: &Path, image_path: &Path) -> String {
    let read = |dir: &Path| crate::bundle::read_bounded(&dir.join(STATS_NAME), MAX_STATS_BYTES).ok();
    let bytes = read(work_path).or_else(|| read(image_path)).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

fn frozen_time(stats: &str) -> Option<Duration> {
    let stats: serde_json::Value = serde_json::from_str(stats).ok()?;
    stats["frozen_us"].as_u64().map(Duration::from_micros)
}

/// Makes a checkpoint of a running container; returns what the runtime measured.
pub async fn create(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    request: types::CreateCheckpointRequest,
) -> Result<String> {
    let options = request.checkpoint.ok_or_else(|| Error::InvalidParameter("checkpoint is missing".into()))?;
    let _busy = shared.activity.begin(format!("checkpoint {} of container {}", options.name, container.id()));
    let _changing = container.changing.lock().await;
    let dir = directory(&container.record.bundle, &request.checkpoint_dir)?;
    let runtime_chooses = options.auto && container.runtime.chooses_checkpoint_options().await;
    let record = Record {
        created: Utc::now(),
        name: options.name.clone(),
        tcp: options.tcp,
        unix_sockets: options.unix_sockets,
        shell: options.shell,
        exit: options.exit,
        empty_ns: options.empty_ns.clone(),
        auto: runtime_chooses,
    };
    if !options.name.is_empty() {
        crate::names::checkpoint(&options.name)?;
    }
    let image_path = dir.join(&options.name);
    let work_path = image_path.join(WORK_NAME);
    let marker = if runtime_chooses { image_path.join(STATS_NAME) } else { work_path.join(DUMP_STATS_NAME) };
    // Before the directory: one that nobody knows of would stay if docker-containerd ended right now.
    let note_path = container.dir.checkpoint_note();
    statedir::write_json(&note_path, &Note { image_path: image_path.clone(), marker, record: record.clone() })?;
    let (name, written) = (options.name.clone(), record.clone());
    // The last word is written first and given its name last, which a full disk does not hinder.
    let making = move || {
        let path = make_directory(&dir, &name)?;
        statedir::write_json(&path.join(RECORD_NEW), &written).inspect_err(|_| {
            let _ = statedir::remove_tree(&path);
        })
    };
    if let Err(error) = spawn_blocking(making).await {
        let _ = fs::remove_file(note_path);
        return Err(error);
    }
    let mut args = vec!["--image-path".to_owned(), utf8(&image_path)?, "--work-path".to_owned(), utf8(&work_path)?];
    if !options.exit {
        args.push("--leave-running".to_owned());
    }
    if runtime_chooses {
        args.push("--auto".to_owned());
        for capture in &options.capture {
            args.extend(["--capture".to_owned(), format!("{}={}", capture.name, capture.path)]);
        }
    } else {
        args.extend(record.args());
        if !options.capture.is_empty() {
            warn!(id = container.id(), "this runtime cannot capture files while the container is frozen");
        }
    }
    let began = Instant::now();
    let result = match container.shim() {
        Ok(shim) => ask_shim(shim, args).await,
        Err(error) => Err(error),
    };
    let result = match result {
        Err(error) if options.exit && ends_by_dump(container, &image_path).await => {
            warn!(%error, id = container.id(), "the runtime failed after the dump was complete; the checkpoint is kept");
            Ok(())
        }
        other => other,
    };
    let made = result.and_then(|()| give_name(&image_path));
    if made.is_err() {
        if let Err(error) = remove_behind(image_path.clone()).await {
            warn!(%error, "cannot remove what is left of a failed checkpoint");
        }
    }
    // Gone with the container, if the checkpoint was its end.
    let _ = fs::remove_file(note_path);
    made?;
    shared.metrics.checkpoint.update(began.elapsed());
    let stats = spawn_blocking(move || Ok(stats(&work_path, &image_path))).await?;
    if let Some(frozen) = frozen_time(&stats) {
        shared.metrics.checkpoint_frozen.update(frozen);
    }
    Ok(stats)
}

async fn ask_shim(shim: &ShimClient, args: Vec<String>) -> Result<()> {
    let asked = shim.call(Call::Checkpoint { args }).await.map(drop);
    if matches!(asked, Err(Error::ShimLost)) {
        // With its end the kernel kills the runtime, which until then may begin something.
        let _ = tokio::time::timeout(SHIM_END_PATIENCE, shim.ended()).await;
    }
    asked
}

/// Makes a directory whose dump is complete a checkpoint.
fn give_name(image_path: &Path) -> Result<()> {
    let record_path = image_path.join(RECORD_NAME);
    fs::rename(image_path.join(RECORD_NEW), &record_path).map_err(Error::path("rename to", &record_path))
}

/// Finishes what an earlier docker-containerd has begun: a dump that is complete, or completes within `patience`, is a
/// checkpoint; what is left of any other is removed.
pub async fn recover(dir: &ContainerDir, patience: Duration, init: Option<HostProcess>) {
    let note_path = dir.checkpoint_note();
    if !note_path.exists() {
        return;
    }
    match statedir::read_json::<Note>(&note_path) {
        Ok(note) => {
            let told = told_within(patience, &note).await;
            // A runtime that was killed after CRIU had the last word.
            let ended = note.record.exit && init.is_none_or(|init| !init.is_alive());
            let complete = told || (ended && is_dumped(&note.image_path));
            let record_path = note.image_path.join(RECORD_NAME);
            let settled = match (record_path.exists(), complete) {
                (true, _) => Ok(()),
                (false, true) => {
                    give_name(&note.image_path).or_else(|_| statedir::write_json(&record_path, &note.record))
                }
                // Somebody else's directory of that name is left alone.
                (false, false) if !is_left_over(&note.image_path) => Ok(()),
                (false, false) => remove_behind(note.image_path).await,
            };
            match settled {
                Ok(()) => info!(name = note.record.name, complete, "settled a checkpoint that was being made"),
                Err(error) => warn!(%error, name = note.record.name, "cannot settle a checkpoint that was being made"),
            }
        }
        Err(error) => warn!(%error, "cannot read the note of a checkpoint"),
    }
    let _ = fs::remove_file(note_path);
}

/// Whether the runtime has its last word to say, within `patience` or before it ends.
async fn told_within(patience: Duration, note: &Note) -> bool {
    let until = tokio::time::Instant::now() + patience;
    let over = async {
        // The shim may have been asked and not have begun yet; docker-containerd may as well have died before it asked.
        tokio::time::sleep(BEGIN_PATIENCE).await;
        let image_path = note.image_path.clone();
        let runtimes = tokio::task::spawn_blocking(move || runtimes_writing(&image_path)).await.unwrap_or_default();
        lookout::all_ended(runtimes, until).await
    };
    tokio::select! {
        appeared = tokio::time::timeout_at(until, appear(&note.marker)) => matches!(appeared, Ok(Ok(()))),
        // It is the last word that counts.
        _ = over => note.marker.exists(),
    }
}

/// The runtimes that were told to write a checkpoint here.
fn runtimes_writing(image_path: &Path) -> Vec<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let path = image_path.as_os_str().as_bytes();
    lookout::find(|process| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        words.any(|word| word == b"checkpoint") && words.any(|word| word == path)
    })
}

/// Whether a dump came so far that nothing is missing from it: our runtime writes its options last, before it lets CRIU
/// end the processes.
fn is_dumped(image_path: &Path) -> bool {
    let options = crate::bundle::read_bounded(&image_path.join(OPTIONS_NAME), MAX_STATS_BYTES).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&options).is_ok() && image_path.join("inventory.img").is_file()
}

/// After a runtime that failed, killed perhaps: whether its dump was complete and the container ends with it. CRIU works
/// on without the runtime; it either ends the processes now or lets them go on.
async fn ends_by_dump(container: &Container, image_path: &Path) -> bool {
    if !is_dumped(image_path) {
        return false;
    }
    let Some(init) = container.init() else { return false };
    let Ok(pidfd) = init.pidfd().and_then(crate::fd::watch) else { return !init.is_alive() };
    tokio::time::timeout(END_PATIENCE, crate::process::ended(&pidfd)).await.is_ok()
}

/// Makes `<dir>/<name>` with CRIU's work directory in it; one that holds only a failed attempt is made afresh.
fn make_directory(dir: &Path, name: &str) -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o755).recursive(true).create(dir).map_err(Error::path("mkdir", dir))?;
    if name.is_empty() {
        return Err(Error::exists(dir));
    }
    crate::names::checkpoint(name)?;
    let path = dir.join(name);
    let make = || fs::DirBuilder::new().mode(0o755).create(&path);
    match make() {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && is_left_over(&path) => {
            warn!(path = %path.display(), "removing what is left of a checkpoint that was never finished");
            statedir::remove_tree(&path)?;
            make()
        }
        other => other,
    }
    .map_err(Error::path("mkdir", &path))?;
    let work_path = path.join(WORK_NAME);
    fs::DirBuilder::new().mode(0o755).create(&work_path).map_err(Error::path("mkdir", &work_path))?;
    Ok(path)
}

/// Only a directory of ours: CRIU's work directory is in it, or nothing at all.
fn is_left_over(path: &Path) -> bool {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let is_empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    is_dir && !path.join(RECORD_NAME).exists() && (path.join(WORK_NAME).exists() || is_empty())
}

/// Removes a checkpoint; one that does not exist is fine.
pub async fn delete(container: &Arc<Container>, request: types::DeleteCheckpointRequest) -> Result<()> {
    let dir = directory(&container.record.bundle, &request.checkpoint_dir)?;
    if request.name.is_empty() {
        return Err(Error::EmptyCheckpointName);
    }
    crate::names::checkpoint(&request.name)?;
    let _changing = container.changing.lock().await;
    spawn_blocking(move || statedir::remove_tree(&dir.join(request.name))).await
}

/// Every whole checkpoint in the directory, sorted by name.
pub async fn list(
    container: &Arc<Container>,
    request: types::ListCheckpointRequest,
) -> Result<types::ListCheckpointResponse> {
    let dir = directory(&container.record.bundle, &request.checkpoint_dir)?;
    let checkpoints = spawn_blocking(move || {
        let entries = fs::read_dir(&dir).map_err(Error::path("open", &dir))?;
        let mut records: Vec<Record> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| read_record(&entry.path()).ok())
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    })
    .await?;
    let checkpoints = checkpoints
        .into_iter()
        .map(|record| types::Checkpoint {
            name: record.name,
            tcp: record.tcp,
            shell: record.shell,
            unix_sockets: record.unix_sockets,
            ..types::Checkpoint::default()
        })
        .collect();
    Ok(types::ListCheckpointResponse { checkpoints })
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::InvalidParameter("checkpointDir is not UTF-8".into()))
}

async fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Closing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_the_originals() {
        let text = r#"{"created":"2017-03-01T10:00:00.5Z","name":"cp1","tcp":true,"unixSockets":true,"shell":false,
            "exit":false,"emptyNS":["network"]}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.args(), ["--tcp-established", "--ext-unix-sk", "--empty-ns", "network"]);
        assert_eq!(record.restore_args(true), ["--auto"]);
        let again = serde_json::to_value(&record).unwrap();
        assert_eq!(again["emptyNS"][0], "network");
        assert!(again.get("auto").is_none());
    }

    #[tokio::test]
    async fn a_dump_that_went_on_alone_is_settled() {
        for complete in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let image_path = make_directory(dir.path(), "cp1").unwrap();
            let marker = image_path.join(WORK_NAME).join(DUMP_STATS_NAME);
            let state = statedir::StateDir::open(&dir.path().join("state")).unwrap();
            let container = state.container("a");
            fs::create_dir(container.path()).unwrap();
            let record: Record = serde_json::from_str(r#"{"name":"cp1","exit":true}"#).unwrap();
            let note = Note { image_path: image_path.clone(), marker: marker.clone(), record };
            statedir::write_json(&container.checkpoint_note(), &note).unwrap();
            let completing = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if complete {
                    fs::write(marker, "").unwrap();
                }
            };
            tokio::join!(recover(&container, Duration::from_millis(300), None), completing);
            assert_eq!(read_record(&image_path).is_ok(), complete);
            assert_eq!(image_path.exists(), complete);
            assert!(!container.checkpoint_note().exists());
        }
    }

    #[tokio::test]
    async fn a_dump_whose_runtime_was_killed_counts_when_the_container_has_ended() {
        let us = HostProcess::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        for (init, kept) in [(None, true), (Some(us), false)] {
            let dir = tempfile::tempdir().unwrap();
            let image_path = make_directory(dir.path(), "cp1").unwrap();
            fs::write(image_path.join("inventory.img"), "").unwrap();
            fs::write(image_path.join(OPTIONS_NAME), "{}").unwrap();
            fs::write(image_path.join(RECORD_NEW), r#"{"name":"cp1"}"#).unwrap();
            let state = statedir::StateDir::open(&dir.path().join("state")).unwrap();
            let container = state.container("a");
            fs::create_dir(container.path()).unwrap();
            let record: Record = serde_json::from_str(r#"{"name":"cp1","exit":true}"#).unwrap();
            let note = Note { image_path: image_path.clone(), marker: image_path.join(STATS_NAME), record };
            statedir::write_json(&container.checkpoint_note(), &note).unwrap();
            recover(&container, Duration::from_millis(10), init).await;
            assert_eq!(read_record(&image_path).is_ok(), kept);
            assert_eq!(image_path.exists(), kept);
            assert!(!image_path.join(RECORD_NEW).exists());
        }
    }

    #[test]
    fn a_left_over_gives_way_and_a_checkpoint_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = make_directory(dir.path(), "cp1").unwrap();
        fs::write(path.join("pages-1.img"), "x").unwrap();
        make_directory(dir.path(), "cp1").unwrap();
        assert!(!path.join("pages-1.img").exists());
        fs::write(path.join(RECORD_NAME), "{}").unwrap();
        let text = make_directory(dir.path(), "cp1").unwrap_err().to_string();
        assert_eq!(text, format!("mkdir {}: file exists", path.display()));
        let text = make_directory(dir.path(), "").unwrap_err().to_string();
        assert_eq!(text, format!("mkdir {}: file exists", dir.path().display()));
        assert!(make_directory(dir.path(), "../esc").is_err());
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/precious"), "x").unwrap();
        assert!(make_directory(dir.path(), "other").is_err(), "somebody else's directory is not removed");
    }
}
