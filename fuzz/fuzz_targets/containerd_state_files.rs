//! The files of the state directory, and a checkpoint's record.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| containerd::fuzz::state_files(data));
