//! Images: the backend over crate `images`, and what containers ask of it.

mod lookup;

pub use lookup::Found;
