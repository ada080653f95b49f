//! Whatever a PEM file holds is read or refused, and never panics.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_program::fuzzing::certificate(bytes));
