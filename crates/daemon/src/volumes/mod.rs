//! Volumes of the `local` driver: a directory each, `<data root>/volumes/<name>/_data`.

mod backend;
mod store;

pub use store::{Volume, Volumes, check_driver, check_name};
