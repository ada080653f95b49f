//! Law 12 of docs/design.md 8: whatever is asked, the memory store answers as the model store does.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::store(bytes));
