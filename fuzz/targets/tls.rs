//! Any ciphertext, and any record under real keys, keeps laws 2 to 9 over TLS.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::tls(bytes));
