//! `POST /device/firmware` (docs/wire.md 1.2 and 1.3): simple, forced, and with `use: ott`.

use otter_protocol::{Answer, Outcome, Refusal};
use otter_tests::image::{hex, image, md5_of};
use otter_tests::scene::{
    self, DEVICE, KEY, NO_DEVICE, NO_KEY, NO_OWNER, OTHER_DEVICE, OTHER_KEY, OTHER_OWNER, firmware,
    registration, token_text,
};
use otter_tests::{Draft, Exchange, Fields, Heard, Reply, Request, Scene};

const JSON: Option<&str> = Some("application/json");
const TEXT: Option<&str> = Some("text/plain");

fn offering() -> Scene {
    Scene::new().with_release("1.2.0", 9000).with_auto_update()
}

fn post(scene: &Scene, body: &str) -> (Exchange, Heard) {
    let mut exchange = scene.exchange();
    let heard = exchange.request(&Request::post("/device/firmware", body).key(KEY).bytes());
    (exchange, heard)
}

fn reply(scene: &Scene, request: &Request) -> Reply {
    let heard = scene.exchange().request(&request.bytes());
    assert!(heard.ended, "POST /device/firmware always closes");
    let reply = heard.reply();
    assert!(reply.says_close());
    reply
}

fn assert_refused(scene: &Scene, request: &Request, content_type: Option<&str>, body: &str) {
    let reply = reply(scene, request);
    assert_eq!((reply.status, reply.text()), (200, body));
    assert_eq!(reply.header("Content-Type"), content_type, "{body}");
}

fn request(fields: &Fields) -> Request {
    Request::post("/device/firmware", &fields.json()).key(KEY)
}

#[test]
fn row_2_without_a_mac() {
    let body = "{\"success\":false,\"response\":\"missing_mac\"}";
    for request in [
        request(&firmware().without("mac")),
        Request::post("/device/firmware", "").key(KEY),
        Request::new("POST", "/device/firmware").key(KEY),
        Request::post("/device/firmware", "{}").key(KEY),
        Request::post("/device/firmware", "{}"),
    ] {
        assert_refused(&offering(), &request, JSON, body);
    }
}

#[test]
fn row_3_without_a_key() {
    let body = "{\"success\":false,\"response\":\"authentication\"}";
    let request = Request::post("/device/firmware", &firmware().json());
    assert_refused(&offering(), &request, JSON, body);
}

#[test]
fn row_4_without_keys_or_without_an_owner() {
    let unknown = request(&firmware().text("owner", NO_OWNER));
    let body = "{\"success\":false,\"response\":\"apikey_not_found\"}";
    assert_refused(&offering(), &unknown, JSON, body);
    for owner in ["nobody", ""] {
        let invalid = request(&firmware().text("owner", owner));
        assert_refused(&offering(), &invalid, JSON, "{\"success\":false}");
    }
    assert_refused(
        &offering(),
        &request(&firmware().without("owner")),
        JSON,
        "{\"success\":false}",
    );
}

#[test]
fn row_5_a_wrong_key_is_refused_whatever_else_the_body_holds() {
    let body = "{\"success\":false,\"response\":\"owner_found_but_no_key\"}";
    for fields in [
        firmware(),
        firmware().text("ott", "x"),
        firmware().raw("ott", "null"),
        firmware().raw("forced", "true"),
        firmware().text("ott", "x").raw("forced", "true"),
    ] {
        for key in [NO_KEY, OTHER_KEY] {
            let request = Request::post("/device/firmware", &fields.json()).key(key);
            assert_refused(&offering(), &request, JSON, body);
        }
    }
}

#[test]
fn a_token_in_the_body_never_stands_for_a_key() {
    let request = Request::post("/device/firmware", &firmware().text("ott", "x").json());
    let body = "{\"success\":false,\"response\":\"authentication\"}";
    assert_refused(&offering(), &request, JSON, body);
}

#[test]
fn row_6_an_unknown_or_foreign_device() {
    for udid in [NO_DEVICE, OTHER_DEVICE] {
        let fields = firmware().text("udid", udid).text("mac", "AABBCCDDEEFF");
        let mut exchange = offering().exchange();
        let heard = exchange.request(&request(&fields).bytes());
        let reply = heard.reply();
        assert_eq!((reply.status, reply.text()), (200, "no_such_device"));
        assert_eq!(reply.header("Content-Type"), TEXT);
        assert_eq!(heard.kinds(), ["Identify"]);
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::UnknownDevice)));
    }
}

#[test]
fn a_foreign_device_is_not_reached_by_the_mac_beside_it() {
    let fields = firmware().text("udid", OTHER_DEVICE);
    assert_refused(&offering(), &request(&fields), TEXT, "no_such_device");
}

#[test]
fn a_device_without_an_id_is_found_by_its_mac() {
    let (_, heard) = post(&offering(), &firmware().without("udid").json());
    assert_eq!(heard.reply().body, image("1.2.0", 9000));
}

#[test]
fn row_7_nothing_is_published() {
    let (exchange, heard) = post(&Scene::new().with_auto_update(), &firmware().json());
    let reply = heard.reply();
    assert_eq!(
        (reply.status, reply.text()),
        (200, "{\"success\":false,\"status\":\"UPDATE_NOT_FOUND\"}")
    );
    assert_eq!(reply.header("Content-Type"), JSON);
    assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::NoRelease)));
}

#[test]
fn row_7_what_was_withdrawn_meanwhile_is_not_found() {
    let mut exchange = offering().exchange();
    exchange.input(&request(&firmware()).bytes());
    let identify = exchange.ask().expect("Identify");
    let standing = exchange.store.answer(&identify);
    exchange.answer(standing);
    exchange.ask().expect("Fetch");
    exchange.answer(Answer::Release(None));
    exchange.settle();
    let reply = exchange.heard().reply();
    assert_eq!(reply.text(), "{\"success\":false,\"status\":\"UPDATE_NOT_FOUND\"}");
}

#[test]
fn row_8_a_current_device_or_one_without_auto_update() {
    let current = firmware().text("version", "1.2.0");
    let body = "{\"success\":false,\"status\":\"OK\"}";
    assert_refused(&offering(), &request(&current), JSON, body);
    let held = Scene::new().with_release("1.2.0", 9000);
    assert_refused(&held, &request(&firmware()), JSON, body);
    let (exchange, heard) = post(&offering(), &current.json());
    assert_eq!(heard.kinds(), ["Identify"]);
    assert_eq!(exchange.outcome(), Some(Outcome::NotModified));
}

#[test]
fn row_9_the_raw_image_with_exactly_the_headers_of_1_4() {
    let (exchange, heard) = post(&offering(), &firmware().json());
    let image = image("1.2.0", 9000);
    let reply = heard.reply();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body, image);
    // ETag and Accept-Ranges belong to GET and are no trouble here.
    let headers: Vec<_> = reply
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !matches!(*name, "ETag" | "Accept-Ranges"))
        .collect();
    let md5 = hex(&md5_of(&image));
    assert_eq!(
        headers,
        [
            ("Content-Type", "application/octet-stream"),
            ("Content-Disposition", "attachment; filename=firmware.bin"),
            ("Content-Length", "9000"),
            ("x-MD5", md5.as_str()),
            ("Connection", "close"),
        ]
    );
    assert_eq!(heard.kinds(), ["Identify", "Fetch"]);
    assert_eq!(exchange.outcome(), Some(Outcome::Delivered));
    assert!(heard.ended);
}

#[test]
fn row_10_a_bundle_is_json() {
    let json = "{\"type\":\"file\",\"files\":[{\"name\":\"x.lua\",\"data\":\"print(1)\"}]}";
    let mut scene = Scene::new().with_auto_update();
    scene.publish(&Draft::bundle("1.2.0", json));
    let (_, heard) = post(&scene, &firmware().json());
    let reply = heard.reply();
    assert_eq!((reply.status, reply.text()), (200, json));
    assert_eq!(reply.header("Content-Type"), JSON);
    assert_eq!(reply.header("Content-Disposition"), None);
}

#[test]
fn a_wrapped_body_is_unwrapped() {
    for wrapper in ["registration", "update"] {
        let (_, heard) = post(&offering(), &firmware().wrapped(wrapper));
        assert_eq!(heard.reply().body, image("1.2.0", 9000), "{wrapper}");
    }
}

#[test]
fn forced_skips_the_version_and_the_flag() {
    let current = firmware().text("version", "1.2.0");
    let held = Scene::new().with_release("1.2.0", 9000);
    for value in ["true", "\"true\"", "1", "\"1\""] {
        for scene in [&offering(), &held] {
            let (_, heard) = post(scene, &current.clone().raw("forced", value).json());
            assert_eq!(heard.reply().body, image("1.2.0", 9000), "{value}");
        }
    }
    for value in ["false", "\"false\"", "0", "\"0\"", "null", "\"yes\"", "2"] {
        let (_, heard) = post(&held, &current.clone().raw("forced", value).json());
        assert_eq!(heard.reply().text(), "{\"success\":false,\"status\":\"OK\"}", "{value}");
    }
}

#[test]
fn forced_never_skips_authentication_or_ownership() {
    let forced = firmware().raw("forced", "true");
    let no_key = Request::post("/device/firmware", &forced.json());
    assert!(reply(&offering(), &no_key).text().contains("\"authentication\""));
    let foreign = request(&forced.text("udid", OTHER_DEVICE));
    assert_eq!(reply(&offering(), &foreign).text(), "no_such_device");
}

#[test]
fn forced_goes_down_too() {
    let newer = firmware().text("version", "9.0.0");
    let (_, heard) = post(&offering(), &newer.json());
    assert_eq!(heard.reply().text(), "{\"success\":false,\"status\":\"OK\"}");
    let (_, heard) = post(&offering(), &newer.raw("forced", "true").json());
    assert_eq!(heard.reply().body, image("1.2.0", 9000));
}

#[test]
fn bad_json_is_an_invalid_request() {
    for body in ["{", "[1", "{\"mac\":\"a\"} x", "{\"mac\":\"a\",\"mac\":\"b\"}"] {
        let (_, heard) = post(&offering(), body);
        let reply = heard.reply();
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"request_invalid\"}", "{body}");
    }
}

#[test]
fn a_store_that_cannot_answer_is_unavailable() {
    for (fields, last) in [(firmware(), "Fetch"), (firmware().text("use", "ott"), "Record")] {
        for refused in ["Identify", last] {
            let mut exchange = offering().exchange();
            exchange.input(&request(&fields).bytes());
            while let Some(query) = exchange.ask() {
                let answer = if otter_tests::exchange::kind(&query) == refused {
                    Answer::Unavailable
                } else {
                    exchange.store.answer(&query)
                };
                exchange.answer(answer);
            }
            exchange.settle();
            let reply = exchange.heard().reply();
            assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("10")), "{refused}");
            assert_eq!(reply.text(), "{\"success\":false,\"response\":\"unavailable\"}");
        }
    }
}

#[test]
fn use_ott_issues_a_token() {
    let mut scene = Scene::new().with_auto_update();
    let release = scene.publish(&Draft::binary("1.2.0", 9000));
    let (exchange, heard) = post(&scene, &firmware().text("use", "ott").json());
    let reply = heard.reply();
    assert_eq!((reply.status, reply.header("Content-Type")), (200, JSON));
    let json = reply.json();
    let text = json["ott"].as_str().expect("a token");
    assert_eq!(reply.text(), format!("{{\"ott\":\"{text}\"}}"));
    assert_eq!(reply.body.len(), 74);
    assert_eq!(heard.kinds(), ["Identify", "Record"]);
    let record = heard.record(1);
    assert_eq!(record.device, Some(scene::device(DEVICE)));
    assert_eq!(record.grant, Some(scene.grant(Some(release))));
    assert_eq!(exchange.outcome(), Some(Outcome::Issued));
    let token = otter_protocol::Token::parse(text.as_bytes()).expect("64 digits");
    assert_eq!(token_text(token), text);
    assert!(exchange.store.token(token).is_some());
    assert!(heard.ended);
}

#[test]
fn use_ott_issues_a_token_before_anything_is_published() {
    let (_, heard) = post(&Scene::new(), &firmware().text("use", "ott").json());
    assert_eq!(heard.reply().body.len(), 74);
    assert_eq!(heard.record(1).grant, Some(Scene::new().grant(None)));
}

#[test]
fn a_token_that_the_store_does_not_issue_is_refused() {
    let mut exchange = offering().exchange();
    let body = firmware().text("use", "ott").json();
    exchange.input(&Request::post("/device/firmware", &body).key(KEY).bytes());
    exchange.ask().expect("Identify");
    exchange.answer_truly();
    exchange.ask().expect("Record");
    exchange.answer(Answer::Recorded(None));
    exchange.settle();
    assert_eq!(exchange.heard().reply().text(), "OTT_API_KEY_NOT_VALID");
}

#[test]
fn a_key_that_stands_twice_is_invalid() {
    for name in ["mac", "udid", "owner", "version", "env_hash", "forced", "use"] {
        let body = format!("{{\"{name}\":\"1\",\"{name}\":\"1\"}}");
        let (_, heard) = post(&offering(), &body);
        let invalid = "{\"success\":false,\"response\":\"request_invalid\"}";
        assert_eq!(heard.reply().text(), invalid, "{name}");
    }
}

#[test]
fn a_forced_token_says_so() {
    let fields = firmware().text("use", "ott").raw("forced", "\"true\"");
    let (_, heard) = post(&offering(), &fields.json());
    assert!(heard.record(1).grant.expect("a grant").forced);
}

#[test]
fn the_owner_of_a_token_request_may_stand_inside() {
    for wrapper in ["registration", "update"] {
        let body = format!("{{\"use\":\"ott\",\"{wrapper}\":{}}}", firmware().json());
        let (_, heard) = post(&offering(), &body);
        assert_eq!(heard.reply().body.len(), 74, "{wrapper}");
    }
}

#[test]
fn use_counts_at_top_level_only() {
    let (_, heard) = post(&offering(), &firmware().text("use", "ott").wrapped("registration"));
    assert_eq!(heard.reply().body, image("1.2.0", 9000));
}

#[test]
fn a_token_request_needs_no_mac() {
    let fields = firmware().without("mac").text("use", "ott");
    assert_eq!(reply(&offering(), &request(&fields)).body.len(), 74);
}

#[test]
fn a_token_request_that_fails_says_one_thing() {
    let issue = firmware().text("use", "ott");
    let no_key = Request::post("/device/firmware", &issue.json());
    let wrong_key = no_key.clone().key(NO_KEY);
    for request in [
        no_key,
        wrong_key,
        Request::post("/device/firmware", "{\"use\":\"ott\"}"),
        Request::post("/device/firmware", "{\"use\":\"ott\"}").key(KEY),
        request(&issue.clone().text("owner", NO_OWNER)),
        request(&issue.clone().text("owner", "nobody")),
        request(&issue.clone().text("owner", OTHER_OWNER)),
        request(&issue.clone().text("udid", OTHER_DEVICE)),
        request(&issue.text("udid", NO_DEVICE).text("mac", "AABBCCDDEEFF")),
    ] {
        assert_refused(&offering(), &request, TEXT, "OTT_API_KEY_NOT_VALID");
    }
}

#[test]
fn a_token_request_that_fails_writes_nothing() {
    let fields = firmware().text("use", "ott").text("udid", OTHER_DEVICE);
    let (exchange, heard) = post(&offering(), &fields.json());
    assert_eq!(heard.kinds(), ["Identify"]);
    assert_eq!(exchange.store.tokens_kept(), 0);
}

#[test]
fn the_alias_route_takes_token_requests_only() {
    for target in ["/device", "/device/"] {
        let issue = Request::post(target, &firmware().text("use", "ott").json()).key(KEY);
        assert_eq!(offering().exchange().request(&issue.bytes()).reply().body.len(), 74);
        for body in [firmware().json(), registration().wrapped("registration"), "{}".to_owned()] {
            let other = Request::post(target, &body).key(KEY);
            let reply = offering().exchange().request(&other.bytes()).reply();
            assert_eq!(reply.status, 404, "{target} {body}");
            assert_eq!(reply.text(), "{\"success\":false,\"response\":\"not_found\"}");
        }
    }
}

#[test]
fn a_token_from_a_token_request_fetches_the_image_once() {
    let (issuing, heard) = post(&offering(), &firmware().text("use", "ott").json());
    let ott = heard.reply().json()["ott"].as_str().expect("a token").to_owned();
    let mut store = issuing.store;
    for body in [image("1.2.0", 9000), "OTT_UPDATE_NOT_FOUND".into()] {
        let mut exchange = Exchange::new(store, offering().config);
        assert_eq!(exchange.request(&Request::esp8266_update(&ott).bytes()).reply().body, body);
        store = exchange.store;
    }
}
