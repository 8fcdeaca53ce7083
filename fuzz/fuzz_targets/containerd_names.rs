//! Names that become parts of paths.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| containerd::fuzz::names(data));
