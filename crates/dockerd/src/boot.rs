//! From settings to a serving daemon and to its end, as jobs.
//!
//! `serveapi` binds every address at once and keeps its clients waiting; `initdaemon` makes the daemon meanwhile;
//! `acceptconnections` lets the clients in. The end is the other way round: no new requests, the daemon's own end (containers
//! stop, unless `--live-restore`), containerd's.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use daemon::Daemon;
use engine::{Engine, Failure, Running};
use futures::StreamExt as _;
use futures::stream::{self, Stream};
use listeners::{Activated, Address, BindOptions, Gate, Listener};
use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::containerd::{Containerd, Launch};
use crate::logging::{self, LevelHandle};
use crate::options::{Cli, file};
use crate::pidfile::PidFile;
use crate::settings::{Listen, Settings};
use crate::shared::Shared;
use crate::signals::{Signals, Wish};
use crate::{daemon_config, dump, system};

/// TLS handshakes that one listener has under way at most.
const HANDSHAKES: usize = 256;

/// Runs dockerd to its end.
pub async fn run(cli: Cli, mut settings: Settings, activated: Activated) -> anyhow::Result<()> {
    let level = logging::install(settings.level, settings.format)?;
    system::require_root()?;
    system::set_umask();
    settings.make_absolute()?;
    tracing::info!(version = crate::VERSION, pid = std::process::id(), "Starting up");
    system::make_directory(&settings.data_root, 0o710)?;
    system::make_directory(&settings.exec_root, 0o711)?;
    let _alone = system::lock(&settings.data_root)?;
    let _pid_file = match settings.pidfile.as_os_str().is_empty() {
        true => None,
        false => Some(PidFile::write(&settings.pidfile)?),
    };
    system::raise_open_files();
    crate::containerd::adjust_oom_score(std::process::id(), settings.oom_score_adjust);
    let signals = Signals::catch()?;
    let boot = Boot {
        engine: Engine::new(),
        gate: Gate::closed(),
        server: Shared::new(),
        stop_serving: CancellationToken::new(),
        settings: Arc::new(settings),
        daemon: Shared::new(),
    };
    let outcome = boot.run(&cli, signals, activated, &level).await;
    tracing::info!("Daemon shutdown complete");
    outcome
}

/// What the jobs share.
#[derive(Clone)]
struct Boot {
    settings: Arc<Settings>,
    engine: Engine,
    gate: Gate,
    /// Set when there is something to serve.
    server: Shared<api::Server>,
    stop_serving: CancellationToken,
    /// Set when `initdaemon` has made it.
    daemon: Shared<Arc<Daemon>>,
}

impl Boot {
    async fn run(
        self,
        cli: &Cli,
        mut signals: Signals,
        activated: Activated,
        level: &LevelHandle,
    ) -> anyhow::Result<()> {
        let (containerd_sender, mut containerd) = oneshot::channel();
        let serving = self.serve(activated).await?;
        self.register_init(containerd_sender)?;
        self.register_accept()?;
        let mut serving = Box::pin(serving.wait());

        let init = async {
            self.engine.job("initdaemon").run().await?;
            self.engine.job("acceptconnections").run().await
        };
        let started = tokio::select! {
            outcome = init => {
                if let Err(error) = outcome {
                    stop_containerd(&mut containerd).await;
                    return Err(error).context("failed to start daemon");
                }
                true
            }
            () = until_stop(&mut signals, &self.engine) => false,
            ended = &mut serving => {
                stop_containerd(&mut containerd).await;
                return ended.context("shutting down due to ServeAPI error");
            }
        };
        let served = match started {
            true => tokio::select! {
                () = self.attend(cli, &mut signals, level) => None,
                ended = &mut serving => Some(ended),
            },
            false => None,
        };

        notify(&[NotifyState::Stopping]);
        self.stop_serving.cancel();
        let still_serving = served.is_none();
        let ended = async {
            if let Some(daemon) = self.daemon.get()
                && let Err(error) = daemon.shutdown().await
            {
                tracing::error!(%error, "the daemon's end went wrong");
            }
            self.engine.shutdown().await;
            stop_containerd(&mut containerd).await;
        };
        let serving = async {
            if still_serving {
                // It ends when its requests have ended or their time is up; a job of an engine that is shut down is cancelled.
                let _ = serving.await;
            }
        };
        let all = async { tokio::join!(ended, serving) };
        tokio::select! {
            _ = all => {}
            // Further signals to stop are swallowed, the third ends the process in there.
            () = forever(&mut signals, &self.engine) => {}
        }
        served.unwrap_or(Ok(())).context("shutting down due to ServeAPI error")
    }

    /// Answers signals until one asks to stop.
    async fn attend(&self, cli: &Cli, signals: &mut Signals, level: &LevelHandle) {
        loop {
            match signals.next().await {
                Wish::Stop => return,
                Wish::Dump => dump::write(&self.engine),
                Wish::Reload => self.reload(cli, level),
            }
        }
    }

    /// Registers and starts `serveapi`; returns when every address is bound.
    async fn serve(&self, activated: Activated) -> anyhow::Result<Running> {
        let (bound_sender, bound) = oneshot::channel();
        let once = std::sync::Mutex::new(Some((activated, bound_sender)));
        let boot = self.clone();
        self.engine.register("serveapi", move |job| {
            let taken = once.lock().ok().and_then(|mut once| once.take());
            let boot = boot.clone();
            async move {
                let (mut activated, bound) = taken.ok_or_else(|| Failure::text("serveapi runs already"))?;
                let listeners = bind(&boot.settings.listen, &boot.gate, &mut activated).map_err(Failure::new)?;
                let _ = bound.send(());
                job.progress("waiting for the daemon");
                let server = boot.server.wait().await;
                job.progress("serving");
                api::serve(server, connections(listeners), boot.stop_serving.clone()).await;
                if boot.stop_serving.is_cancelled() { Ok(()) } else { Err(Failure::text("no listener is left")) }
            }
        })?;
        let hosts = self.settings.listen.addresses.iter().map(Address::to_string);
        let serving = self.engine.job("serveapi").args(hosts).background().spawn()?;
        match bound.await {
            Ok(()) => Ok(serving),
            Err(_) => match serving.wait().await {
                Err(error) => Err(error).context("failed to load listeners"),
                Ok(()) => bail!("failed to load listeners"),
            },
        }
    }

    fn register_init(&self, containerd: oneshot::Sender<Containerd>) -> engine::Result<()> {
        let once = std::sync::Mutex::new(Some(containerd));
        let boot = self.clone();
        self.engine.register("initdaemon", move |job| {
            let containerd = once.lock().ok().and_then(|mut once| once.take());
            let boot = boot.clone();
            async move {
                let sender = containerd.ok_or_else(|| Failure::text("the daemon is initialised already"))?;
                boot.init(&job, sender).await.map_err(|error| Failure::text(format!("{error:#}")))
            }
        })
    }

    async fn init(&self, job: &engine::Context, sender: oneshot::Sender<Containerd>) -> anyhow::Result<()> {
        let settings = &self.settings;
        job.progress("containerd");
        let containerd = match &settings.containerd {
            Some(address) => Containerd::external(address).await?,
            None => Containerd::start(launch(settings)).await?,
        };
        let channel = containerd.connect().await;
        // From here on whoever ends us ends it too.
        let _ = sender.send(containerd);
        job.progress("daemon");
        let daemon = Daemon::open(daemon_config::of(settings)?, channel?, self.engine.clone()).await?;
        let options = api::Options { debug: settings.debug, ..api::Options::default() };
        self.server.set(api::Server::new(daemon.backends(), options));
        self.daemon.set(daemon);
        tracing::info!("Daemon has completed initialization");
        Ok(())
    }

    fn register_accept(&self) -> engine::Result<()> {
        let boot = self.clone();
        self.engine.register("acceptconnections", move |_| {
            let boot = boot.clone();
            async move {
                boot.gate.open();
                for address in &boot.settings.listen.addresses {
                    tracing::info!("API listen on {address}");
                }
                notify(&[NotifyState::Ready]);
                Ok(())
            }
        })
    }

    /// SIGHUP: reads daemon.json again. What can change while running is the level of the log.
    fn reload(&self, cli: &Cli, level: &LevelHandle) {
        tracing::info!(file = %cli.config_file.display(), "Got signal to reload configuration");
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "no clock for systemd"),
        }
        match file::merge(cli).and_then(Settings::new) {
            Ok(settings) => {
                level.set(settings.level);
                let now = &self.settings;
                if (&settings.listen.addresses, &settings.runtimes, &settings.labels)
                    != (&now.listen.addresses, &now.runtimes, &now.labels)
                {
                    tracing::warn!(
                        "a changed configuration takes effect at the next start, but for debug and log-level"
                    );
                }
                tracing::info!(level = %settings.level, "Reloaded configuration");
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "the configuration stays as it was"),
        }
        notify(&[NotifyState::Ready]);
    }
}

/// Waits for a signal to stop; answers the others as far as that can be done during boot.
async fn until_stop(signals: &mut Signals, engine: &Engine) {
    loop {
        match signals.next().await {
            Wish::Stop => return,
            Wish::Dump => dump::write(engine),
            Wish::Reload => tracing::info!("not reloading the configuration while starting"),
        }
    }
}

/// Answers signals while the end is under way; does not return.
async fn forever(signals: &mut Signals, engine: &Engine) {
    loop {
        if signals.next().await == Wish::Dump {
            dump::write(engine);
        }
    }
}

async fn stop_containerd(containerd: &mut oneshot::Receiver<Containerd>) {
    if let Ok(containerd) = containerd.try_recv() {
        containerd.stop().await;
    }
}

fn launch(settings: &Settings) -> Launch {
    Launch {
        root: settings.exec_root.join("libcontainerd"),
        debug: settings.debug,
        oom_score_adjust: settings.oom_score_adjust,
        search_path: settings.search_path.clone(),
    }
}

fn bind(listen: &Listen, gate: &Gate, activated: &mut Activated) -> listeners::Result<Vec<Listener>> {
    for address in &listen.addresses {
        let unprotected = listen.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none());
        if unprotected && matches!(address, Address::Tcp { .. }) {
            tracing::warn!(
                host = %address,
                "Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network."
            );
        }
    }
    let tls = listen.tls.as_ref().map(listeners::acceptor).transpose()?;
    let options = BindOptions { group: Some(listen.group.clone()), tls, gate: gate.clone() };
    listeners::bind_all(&listen.addresses, &options, activated)
}

/// The established connections of all listeners. Ends when all of them have broken.
fn connections(listeners: Vec<Listener>) -> impl Stream<Item = listeners::Stream> {
    let each = listeners.into_iter().map(|listener| {
        let accepted = stream::unfold(listener, |listener| async move {
            match listener.accept().await {
                Ok(incoming) => Some((incoming, listener)),
                Err(error) => {
                    tracing::error!(listener = listener.name(), %error, "ServeAPI error");
                    None
                }
            }
        });
        // Handshakes run beside each other: a slow one holds up nobody.
        accepted
            .map(|incoming| async move {
                let peer = incoming.peer().clone();
                incoming.establish().await.inspect_err(|error| tracing::debug!(?peer, %error, "handshake failed")).ok()
            })
            .buffer_unordered(HANDSHAKES)
            .filter_map(std::future::ready)
            .boxed()
    });
    stream::select_all(each)
}

fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be notified");
    }
}
