//! Check-ins as the tests of docs/wire.md 1.1 make them, and the OK reply that they expect.

use otter_protocol::Outcome;

use crate::scene::{KEY, OWNER};
use crate::{Exchange, Fields, Heard, Request, Scene};

/// One check-in of these fields on a connection of its own.
#[must_use]
pub fn check_in(scene: &Scene, fields: &Fields) -> (Exchange, Heard) {
    let mut exchange = scene.exchange();
    let heard = again(&mut exchange, fields);
    (exchange, heard)
}

/// One more check-in on the same store, on a fresh connection.
pub fn again(exchange: &mut Exchange, fields: &Fields) -> Heard {
    let request = Request::check_in(KEY, &fields.wrapped("registration")).without("Connection");
    exchange.request(&request.bytes())
}

/// A request on a connection of its own that is refused in JSON: status, body, what was reported,
/// and which queries it took.
///
/// # Panics
///
/// If the answer is not JSON.
#[must_use]
pub fn refusal(
    scene: &Scene,
    request: &Request,
) -> (u16, String, Option<Outcome>, Vec<&'static str>) {
    let mut exchange = scene.exchange();
    let heard = exchange.request(&request.bytes());
    let reply = heard.reply();
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    (reply.status, reply.text().to_owned(), exchange.outcome(), heard.kinds())
}

/// The body of an OK reply, byte for byte (docs/wire.md 1.1).
#[must_use]
pub fn ok_body(alias: &str, auto_update: bool, udid: &str, timestamp: u64) -> String {
    format!(
        "{{\"registration\":{{\"success\":true,\"status\":\"OK\",\"auto_update\":{auto_update},\
         \"owner\":\"{OWNER}\",\"alias\":\"{alias}\",\"mesh_ids\":[],\"udid\":\"{udid}\",\
         \"timestamp\":{timestamp}}}}}"
    )
}
