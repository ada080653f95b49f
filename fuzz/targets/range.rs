//! A part is never empty nor outside; what RFC 9110 14 calls no range counts as none.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::range(bytes));
