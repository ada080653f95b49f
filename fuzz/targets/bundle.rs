//! A bundle that passes holds only names of its platform, each once, none with a slash.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_program::fuzzing::bundle(bytes));
