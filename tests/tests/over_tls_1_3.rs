//! The suites of the exchanges once more, over TLS 1.3: records of any size, and an end
//! of the socket that nothing announces.
//!
//! [`otter_tests::tls::Beneath`] knows this binary by its name; [`otter_tests::tls::Difference`]
//! says what cannot be the same, and why.

#[path = "check_in.rs"]
mod check_in;
#[path = "firmware.rs"]
mod firmware;
#[path = "guard_rails.rs"]
mod guard_rails;
#[path = "http.rs"]
mod http;
#[path = "laws.rs"]
mod laws;
#[path = "push.rs"]
mod push;
#[path = "ranges.rs"]
mod ranges;
#[path = "record.rs"]
mod record;
#[path = "redeem.rs"]
mod redeem;
#[path = "reply_budget.rs"]
mod reply_budget;
#[path = "reports.rs"]
mod reports;
#[path = "status_modes.rs"]
mod status_modes;
#[path = "timeouts.rs"]
mod timeouts;
#[path = "update_decision.rs"]
mod update_decision;

#[test]
fn there_is_tls_beneath() {
    let peer = otter_tests::Scene::new().exchange().peer;
    assert_eq!(peer.tls_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}
