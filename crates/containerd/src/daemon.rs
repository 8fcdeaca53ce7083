//! docker-containerd from its first to its last moment.
//!
//! The order: state directory, listener and health service, running containers taken over, API. Containers never end
//! because this program does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use listeners::{Activated, Address, BindOptions};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::activity::Activity;
use crate::cli::Cli;
use crate::events::Hub;
use crate::metrics::Metrics;
use crate::statedir::StateDir;
use crate::supervisor::{Config, Supervisor};
use crate::{debug, server};

/// How long operations in flight may take when the program is asked to stop; dockerd waits 15 s for it.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the last answers are given to leave.
const FAREWELL: Duration = Duration::from_millis(100);
const GRAPHITE_INTERVAL: Duration = Duration::from_secs(10);
const GRAPHITE_PREFIX: &str = "metrics";

/// Runs the daemon until it is asked to stop.
///
/// # Errors
/// When it cannot start, or its server breaks.
pub async fn run(cli: Cli, mut activated: Activated) -> Result<()> {
    let address = Address::parse_complete(&cli.listen)?;
    let state_dir = StateDir::open(&cli.state_dir)?;
    let hub = Hub::open(&state_dir.path().join("events.log"), cli.retained_events())
        .with_context(|| format!("cannot open the event journal in {}", state_dir.path().display()))?;
    let hub = Arc::new(hub);
    let metrics = Arc::new(Metrics::new(Arc::clone(&hub)));
    let activity = Activity::default();
    let mut found = listeners::bind_all(&[address], &BindOptions::default(), &mut activated)?;
    let listener = found.pop().context("no socket to listen on")?;
    if !found.is_empty() {
        warn!("only one listener is served; the other sockets are closed");
    }
    start_metrics(&cli, &metrics, &activity);
    dump_on_signal(activity.clone())?;

    let (ready, supervisor) = watch::channel(None);
    let (stop, mut stopping) = watch::channel(false);
    let serving = tokio::spawn(server::serve(listener, supervisor, Arc::clone(&hub), async move {
        // Stops as well when there is nobody left to ask for it.
        let _ = stopping.wait_for(|stop| *stop).await;
    }));
    let config = Config {
        state_dir,
        runtime: cli.runtime,
        runtime_args: cli.runtime_args,
        shim: cli.shim,
        start_timeout: cli.start_timeout,
    };
    let supervisor = Supervisor::start(config, Arc::clone(&hub), metrics, activity.clone()).await?;
    // The server holds the other end.
    let _ = ready.send(Some(supervisor));
    info!(address = cli.listen, "containerd: grpc api listening");

    let mut serving = serving;
    tokio::select! {
        name = asked_to_stop() => info!("stopping containerd after receiving {}", name?),
        ended = &mut serving => {
            ended?.context("the server broke")?;
            anyhow::bail!("the server ended");
        }
    }
    let _ = stop.send(true);
    if tokio::time::timeout(DRAIN, activity.idle()).await.is_err() {
        warn!("operations still in flight are abandoned");
    }
    // The answers to these operations, and their events, are on their way.
    tokio::time::sleep(FAREWELL).await;
    Ok(())
}

async fn asked_to_stop() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupt",
    })
}

fn dump_on_signal(activity: Activity) -> std::io::Result<()> {
    let mut user = signal(SignalKind::user_defined1())?;
    tokio::spawn(async move {
        while user.recv().await.is_some() {
            info!("{}", activity.dump());
        }
    });
    Ok(())
}

fn start_metrics(cli: &Cli, metrics: &Arc<Metrics>, activity: &Activity) {
    if !cli.pprof_address.is_empty() {
        profiles::record_heap();
        let (address, metrics, activity) = (cli.pprof_address.clone(), Arc::clone(metrics), activity.clone());
        tokio::spawn(async move {
            if let Err(error) = debug::serve(&address, metrics, activity).await {
                error!(%error, address, "cannot serve the debug address");
            }
        });
    }
    if !cli.debug || cli.metrics_interval.is_zero() {
        return;
    }
    let (metrics, graphite) = (Arc::clone(metrics), cli.graphite_address.clone());
    let interval = if graphite.is_empty() { cli.metrics_interval } else { GRAPHITE_INTERVAL };
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if graphite.is_empty() {
                print_metrics(&metrics);
            } else if let Err(error) = push_metrics(&metrics, &graphite).await {
                warn!(%error, graphite, "cannot push metrics");
            }
        }
    });
}

fn print_metrics(metrics: &Metrics) {
    let now = chrono::Local::now().format("%Y/%m/%d %H:%M:%S");
    for line in metrics.text() {
        println!("[containerd] {now} {line}");
    }
}

async fn push_metrics(metrics: &Metrics, address: &str) -> std::io::Result<()> {
    let text = metrics.graphite(GRAPHITE_PREFIX, chrono::Utc::now().timestamp());
    let pushing = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(GRAPHITE_INTERVAL, pushing).await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))
}
