//! A line of the event journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| containerd::fuzz::journal(data));
