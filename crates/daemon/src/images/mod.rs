//! Images as the API sees them: crate `images` keeps them, this says which containers use them and tells of events.

mod backend;
mod commit;
mod lookup;
mod make;
mod registry;
mod remove;
mod show;
mod work;

pub use lookup::Found;
