//! docker-runc: the OCI runtime.
