//! The gRPC services: requests in, tasks to the supervisor, answers and statuses out. No decision is made here.

use std::pin::Pin;
use std::sync::Arc;

use containerd_api::health::health_check_response::ServingStatus;
use containerd_api::health::health_server::Health;
use containerd_api::health::{HealthCheckRequest, HealthCheckResponse};
use containerd_api::types;
use containerd_api::types::api_server::Api;
use futures::Stream;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use crate::cli::REVISION;
use crate::error::Error;
use crate::events::{Hub, Lost, Subscription};
use crate::supervisor::{Supervisor, Task};

/// `types.API`. Calls that arrive while running containers are still being taken over wait for that: an answer from a
/// half-filled table would be wrong.
#[derive(Debug)]
pub struct ApiService {
    supervisor: watch::Receiver<Option<Supervisor>>,
    hub: Arc<Hub>,
}

impl ApiService {
    /// A service whose supervisor may still be coming.
    pub fn new(supervisor: watch::Receiver<Option<Supervisor>>, hub: Arc<Hub>) -> Self {
        ApiService { supervisor, hub }
    }

    async fn supervisor(&self) -> Result<Supervisor, Status> {
        let mut supervisor = self.supervisor.clone();
        let ready = supervisor.wait_for(Option::is_some).await.map_err(|_| Error::Closing)?;
        ready.clone().ok_or_else(|| Error::Closing.into())
    }
}

macro_rules! forward {
    ($self:ident, $request:ident, $task:path) => {{
        let supervisor = $self.supervisor().await?;
        let answer = supervisor.ask(|reply| $task($request.into_inner(), reply)).await?;
        Ok(Response::new(answer))
    }};
}

#[tonic::async_trait]
impl Api for ApiService {
    async fn get_server_version(
        &self,
        _: Request<types::GetServerVersionRequest>,
    ) -> Result<Response<types::GetServerVersionResponse>, Status> {
        let revision = REVISION.to_owned();
        Ok(Response::new(types::GetServerVersionResponse { major: 0, minor: 2, patch: 3, revision }))
    }

    async fn create_container(
        &self,
        request: Request<types::CreateContainerRequest>,
    ) -> Result<Response<types::CreateContainerResponse>, Status> {
        forward!(self, request, Task::Start)
    }

    async fn update_container(
        &self,
        request: Request<types::UpdateContainerRequest>,
    ) -> Result<Response<types::UpdateContainerResponse>, Status> {
        forward!(self, request, Task::UpdateContainer)
    }

    async fn signal(&self, request: Request<types::SignalRequest>) -> Result<Response<types::SignalResponse>, Status> {
        forward!(self, request, Task::Signal)
    }

    async fn update_process(
        &self,
        request: Request<types::UpdateProcessRequest>,
    ) -> Result<Response<types::UpdateProcessResponse>, Status> {
        forward!(self, request, Task::UpdateProcess)
    }

    async fn add_process(
        &self,
        request: Request<types::AddProcessRequest>,
    ) -> Result<Response<types::AddProcessResponse>, Status> {
        forward!(self, request, Task::AddProcess)
    }

    async fn create_checkpoint(
        &self,
        request: Request<types::CreateCheckpointRequest>,
    ) -> Result<Response<types::CreateCheckpointResponse>, Status> {
        forward!(self, request, Task::CreateCheckpoint)
    }

    async fn delete_checkpoint(
        &self,
        request: Request<types::DeleteCheckpointRequest>,
    ) -> Result<Response<types::DeleteCheckpointResponse>, Status> {
        forward!(self, request, Task::DeleteCheckpoint)
    }

    async fn list_checkpoint(
        &self,
        request: Request<types::ListCheckpointRequest>,
    ) -> Result<Response<types::ListCheckpointResponse>, Status> {
        forward!(self, request, Task::ListCheckpoint)
    }

    async fn state(&self, request: Request<types::StateRequest>) -> Result<Response<types::StateResponse>, Status> {
        forward!(self, request, Task::State)
    }

    async fn stats(&self, request: Request<types::StatsRequest>) -> Result<Response<types::StatsResponse>, Status> {
        forward!(self, request, Task::Stats)
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<types::Event, Status>> + Send>>;

    async fn events(&self, request: Request<types::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        // Exits that were missed are announced while containers are taken over; a replay must not run before.
        self.supervisor().await?;
        let request = request.into_inner();
        let from = crate::time::from_proto(request.timestamp)?;
        if request.stored_only && from.is_none() {
            return Err(Error::StoredOnlyWithoutTimestamp.into());
        }
        let subscription = self.hub.subscribe(from, request.stored_only, &request.id);
        Ok(Response::new(Box::pin(stream(subscription))))
    }
}

fn stream(subscription: Subscription) -> impl Stream<Item = Result<types::Event, Status>> {
    futures::stream::unfold(subscription, |mut subscription| async move {
        let item = match subscription.next().await? {
            Ok(event) => Ok(types::Event::from(event.as_ref())),
            Err(Lost) => Err(Status::new(Code::DataLoss, "events were lost: the subscriber is too slow")),
        };
        Some((item, subscription))
    })
}

/// `grpc.health.v1.Health`.
#[derive(Debug, Default)]
pub struct HealthService;

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if request.into_inner().service.is_empty() {
            return Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }));
        }
        Err(Status::not_found("unknown service"))
    }
}
