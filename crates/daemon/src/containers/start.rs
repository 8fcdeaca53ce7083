//! `start`: from a record to a running process, afresh or from a checkpoint.
//!
//! Root, network and volumes are made here, before the runtime is called, and handed over by path; the file system and
//! the network are made side by side. Whatever fails, [`Daemon::clean_up`] takes back all of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::backend::{Changed, StartOptions};
use chrono::Utc;
use nix::mount::{MntFlags, MsFlags};

use super::container::Container;
use super::mounts;
use super::network::Joined;
use super::record::Record;
use super::spec::{self, Namespace};
use super::stdio::Fifos;
use crate::Daemon;
use crate::checkpoints::Wake;
use crate::containerd::{Create, INIT, Runtime};
use crate::error::{Context, Error, Result, blocking};

/// Where monitoring programs look for containers.
const DEFAULT_CGROUP_PARENT: &str = "/docker";

impl Daemon {
    /// Starts a container, or wakes it from a checkpoint.
    pub(crate) async fn container_start(self: &Arc<Self>, name: &str, options: StartOptions) -> Result<Changed> {
        let container = self.container(name)?;
        let wake = match &options.checkpoint {
            None if options.checkpoint_dir.is_some() => {
                return Err(Error::InvalidParameter("checkpoint-dir is given without a checkpoint".into()));
            }
            None => None,
            Some(checkpoint) => {
                Some(self.open_checkpoint(&container, checkpoint, options.checkpoint_dir.as_deref()).await?)
            }
        };
        container.cancel_restart();
        let _op = container.op.lock().await;
        match container.record().state.check_start() {
            Err(Error::NotModified(_)) => return Ok(false),
            other => other?,
        }
        container.change(|r| {
            r.restart_count = 0;
            r.manually_stopped = false;
            Ok(())
        })?;
        self.start_held(&container, wake).await?;
        Ok(true)
    }

    /// Starts a container whose operation lock is held and whose state allows it.
    pub(crate) async fn start_held(self: &Arc<Self>, container: &Arc<Container>, wake: Option<Wake>) -> Result<()> {
        let record = container.record();
        // Taken before anything runs: a program may have ended before we hear that it was started, and an end that is
        // older than the start is taken for that of a run before this one.
        let now = Utc::now();
        let started = match self.launch(container, &record, wake.as_ref()).await {
            Ok((pid, measured)) => container.change(|r| {
                r.state = r.state.started(pid, now)?;
                if let Some(wake) = &wake {
                    if wake.paused() {
                        r.state = r.state.paused(&r.id)?;
                    }
                    r.last_wake = Some(wake.woken(&measured));
                }
                r.runs += 1;
                r.asleep = false;
                Ok(())
            }),
            Err(e) => Err(e),
        };
        match started {
            Ok(started) => {
                if record.asleep {
                    self.unreserve(&record).await;
                }
                self.container_event(&started, "start", &[]);
                self.start_health_checks(container);
                Ok(())
            }
            Err(e) => {
                let error = match &wake {
                    Some(_) => self.blame_criu().await.unwrap_or_else(|| start_error(e, &record.path)),
                    None => start_error(e, &record.path),
                };
                self.clean_up(&record).await;
                container.hub.end_output();
                container.hub.reset_stdin();
                let exit_code = exit_code_for(&error, &record.path);
                container.change(|r| {
                    r.state = r.state.start_failed(exit_code, error.to_string());
                    Ok(())
                })?;
                // One that sleeps is kept: its checkpoints would go with it.
                if record.host_config.auto_remove && wake.is_none() {
                    self.remove_later(container);
                }
                Err(error)
            }
        }
    }

    /// The steps of a start; gives the pid and what a restore measured.
    async fn launch(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &Arc<Record>,
        wake: Option<&Wake>,
    ) -> Result<(i32, String)> {
        let runtime = self.runtime(&record.runtime)?;
        let addresses = wake.map(Wake::addresses);
        let files = self.prepare_files(record, wake);
        // Both run to their end even if one fails, so that what is taken back afterwards stands still.
        let (rootfs, joined) = tokio::join!(files, self.join_networks(record, addresses));
        let (rootfs, joined) = (rootfs?, joined?);
        let bundle = Record::bundle(&self.config.exec_root, &record.id);
        let fifos = {
            let (daemon, record, bundle) = (self.clone(), record.clone(), bundle.clone());
            blocking(move || daemon.write_bundle(&record, &rootfs, joined, &bundle)).await?
        };
        let log = self.log(container)?;
        log.begin()?;
        let create = Create {
            id: &record.id,
            bundle: &bundle,
            stdio: &fifos.paths,
            runtime: &runtime,
            checkpoint: wake.map(Wake::location),
        };
        self.attachment_events(record, "connect", "mount");
        let created = self.containerd.create(create).await;
        let (pid, measured) = match created {
            Ok(created) => created,
            Err(e) => {
                let _ = log.end();
                self.attachment_events(record, "disconnect", "unmount");
                return Err(e);
            }
        };
        let copying = fifos.connect(container.hub.clone(), Some(log));
        container.set_copying(copying);
        Ok((pid, measured))
    }

    /// Mounts the root (with the checkpoint's changes when there is one) and `/dev/shm`.
    async fn prepare_files(self: &Arc<Self>, record: &Arc<Record>, wake: Option<&Wake>) -> Result<PathBuf> {
        let (daemon, record) = (self.clone(), record.clone());
        let wake = wake.cloned();
        blocking(move || {
            if let Some(wake) = &wake {
                wake.restore_root(&daemon.images, &record.id)?;
            }
            let rootfs = daemon.images.mount(&record.id, &[])?;
            if own_shm(&record) {
                let shm = daemon.shm_dir(&record.id);
                mount_shm(&shm, record.host_config.shm_size)?;
                if let Some(wake) = &wake {
                    wake.restore_shm(&shm)?;
                }
            }
            Ok(rootfs)
        })
        .await
    }

    /// Everything the runtime reads: the files behind binds, the specification, the FIFOs.
    fn write_bundle(&self, record: &Record, rootfs: &Path, joined: Joined, bundle: &Path) -> Result<Fifos> {
        if joined.shared_with.is_none() {
            self.write_network_files(record, &joined.endpoints)?;
        }
        if !record.config.working_dir.is_empty() {
            mounts::make_dir_inside(rootfs, &record.config.working_dir)?;
        }
        let mut mounts = mounts::prepare(&record.mounts, &self.volumes, rootfs)?;
        self.add_own_mounts(record, joined.shared_with.as_deref(), &mut mounts)?;
        let init = match record.host_config.init.unwrap_or(self.config.init) {
            true => Some(self.init_program()?),
            false => None,
        };
        if let Some(init) = &init {
            mounts.push(bind(spec::INIT_TARGET, init, &["ro"]));
        }
        let parent = match record.host_config.resources.cgroup_parent.as_str() {
            "" => self.config.cgroup_parent.as_str(),
            own => own,
        };
        let parent = if parent.is_empty() { DEFAULT_CGROUP_PARENT } else { parent };
        let prepared = spec::Prepared {
            rootfs,
            netns: joined.netns,
            pid: self.namespace(&record.host_config.pid_mode, "pid")?,
            ipc: self.namespace(&record.host_config.ipc_mode, "ipc")?,
            uts: self.namespace(
                if record.network_mode() == "host" { "host" } else { &record.host_config.uts_mode },
                "uts",
            )?,
            mounts,
            cgroup_parent: parent,
            init,
            link_env: self.link_environment(record)?,
            default_ulimits: &self.config.default_ulimits,
        };
        let spec = spec::build(record, &prepared)?;
        let _ = std::fs::remove_dir_all(bundle);
        std::fs::create_dir_all(bundle).context(|| format!("mkdir {}", bundle.display()))?;
        let text = serde_json::to_vec(&spec).map_err(|e| Error::System(format!("cannot write config.json: {e}")))?;
        std::fs::write(bundle.join("config.json"), text)
            .context(|| format!("write {}/config.json", bundle.display()))?;
        Fifos::make(bundle, INIT, record.config.open_stdin, true, record.tty())
    }

    fn add_own_mounts(&self, record: &Record, shared_with: Option<&str>, mounts: &mut Vec<spec::Mount>) -> Result<()> {
        let taken = |mounts: &[spec::Mount], path: &str| mounts.iter().any(|m| m.destination == path);
        let files = self.container_dir(shared_with.unwrap_or(&record.id));
        for (name, path) in
            [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
        {
            let source = files.join(name);
            if !taken(mounts, path) && source.exists() {
                mounts.push(bind(path, &source, &["rw"]));
            }
        }
        if taken(mounts, "/dev/shm") {
            return Ok(());
        }
        let options = ["nosuid", "noexec", "nodev"];
        match record.host_config.ipc_mode.as_str() {
            "none" => {}
            "host" => mounts.push(bind("/dev/shm", Path::new("/dev/shm"), &options)),
            mode => {
                let owner = match mode.strip_prefix("container:") {
                    Some(other) => {
                        let other = self.container(other)?;
                        if other.record().host_config.ipc_mode != "shareable" {
                            return Err(Error::Conflict(format!(
                                "failed to join IPC namespace: container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                                other.id
                            )));
                        }
                        other.id.clone()
                    }
                    None => record.id.clone(),
                };
                mounts.push(bind("/dev/shm", &self.shm_dir(&owner), &options));
            }
        }
        Ok(())
    }

    fn namespace(&self, mode: &str, kind: &str) -> Result<Namespace> {
        match mode {
            "host" => Ok(Namespace::Host),
            mode => match mode.strip_prefix("container:") {
                None => Ok(Namespace::Own),
                Some(other) => {
                    let other = self.container(other)?;
                    let record = other.record();
                    let running = record.state.running().ok_or_else(|| {
                        Error::Conflict(format!(
                            "failed to join {} namespace: container {} is not running",
                            kind.to_uppercase(),
                            other.id
                        ))
                    })?;
                    Ok(Namespace::Joined(format!("/proc/{}/ns/{kind}", running.pid).into()))
                }
            },
        }
    }

    /// A runtime by its name.
    pub(crate) fn runtime(&self, name: &str) -> Result<Runtime> {
        let found = self.config.runtimes.get(name).cloned();
        found.ok_or_else(|| Error::InvalidParameter(format!("unknown or invalid runtime name: {name}")))
    }

    fn init_program(&self) -> Result<PathBuf> {
        const PLACES: &[&str] = &["/usr/libexec/docker/docker-init", "/usr/bin/docker-init", "/usr/bin/tini-static"];
        let found = match &self.config.init_path {
            Some(path) => Some(path.clone()).filter(|p| p.exists()),
            None => PLACES.iter().map(PathBuf::from).find(|p| p.exists()),
        };
        found.ok_or_else(|| {
            Error::System(format!(
                "--init needs a static init program: none of {} is there; install Debian's package tini or give dockerd --init-path",
                PLACES.join(", ")
            ))
        })
    }

    pub(crate) fn shm_dir(&self, id: &str) -> PathBuf {
        self.container_dir(id).join("mounts").join("shm")
    }

    /// Takes back everything a start made, or a run left: network, mounts, bundle. Safe to repeat.
    pub(crate) async fn clean_up(self: &Arc<Self>, record: &Record) {
        if let Err(e) = self.networks.release_all(&record.id).await {
            tracing::warn!("releasing the network of {}: {e}", record.short_id());
        }
        let (daemon, id) = (self.clone(), record.id.clone());
        let cleaned = blocking(move || {
            unmount(&daemon.shm_dir(&id))?;
            daemon.images.unmount(&id)?;
            let bundle = Record::bundle(&daemon.config.exec_root, &id);
            match std::fs::remove_dir_all(&bundle) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(e).context(|| format!("remove {}", bundle.display()))
                }
                _ => Ok(()),
            }
        });
        if let Err(e) = cleaned.await {
            tracing::warn!("cleaning up after {}: {e}", record.short_id());
        }
    }
}

fn bind(destination: &str, source: &Path, options: &[&str]) -> spec::Mount {
    let mut all = vec!["rbind".to_owned(), "rprivate".to_owned()];
    all.extend(options.iter().map(|&o| o.to_owned()));
    spec::Mount {
        destination: destination.into(),
        kind: "bind",
        source: source.to_string_lossy().into_owned(),
        options: all,
    }
}

/// Has the container a `/dev/shm` of its own making?
pub(crate) fn own_shm(record: &Record) -> bool {
    let mode = record.host_config.ipc_mode.as_str();
    mode != "host" && mode != "none" && !mode.starts_with("container:")
}

fn mount_shm(dir: &Path, size_bytes: i64) -> Result<()> {
    std::fs::create_dir_all(dir).context(|| format!("mkdir {}", dir.display()))?;
    // Left over when dockerd was killed in the middle of a start.
    unmount(dir)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=1777,size={size_bytes}");
    nix::mount::mount(Some("shm"), dir, Some("tmpfs"), flags, Some(options.as_str()))
        .context(|| format!("mount tmpfs on {}", dir.display()))
}

fn unmount(dir: &Path) -> Result<()> {
    use nix::errno::Errno;
    match nix::mount::umount2(dir, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(e) => Err(e).context(|| format!("umount {}", dir.display())),
    }
}

/// The words a user knows for a runtime's failure, with the kind that tells a bad request from a broken host.
fn start_error(error: Error, path: &str) -> Error {
    let Error::Containerd(status) = &error else { return error };
    let text = status.message().trim_end();
    let text = text.strip_prefix("oci runtime error: ").unwrap_or(text);
    let message =
        format!("failed to create task for container: failed to create shim task: OCI runtime create failed: {text}");
    match exit_code_for(&Error::System(message.clone()), path) {
        126 | 127 => Error::InvalidParameter(message),
        _ => Error::System(message),
    }
}

/// Docker's exit code for a start that failed: 127 not found, 126 not executable, 128 all else.
fn exit_code_for(error: &Error, path: &str) -> i64 {
    let text = error.to_string();
    let has = |words: &str| text.contains(words);
    if has("executable file not found") || (has(path) && (has("no such file or directory") || has("not a directory"))) {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        128
    }
}
