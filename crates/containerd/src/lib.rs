//! docker-containerd: the supervisor, its gRPC service, and the small client.
