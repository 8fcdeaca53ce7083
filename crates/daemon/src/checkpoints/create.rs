//! `checkpoint create`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::network::Endpoint;
use api::backend::WaitCondition;
use checkpoint::{Address, Directory, HostFacts, Manifest, Measured, PublishedPort, ROOTFS, SHM, Staging};
use chrono::Utc;
use containerd_api::types::{Capture, Checkpoint};

use crate::Daemon;
use crate::containers::record::{Making, Record, Timing};
use crate::containers::state::{Running, not_running};
use crate::containers::{Container, wait};
use crate::error::{Context, Error, Result, blocking};

/// How long the end of a container that was put to sleep may take to be known.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What a failure leaves.
enum Failed {
    /// The container as it was, and no checkpoint.
    Undone(Error),
    /// A container that sleeps, and a whole checkpoint that is not in its place.
    Kept(PathBuf, Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Undone(error)
    }
}

impl Daemon {
    /// Puts a container to sleep under a name; with `exit` its processes end, otherwise they go on.
    pub(crate) async fn checkpoint_create(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        dir: Option<&Path>,
        exit: bool,
    ) -> Result<Timing> {
        let asked = Instant::now();
        let container = self.container(name)?;
        let ended = wait(&container, WaitCondition::NextExit);
        let op = container.op.lock().await;
        self.settle_making(&container).await?;
        let record = container.record();
        let Some(running) = record.state.running() else {
            return Err(not_running(&container.id));
        };
        checkpoint::check_name(checkpoint)?;
        let directory = self.checkpoints_of(&record.id, dir);
        if directory.contains(checkpoint) {
            return Err(Error::Conflict(format!(
                "checkpoint with name {checkpoint} already exists for container {}",
                record.name
            )));
        }
        let manifest = self.manifest(&record, running, checkpoint);
        self.rest_health_checks(&container).await;
        if let Err(e) = self.refuse_running_execs(&container) {
            self.resume_health_checks(&container);
            return Err(e);
        }
        // Said before there is anything to forget, and before the end can come: a container that was put to sleep is not
        // started afresh by its policy.
        container.change(|r| {
            r.making = Some(Making { name: checkpoint.to_owned(), dir: dir.map(Path::to_owned) });
            r.asleep = exit;
            Ok(())
        })?;
        // What it has on its networks is kept for it. A kill before or after this is made good at boot.
        if exit && let Err(e) = self.networks.reserve(&record.id).await {
            tracing::warn!("keeping the addresses of {}: {e}", record.short_id());
        }
        let done = self.make_checkpoint(&record, &directory, manifest, exit, asked).await;
        if !exit || done.is_err() {
            self.resume_health_checks(&container);
        }
        let failed = |why: &str| Error::System(format!("Cannot checkpoint container {}: {why}", record.name));
        match done {
            Ok(timing) => {
                container.change(|r| {
                    r.making = None;
                    r.last_checkpoint = Some(timing.clone());
                    Ok(())
                })?;
                self.container_event(&record, "checkpoint", &[("checkpoint", checkpoint.to_owned())]);
                drop(op);
                if exit {
                    // Its end is told by docker-containerd on another way; a start that comes before would find it running.
                    let _ = tokio::time::timeout(END_LIMIT, ended).await;
                }
                Ok(timing)
            }
            Err(Failed::Undone(e)) => {
                container.change(|r| {
                    r.making = None;
                    r.asleep = false;
                    Ok(())
                })?;
                self.unreserve(&record).await;
                Err(self.blame_criu().await.unwrap_or_else(|| failed(&plain_words(&e.to_string()))))
            }
            // The record goes on to say that it is being made.
            Err(Failed::Kept(dir, e)) => Err(failed(&format!(
                "it was put to sleep, but the checkpoint cannot be put in place: {e}; it is whole in {} and is put in place by \
                 the next checkpoint or start --checkpoint command of this container, or when dockerd starts",
                dir.display()
            ))),
        }
    }

    /// Stages, dumps, seals, and puts in place.
    async fn make_checkpoint(
        self: &Arc<Self>,
        record: &Arc<Record>,
        directory: &Directory,
        mut manifest: Manifest,
        exit: bool,
        asked: Instant,
    ) -> Result<Timing, Failed> {
        let staging = directory.stage(&manifest.name).map_err(Error::from)?;
        staging.announce(&manifest).map_err(Error::from)?;
        let measured = match self.dump(record, &staging, exit).await {
            Ok(measured) => measured,
            Err(e) => {
                // An answer that was lost is not a dump that was: docker-containerd may go on with it, or take it up again.
                self.containerd.quiesce(&record.id).await?;
                if !staging.is_whole() {
                    // On a thread that may wait: it may take a while until CRIU lets go of it.
                    blocking(move || {
                        drop(staging);
                        Ok(())
                    })
                    .await?;
                    return Err(e.into());
                }
                tracing::info!("the checkpoint of {} is whole although nobody said so: {e}", record.short_id());
                Measured::default()
            }
        };
        let total_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        manifest.measured = Some(Measured { total_us: Some(total_us), ..measured });
        let timing = Timing {
            checkpoint: manifest.name.clone(),
            at: Utc::now(),
            frozen_us: measured.frozen_us,
            total_us,
            bytes: measured.bytes,
        };
        let placed = blocking(move || {
            Ok(match staging.seal(manifest).and_then(|_| staging.commit()) {
                // The processes are in the images only: they are not thrown away.
                Err(e) if exit => Err(Failed::Kept(staging.keep(), e.into())),
                Err(e) => Err(Failed::Undone(e.into())),
                Ok(_) => Ok(()),
            })
        });
        placed.await?.map(|()| timing)
    }

    /// CRIU's images, and the trees that belong to them.
    async fn dump(&self, record: &Arc<Record>, staging: &Staging, exit: bool) -> Result<Measured> {
        let captures = self.captures(record)?;
        let asked = Checkpoint {
            name: staging.name().to_owned(),
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
            let captured = blocking(move || missing.iter().try_for_each(|c| capture(c, &place))).await;
            match captured {
                Err(e) if exit => tracing::error!("the files of {} stay where they are: {e}", record.short_id()),
                other => other?,
            }
        }
        Ok(serde_json::from_str(&stats).unwrap_or_default())
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

    /// Others may have what was kept for a container on its networks.
    pub(crate) async fn unreserve(&self, record: &Record) {
        if let Err(e) = self.networks.unreserve(&record.id).await {
            tracing::warn!("giving up the addresses of {}: {e}", record.short_id());
        }
    }

    fn manifest(&self, record: &Record, running: &Running, name: &str) -> Manifest {
        let endpoints = self.networks.endpoints(&record.id);
        let addresses: BTreeMap<String, Address> = endpoints
            .iter()
            .filter_map(|e| Some((e.network_name.clone(), Address { ipv4: e.ipv4?, mac: e.mac, ports: published(e) })))
            .collect();
        Manifest {
            version: checkpoint::VERSION,
            name: name.to_owned(),
            created: Utc::now(),
            container_id: record.id.clone(),
            container_name: record.name.clone(),
            image_id: record.image_id.clone(),
            runtime: record.runtime.clone(),
            tty: record.tty(),
            paused: running.paused,
            addresses,
            host: HostFacts::here().clone(),
            files: BTreeMap::new(),
            measured: None,
        }
    }

    /// The reason behind every other: without a CRIU that can be used the runtime's own words say less.
    pub(crate) async fn blame_criu(&self) -> Option<Error> {
        crate::system::check_criu().await.err()
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

/// The runtime's own last sentence out of `exit status 1: "time=… level=error msg=\"…\"\n"`, which is how docker-containerd
/// passes it on.
fn plain_words(text: &str) -> String {
    let quoted = text.rsplit_once("level=error msg=\\\"").map(|(_, rest)| rest);
    match quoted.and_then(|rest| rest.rsplit_once("\\\"")) {
        Some((sentence, _)) => {
            let sentence = sentence.replace("\\\\\\\"", "\"");
            sentence.strip_prefix("cannot checkpoint: ").map_or(sentence.clone(), str::to_owned)
        }
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

fn published(endpoint: &Endpoint) -> Vec<PublishedPort> {
    let ports = endpoint.ports.iter();
    ports
        .map(|port| PublishedPort {
            port: format!("{}/{}", port.container_port, port.protocol.name()),
            host: SocketAddr::new(port.host_ip, port.host_port),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_sentence_is_told() {
        let raw =
            r#"exit status 1: "time=\"2026-11-23T06:07:00Z\" level=error msg=\"cannot checkpoint: \\\"x\\\" runs\"\n""#;
        assert_eq!(plain_words(raw), r#""x" runs"#);
        assert_eq!(plain_words("no space left\n"), "no space left");
    }
}
