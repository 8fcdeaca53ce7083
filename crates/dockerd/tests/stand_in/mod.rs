//! A stand-in for docker-containerd: it is well, has no containers and starts none. The test program, run again.

use std::fs;
use std::path::Path;

use containerd_api::health::health_check_response::ServingStatus;
use containerd_api::health::health_server::{Health, HealthServer};
use containerd_api::health::{HealthCheckRequest, HealthCheckResponse};
use containerd_api::types::api_server::{Api, ApiServer};
use containerd_api::types::*;
use tonic::{Request, Response, Status};

/// Not a test by itself: the stand-in. Unwell when the file `sick` holds its pid.
#[tokio::test]
async fn stand_in() {
    struct Answers(std::path::PathBuf);
    #[tonic::async_trait]
    impl Health for Answers {
        async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
            let sick = fs::read_to_string(&self.0).is_ok_and(|pid| pid == std::process::id().to_string());
            let status = if sick { ServingStatus::NotServing } else { ServingStatus::Serving };
            Ok(Response::new(HealthCheckResponse { status: status.into() }))
        }
    }
    let Ok(socket) = std::env::var("STAND_IN_SOCKET") else { return };
    let socket = Path::new(&socket);
    let _ = fs::remove_file(socket);
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let connections = futures::stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let health = HealthServer::new(Answers(socket.with_file_name("sick")));
    let server = tonic::transport::Server::builder().add_service(health).add_service(ApiServer::new(Empty));
    server.serve_with_incoming(connections).await.unwrap();
}

struct Empty;

/// Answers that nothing can be done.
macro_rules! nothing {
    ($($name:ident($request:ident) -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl Api for Empty {
            type EventsStream = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Event, Status>> + Send>>;

            async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
                match request.into_inner().stored_only {
                    true => Ok(Response::new(Box::pin(futures::stream::empty()))),
                    false => Ok(Response::new(Box::pin(futures::stream::pending()))),
                }
            }

            async fn state(&self, _: Request<StateRequest>) -> Result<Response<StateResponse>, Status> {
                Ok(Response::new(StateResponse::default()))
            }

            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("a stand-in"))
            })*
        }
    };
}

nothing! {
    get_server_version(GetServerVersionRequest) -> GetServerVersionResponse,
    create_container(CreateContainerRequest) -> CreateContainerResponse,
    update_container(UpdateContainerRequest) -> UpdateContainerResponse,
    signal(SignalRequest) -> SignalResponse,
    update_process(UpdateProcessRequest) -> UpdateProcessResponse,
    add_process(AddProcessRequest) -> AddProcessResponse,
    create_checkpoint(CreateCheckpointRequest) -> CreateCheckpointResponse,
    delete_checkpoint(DeleteCheckpointRequest) -> DeleteCheckpointResponse,
    list_checkpoint(ListCheckpointRequest) -> ListCheckpointResponse,
    stats(StatsRequest) -> StatsResponse,
}
