//! Whatever lies in a deploy directory is read or refused, and nothing outside of it is read.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_program::fuzzing::deploy_import(bytes));
