//! TLS beneath the exchanges (docs/wire.md 2.5), as a driver sees it: bytes, deadlines, verdicts.
//! `over_tls_1_2` and `over_tls_1_3` are the suites of the exchanges over TLS, `tls_memory` counts
//! bytes.

#[path = "tls/ends.rs"]
mod ends;
#[path = "tls/handshakes.rs"]
mod handshakes;
#[path = "tls/laws.rs"]
mod laws;
#[path = "tls/manners.rs"]
mod manners;
#[path = "tls/record_sizes.rs"]
mod record_sizes;
#[path = "tls/slow.rs"]
mod slow;
#[path = "tls/strangers.rs"]
mod strangers;

use otter_tests::Request;
use otter_tests::tls::{Terms, V1_2, V1_3};

/// A request that needs no store, and keeps the connection.
fn health() -> Vec<u8> {
    Request::get("/").bytes()
}

/// Each version, with its name for messages.
fn versions() -> [(&'static str, Terms); 2] {
    [("TLS 1.2", Terms::only(V1_2)), ("TLS 1.3", Terms::only(V1_3))]
}
