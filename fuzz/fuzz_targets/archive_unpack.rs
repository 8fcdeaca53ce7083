//! Any bytes unpacked into a directory: nothing may appear beside it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let outside = tempfile::tempdir().expect("create a folder");
    let inside = outside.path().join("inside");
    std::fs::create_dir(&inside).expect("create a folder");
    archive::fuzz_unpack(data, &inside);
    assert_eq!(std::fs::read_dir(outside.path()).expect("read a folder").count(), 1, "something was written outside");
});
