//! What is read as an id reads the same when written; secrets do not print.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::ids(bytes));
