//! `checkpoint create`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use checkpoint::{Address, HostFacts, Manifest, Measured, ROOTFS, SHM, Staging};
use chrono::Utc;
use containerd_api::types::{Capture, Checkpoint};

use crate::Daemon;
use crate::containers::Container;
use crate::containers::record::Record;
use crate::containers::state::{Running, not_running};
use crate::error::{Context, Error, Result, blocking};

impl Daemon {
    /// Puts a container to sleep under a name; with `exit` its processes end, otherwise they go on.
    pub(crate) async fn checkpoint_create(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        dir: Option<&Path>,
        exit: bool,
    ) -> Result<()> {
        let container = self.container(name)?;
        let _op = container.op.lock().await;
        let record = container.record();
        let Some(running) = record.state.running().cloned() else {
            return Err(not_running(&container.id));
        };
        checkpoint::check_name(checkpoint)?;
        self.refuse_running_execs(&container)?;
        let directory = self.checkpoints_of(&record.id, dir);
        let staging = directory.stage(checkpoint).map_err(|e| match e {
            checkpoint::Error::Exists(_) => Error::Conflict(format!(
                "checkpoint with name {checkpoint} already exists for container {}",
                record.name
            )),
            other => other.into(),
        })?;
        let started = std::time::Instant::now();
        let manifest = self.manifest(&record, &running, checkpoint);
        staging.write_manifest(&manifest)?;
        self.stop_health_checks(&container);
        // Said before the end can come: a container that was put to sleep is not started afresh by its policy.
        let asleep = |asleep: bool| {
            container.change(|r| {
                r.asleep = asleep;
                Ok(())
            })
        };
        if exit {
            asleep(true)?;
        }
        let done = self.dump(&record, &staging, checkpoint, exit, &manifest, started).await;
        let done = match done {
            Ok(()) => blocking(move || Ok(staging.commit()?)).await.map(drop),
            Err(e) => {
                drop(staging);
                Err(e)
            }
        };
        match done {
            Ok(()) => {
                if !exit {
                    self.start_health_checks(&container);
                }
                self.container_event(&record, "checkpoint", &[("checkpoint", checkpoint.to_owned())]);
                Ok(())
            }
            Err(e) => {
                if exit {
                    asleep(false)?;
                }
                self.start_health_checks(&container);
                Err(Error::System(format!(
                    "Cannot checkpoint container {}: {}",
                    record.name,
                    plain_words(&e.to_string())
                )))
            }
        }
    }

    /// CRIU's images, and the trees that belong to them.
    async fn dump(
        self: &Arc<Self>,
        record: &Arc<Record>,
        staging: &Staging,
        name: &str,
        exit: bool,
        manifest: &Manifest,
        started: std::time::Instant,
    ) -> Result<()> {
        let captures = self.captures(record)?;
        let asked = Checkpoint {
            name: name.to_owned(),
            exit,
            tcp: true,
            unix_sockets: true,
            shell: false,
            // The namespace is made by us before a restore and given by path: it is external, not empty.
            empty_ns: Vec::new(),
            auto: true,
            capture: captures.clone(),
        };
        let stats = self.containerd.checkpoint(&record.id, staging.parent(), asked).await?;
        let place = staging.place();
        let missing: Vec<Capture> =
            captures.into_iter().filter(|c| !place.join(format!("{}.tar", c.name)).exists()).collect();
        if !missing.is_empty() {
            // A runtime that captures nothing itself. Of a container that ended nothing moves any more; of one that goes
            // on, what it wrote since is in too.
            let place = place.clone();
            let captured = blocking(move || missing.iter().try_for_each(|c| capture(c, &place))).await;
            match captured {
                Err(e) if exit => tracing::error!("the files of {} stay where they are: {e}", record.short_id()),
                other => other?,
            }
        }
        let mut measured: Measured = serde_json::from_str(&stats).unwrap_or_default();
        measured.total_us = Some(started.elapsed().as_micros() as u64);
        let told = staging.file_sizes().and_then(|files| {
            staging.write_manifest(&Manifest { files, measured: Some(measured), ..manifest.clone() })
        });
        match told {
            // The processes are in the images only: the manifest of before the dump is enough to wake them.
            Err(e) if exit => tracing::error!("the manifest of {} stays as it was: {e}", record.short_id()),
            other => other?,
        }
        Ok(())
    }

    /// The trees that a checkpoint holds beside the memory.
    fn captures(&self, record: &Record) -> Result<Vec<Capture>> {
        let paths = self.images.graph_driver(&record.id)?;
        let path = |p: &Path| p.to_string_lossy().into_owned();
        let mut captures = vec![Capture { name: ROOTFS.into(), path: path(&paths.upper) }];
        if crate::containers::own_shm(record) {
            captures.push(Capture { name: SHM.into(), path: path(&self.shm_dir(&record.id)) });
        }
        Ok(captures)
    }

    fn manifest(&self, record: &Record, running: &Running, name: &str) -> Manifest {
        let endpoints = self.networks.endpoints(&record.id);
        let addresses: BTreeMap<String, Address> = endpoints
            .iter()
            .filter_map(|e| Some((e.network_name.clone(), Address { ipv4: e.ipv4?, mac: e.mac })))
            .collect();
        Manifest {
            version: 1,
            name: name.to_owned(),
            created: Utc::now(),
            container_id: record.id.clone(),
            container_name: record.name.clone(),
            image_id: record.image_id.clone(),
            runtime: record.runtime.clone(),
            tty: record.tty(),
            paused: running.paused,
            addresses,
            host: HostFacts::here(),
            files: BTreeMap::new(),
            measured: None,
        }
    }

    /// An exec'd process is nobody's child in the container: CRIU would lose it silently.
    pub(super) fn refuse_running_execs(&self, container: &Container) -> Result<()> {
        let running = self.execs.running(&container.id);
        if running.is_empty() {
            return Ok(());
        }
        let list =
            running.iter().map(|(id, command)| format!("{} ({command})", &id[..12.min(id.len())])).collect::<Vec<_>>();
        Err(Error::Conflict(format!(
            "container {} has running exec sessions, which a checkpoint cannot hold: {}; end them first",
            container.record().name,
            list.join(", ")
        )))
    }
}

/// The runtime's own sentence out of `exit status 1: "time=… level=error msg=\"…\"\n"`, which is how docker-containerd
/// passes it on.
fn plain_words(text: &str) -> String {
    let quoted = text.split_once("level=error msg=\\\"").map(|(_, rest)| rest);
    match quoted.and_then(|rest| rest.rsplit_once("\\\"")) {
        Some((sentence, _)) => sentence.replace("\\\\\\\"", "\""),
        None => text.trim_end().to_owned(),
    }
}

/// Packs a tree as the runtime would have.
fn capture(capture: &Capture, place: &Path) -> Result<()> {
    let path = place.join(format!("{}.tar", capture.name));
    let file = std::fs::File::create(&path).context(|| format!("create {}", path.display()))?;
    let options = archive::PackOptions {
        whiteouts: archive::Whiteouts::Raw,
        root_entry: true,
        nanoseconds: true,
        ..archive::PackOptions::default()
    };
    let mut tar = archive::TarWriter::new(std::io::BufWriter::with_capacity(256 * 1024, file));
    archive::pack(Path::new(&capture.path), &mut tar, &options)?;
    let mut out = tar.finish()?;
    std::io::Write::flush(&mut out).context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_sentence_is_told() {
        let raw =
            r#"exit status 1: "time=\"2026-11-23T06:07:00Z\" level=error msg=\"cannot checkpoint: \\\"x\\\" runs\"\n""#;
        assert_eq!(plain_words(raw), r#"cannot checkpoint: "x" runs"#);
        assert_eq!(plain_words("no space left\n"), "no space left");
    }
}
