//! Whatever a file of settings says is taken or refused with a reason, and never panics.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_program::fuzzing::config(bytes));
