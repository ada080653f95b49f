//! Any calls in any order keep laws 2 to 10 of docs/design.md 8, and the connection closes.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::connection(bytes));
