//! Networks: the backend over crate `network`.
