//! The `filters` parameter of the API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::fuzz::filters(data));
