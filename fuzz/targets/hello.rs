//! More bytes never change what a ClientHello was taken for.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::hello(bytes));
