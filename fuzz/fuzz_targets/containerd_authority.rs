//! The bytes of an HTTP/2 client, before the HTTP/2 library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| containerd::fuzz::authority(data));
