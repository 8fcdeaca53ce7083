//! Asking a docker-containerd whether it is well.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use containerd_api::health::HealthCheckRequest;
use containerd_api::health::health_check_response::ServingStatus;
use containerd_api::health::health_client::HealthClient;
use tonic::transport::Channel;

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Asks over a channel.
pub async fn ask(channel: &Channel) -> anyhow::Result<()> {
    let mut client = HealthClient::new(channel.clone());
    let asked = client.check(HealthCheckRequest { service: String::new() });
    let answer = tokio::time::timeout(ANSWER_LIMIT, asked).await.context("no answer in time")??.into_inner();
    if answer.status() != ServingStatus::Serving {
        bail!("it says it is not serving ({})", answer.status);
    }
    Ok(())
}

/// Connects to the socket and asks.
pub async fn check(socket: &Path) -> anyhow::Result<()> {
    let channel = tokio::time::timeout(ANSWER_LIMIT, containerd_api::connect(socket));
    ask(&channel.await.context("no connection in time")??).await
}
