//! Any requests to the admin API are answered, never with 500, and refusals say why in JSON.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_program::fuzzing::admin(bytes));
