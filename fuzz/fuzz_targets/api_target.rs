//! A request's path and query.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::fuzz::target(data));
