//! Networks as the API sees them: crate `network` makes them, this says which containers are on them.

mod backend;
mod connect;
mod show;
