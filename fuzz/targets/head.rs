//! Every cut of a head gives the same verdict; what is accepted has one meaning and one end.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otter_tests::fuzz::head(bytes));
