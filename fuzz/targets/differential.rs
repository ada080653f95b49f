//! The core, hyper and the grammar of RFC 9112 find the same requests, or a class says why not.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::differential(bytes));
