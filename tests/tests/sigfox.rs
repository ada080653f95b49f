//! SigFox (docs/wire.md 8): a check-in that asks for a downlink is answered with one.

use otter_protocol::Outcome;
use otter_tests::scene::{KEY, NO_KEY, registration};
use otter_tests::{Exchange, Fields, Heard, Request, Scene};

/// What a SigFox backend sends in a device's name.
fn asking() -> Fields {
    registration().without("udid").text("mac", "SIGFOX1A2B3C").raw("ack", "true")
}

fn send(scene: &Scene, key: &str, fields: &Fields) -> (Exchange, Heard) {
    let mut exchange = scene.exchange();
    let request = Request::check_in(key, &fields.wrapped("registration"));
    let heard = exchange.request(&request.bytes());
    (exchange, heard)
}

fn downlink(fields: &Fields) -> String {
    let (_, heard) = send(&Scene::new(), KEY, fields);
    let reply = heard.reply();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    reply.text().to_owned()
}

#[test]
fn a_downlink_is_the_id_and_eight_bytes_of_the_status() {
    let (exchange, heard) = send(&Scene::new(), KEY, &asking());
    assert_eq!(heard.reply().text(), "{\"1A2B3C\":{\"downlinkData\":\"5265676973746572\"}}");
    assert_eq!(heard.kinds(), ["Identify", "Record"], "kept like any other");
    assert_eq!(exchange.outcome(), Some(Outcome::Registered));
    for (status, payload) in [
        ("ok", "6f6b000000000000"),
        ("", "0000000000000000"),
        ("12345678", "3132333435363738"),
        ("123456789", "3132333435363738"),
        ("a\n\u{e9}", "610ac3a900000000"),
    ] {
        let expected = format!("{{\"1A2B3C\":{{\"downlinkData\":\"{payload}\"}}}}");
        assert_eq!(downlink(&asking().text("status", status)), expected, "{status:?}");
    }
    let without = downlink(&asking().without("status"));
    assert_eq!(without, "{\"1A2B3C\":{\"downlinkData\":\"0000000000000000\"}}");
}

#[test]
fn whoever_does_not_ask_gets_no_downlink() {
    for fields in [
        asking().without("ack"),
        asking().raw("ack", "null"),
        asking().text("mac", "5CCF7FEE1337"),
        asking().without("mac"),
    ] {
        assert!(downlink(&fields).contains("\"status\":\"OK\""), "{fields:?}");
    }
    for ack in ["false", "0", "\"\"", "{}", "[1]"] {
        assert!(downlink(&asking().raw("ack", ack)).contains("downlinkData"), "{ack}");
    }
}

#[test]
fn refusals_are_those_of_every_check_in() {
    let (_, heard) = send(&Scene::new(), NO_KEY, &asking());
    let refused = "{\"success\":false,\"response\":\"owner_found_but_no_key\"}";
    assert_eq!(heard.reply().text(), refused);
}
