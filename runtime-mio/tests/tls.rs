//! All tests of `exchange.rs` and `limits.rs` with TLS beneath; `support::OVER_TLS` says what is
//! not the same.

#[path = "exchange.rs"]
mod exchange;
#[path = "limits.rs"]
mod limits;
