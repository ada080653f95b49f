//! Every cut of a chunked body gives the same body and verdict; nothing but the body is kept.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::chunked(bytes));
