//! Of two versions at most one is an update for the other, and none is one for itself.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::version(bytes));
