//! The content of a json-file log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logs::fuzz::json_lines(data));
