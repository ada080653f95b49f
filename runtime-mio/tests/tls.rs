//! All tests of `exchange.rs` and `limits.rs` with TLS beneath; `support::OVER_TLS` says what is
//! not the same.
#![expect(clippy::duplicate_mod, reason = "each of the two files has its support")]

#[path = "exchange.rs"]
mod exchange;
#[path = "limits.rs"]
mod limits;
