//! Whatever Redis answers is read or refused, and never panics.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_store::fuzzing::redis_answers(bytes));
