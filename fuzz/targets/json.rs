//! The reader of JSON takes what serde_json takes, and reads the same out of it.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::json(bytes));
