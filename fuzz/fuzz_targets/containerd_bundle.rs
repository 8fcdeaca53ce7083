//! A bundle's configuration, of either generation.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| containerd::fuzz::bundle(data));
