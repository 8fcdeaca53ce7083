//! `info`, `version`, `system df`, and small things that several nouns need.

mod criu;
mod time;

pub use criu::find_criu;
pub use time::until_filter;

/// An id for a new engine.
pub fn new_engine_id() -> String {
    let bytes: [u8; 16] = rand::random();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
