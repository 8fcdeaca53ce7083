//! The body of a container create.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::fuzz::create_body(data));
