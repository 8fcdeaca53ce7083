//! Any bytes as a layer or image archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| archive::fuzz_read(data));
