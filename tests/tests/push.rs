//! `POST /device/addpush` (docs/wire.md 1.5).

use otter_protocol::{Answer, Outcome, Query, Refusal};
use otter_tests::scene::{self, DEVICE, KEY, NO_DEVICE, NO_KEY, OTHER_DEVICE, OTHER_KEY, OWNER};
use otter_tests::{Exchange, Fields, Heard, Request, Scene};

const NO_BODY: &str = "{\"success\":false,\"response\":\"no_body\"}";
const NO_TOKEN: &str = "{\"success\":false,\"response\":\"no_token\"}";
const NOT_FOUND: &str = "{\"success\":false,\"response\":\"push_device_not_found\"}";
const STORED: &str = "{\"success\":true,\"response\":\"push_token_registered\"}";

fn fields() -> Fields {
    Fields::none().text("push", "fcm:APA91b_x-1").text("udid", DEVICE)
}

fn push(request: &Request) -> (Exchange, Heard) {
    let mut exchange = Scene::new().exchange();
    let heard = exchange.request(&request.bytes());
    (exchange, heard)
}

fn add_push(fields: &Fields) -> Request {
    Request::post("/device/addpush", &fields.json())
}

fn assert_answer(request: &Request, body: &str, kinds: &[&str]) {
    let (_, heard) = push(request);
    let reply = heard.reply();
    assert_eq!((reply.status, reply.text()), (200, body));
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    assert_eq!(heard.kinds(), kinds, "{body}");
}

fn assert_forbidden(request: &Request, kinds: &[&str]) {
    let (_, heard) = push(request);
    let reply = heard.reply();
    assert_eq!((reply.status, reply.text(), reply.content_length()), (403, "", Some(0)));
    assert_eq!(heard.kinds(), kinds);
}

#[test]
fn a_body_that_says_something_twice_or_goes_on_is_invalid() {
    for body in [
        format!("{{\"push\":\"a\",\"push\":\"a\",\"udid\":\"{DEVICE}\"}}"),
        format!("{{\"push\":\"a\",\"udid\":\"{DEVICE}\",\"udid\":\"{DEVICE}\"}}"),
        fields().json() + "x",
    ] {
        let (_, heard) = push(&Request::post("/device/addpush", &body).key(KEY));
        let reply = heard.reply();
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"request_invalid\"}");
    }
}

#[test]
fn an_empty_push_token_is_none() {
    assert_answer(&add_push(&fields().text("push", "")).key(KEY), NO_TOKEN, &[]);
}

#[test]
fn an_answer_to_something_else_is_unavailable() {
    for answer in [Answer::Claimed(true), Answer::Recorded(None), Answer::Release(None)] {
        let mut exchange = Scene::new().exchange();
        exchange.input(&add_push(&fields()).key(KEY).bytes());
        exchange.ask().expect("Identify");
        exchange.answer(answer);
        exchange.settle();
        assert_eq!(exchange.heard().reply().status, 503);
    }
}

#[test]
fn without_a_body_or_a_push_token() {
    for request in [
        Request::new("POST", "/device/addpush").key(KEY),
        Request::post("/device/addpush", "").key(KEY),
        Request::post("/device/addpush", "{}").key(KEY),
        add_push(&fields().without("push")).key(KEY),
        add_push(&fields().without("push")),
    ] {
        assert_answer(&request, NO_BODY, &[]);
    }
}

#[test]
fn a_push_token_that_fails_the_rule() {
    let not_hex = "g".repeat(64);
    for push in ["5", "true", "{}", "[\"a\"]", "\"a b\"", "\"a.b\"", "\"\\u00e9\"", "\"a\\nb\""] {
        assert_answer(&add_push(&fields().raw("push", push)).key(KEY), NO_TOKEN, &[]);
    }
    // 64 characters must be hexadecimal, or else it is an iOS token that is none.
    assert_answer(&add_push(&fields().text("push", &not_hex)).key(KEY), NO_TOKEN, &[]);
}

#[test]
fn push_tokens_that_pass_the_rule_are_kept() {
    for push_token in [
        "a".to_owned(),
        "fcm:APA91b_x-1".to_owned(),
        "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdef0123".to_owned(),
        "g".repeat(63),
        "Z".repeat(180),
    ] {
        let (exchange, heard) = push(&add_push(&fields().text("push", &push_token)).key(KEY));
        assert_eq!((heard.reply().status, heard.reply().text()), (200, STORED), "{push_token}");
        let kept = exchange.store.device(scene::device(DEVICE)).expect("the device");
        assert_eq!(kept.push.as_deref(), Some(push_token.as_str()));
        assert_eq!(exchange.outcome(), Some(Outcome::Answered));
    }
}

#[test]
fn the_device_is_identified_with_its_own_owner() {
    let (_, heard) = push(&add_push(&fields()).key(KEY));
    assert_eq!(heard.kinds(), ["Identify", "Push"]);
    let identify = heard.identify(0);
    assert_eq!(identify.owner, None, "the device's own");
    assert_eq!(identify.device, Some(scene::device(DEVICE)));
    assert_eq!(identify.key.text(), KEY.as_bytes());
    assert!(matches!(&heard.queries[1], Query::Push { device, push }
        if *device == scene::device(DEVICE) && &**push == "fcm:APA91b_x-1"));
}

#[test]
fn a_key_that_is_missing_or_none_is_forbidden() {
    assert_forbidden(&add_push(&fields()), &[]);
    for key in ["", "abc", &KEY[..63], &KEY.to_uppercase()] {
        assert_forbidden(&add_push(&fields()).key(key), &[]);
    }
}

#[test]
fn a_key_of_somebody_else_is_forbidden() {
    for key in [NO_KEY, OTHER_KEY] {
        let (exchange, heard) = push(&add_push(&fields()).key(key));
        assert_eq!((heard.reply().status, heard.reply().text()), (403, ""));
        assert_eq!(heard.kinds(), ["Identify"], "nothing is kept");
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::WrongKey)));
    }
    assert_forbidden(&add_push(&fields().text("udid", OTHER_DEVICE)).key(KEY), &["Identify"]);
}

#[test]
fn a_key_whose_owner_lost_it_is_forbidden() {
    let mut scene = Scene::new();
    scene.store.remove_key(scene::owner(OWNER), scene::key(KEY));
    let heard = scene.exchange().request(&add_push(&fields()).key(KEY).bytes());
    assert_eq!((heard.reply().status, heard.reply().text()), (403, ""));
}

#[test]
fn an_unknown_device() {
    assert_answer(&add_push(&fields().text("udid", NO_DEVICE)).key(KEY), NOT_FOUND, &["Identify"]);
    for udid in ["0", "", "xyz"] {
        assert_answer(&add_push(&fields().text("udid", udid)).key(KEY), NOT_FOUND, &[]);
    }
    assert_answer(&add_push(&fields().without("udid")).key(KEY), NOT_FOUND, &[]);
}

#[test]
fn the_token_is_judged_before_the_key_and_the_key_before_the_device() {
    assert_answer(&add_push(&fields().raw("push", "5")), NO_TOKEN, &[]);
    assert_forbidden(&add_push(&fields().text("udid", "0")), &[]);
}

#[test]
fn bad_json_is_an_invalid_request() {
    let (_, heard) = push(&Request::post("/device/addpush", "{\"push\":").key(KEY));
    let reply = heard.reply();
    assert_eq!(reply.status, 400);
    assert_eq!(reply.text(), "{\"success\":false,\"response\":\"request_invalid\"}");
}

#[test]
fn what_cannot_be_kept_is_unavailable() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&add_push(&fields()).key(KEY).bytes());
    let identify = exchange.ask().expect("Identify");
    let standing = exchange.store.answer(&identify);
    exchange.answer(standing);
    exchange.ask().expect("Push");
    exchange.answer(Answer::Unavailable);
    exchange.settle();
    let reply = exchange.heard().reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("10")));
}

#[test]
fn it_follows_the_client_in_keeping_the_connection() {
    let (_, heard) = push(&add_push(&fields()).key(KEY));
    assert!(!heard.ended);
    let (_, heard) = push(&add_push(&fields()).key(KEY).header("Connection", "close"));
    assert!(heard.ended && heard.reply().says_close());
}
