//! The engine as a whole: `info`, `version`, `system df`, `events`, `auth`.

mod backend;
mod criu;
mod host;
mod info;
mod time;
mod usage;
mod version;

pub use criu::check_criu;
pub(crate) use host::Cgroups;
pub use time::until_filter;

/// A new engine's id: a random UUID.
pub fn new_engine_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    // Version 4, variant 1 (RFC 9562).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)].join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_uuids() {
        let id = super::new_engine_id();
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
        assert!("89ab".contains(&id[19..20]));
        assert_ne!(id, super::new_engine_id());
    }
}
