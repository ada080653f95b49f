//! `POST /device/register` (docs/wire.md 1.1): one test per row, rule and "OURS".

use otter_protocol::{
    Alias, Answer, DeviceStanding, KeyStanding, Mac, Outcome, Query, Recorded, Refusal, Standing,
};
use otter_tests::check_in::{again, check_in, ok_body, refusal};
use otter_tests::scene::{
    self, ALIAS, DEVICE, KEY, MAC, MAC_SHOWN, NO_DEVICE, NO_KEY, NO_OWNER, OTHER_DEVICE,
    OTHER_OWNER, OWNER, registration, token_text,
};
use otter_tests::{Clock, Heard, Request, Scene};
use std::time::Duration;

fn with_close(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_known_device_gets_exactly_the_ok_reply() {
    let mut exchange = Scene::new().exchange();
    let body = registration().wrapped("registration");
    let heard = exchange.request(&Request::check_in(KEY, &body).bytes());
    let expected = ok_body(ALIAS, false, DEVICE, Clock::UNIX_START);
    assert_eq!(heard.text(), with_close(&expected));
    assert_eq!(expected.len(), 235 + ALIAS.len() + 1, "the length of docs/wire.md 1.1");
    assert_eq!(heard.kinds(), ["Identify", "Record"]);
    assert_eq!(exchange.outcome(), Some(Outcome::Current));
    assert!(heard.ended);
}

#[test]
fn the_head_of_a_closing_check_in_reply_has_91_bytes() {
    let mut exchange = Scene::new().exchange();
    let body = registration().wrapped("registration");
    let reply = exchange.request(&Request::check_in(KEY, &body).bytes()).reply();
    assert_eq!(reply.head.len(), 91);
}

#[test]
fn a_kept_connection_is_told_nothing_of_it() {
    let (mut exchange, heard) = check_in(&Scene::new(), &registration());
    let reply = heard.reply();
    assert_eq!(reply.header_names(), ["Content-Type", "Content-Length"]);
    assert!(!heard.ended);
    // And it is kept: the next check-in gets its answer on it.
    assert_eq!(again(&mut exchange, &registration()).reply().status, 200);
}

#[test]
fn what_is_identified_is_what_the_request_names() {
    let (_, heard) = check_in(&Scene::new(), &registration());
    let identify = heard.identify(0);
    assert_eq!(identify.owner, Some(scene::owner(OWNER)));
    assert_eq!(identify.key.text(), KEY.as_bytes());
    assert_eq!(identify.device, Some(scene::device(DEVICE)));
    assert_eq!(identify.mac, Mac::parse(MAC));
}

#[test]
fn row_1_without_a_body_there_is_no_body() {
    let request = Request::new("POST", "/device/register").key(KEY);
    let (status, body, _, kinds) = refusal(&Scene::new(), &request);
    assert_eq!((status, body.as_str()), (400, "{\"success\":false,\"response\":\"no_body\"}"));
    assert!(kinds.is_empty());
}

#[test]
fn row_2_without_a_registration_the_request_is_invalid() {
    for body in ["{}", "{\"other\":{}}", "{\"registration\":{}}", "[]", "5", "\"registration\""] {
        let (status, text, outcome, kinds) = refusal(&Scene::new(), &Request::check_in(KEY, body));
        assert_eq!(status, 400, "{body}");
        assert_eq!(text, "{\"success\":false,\"response\":\"request_invalid\"}", "{body}");
        assert_eq!(outcome, Some(Outcome::Refused(Refusal::BadBody)), "{body}");
        assert!(kinds.is_empty(), "{body}");
    }
}

#[test]
fn a_registration_of_another_type_is_invalid_and_never_hangs() {
    for body in [
        "{\"registration\":null}",
        "{\"registration\":\"abc\"}",
        "{\"registration\":[]}",
        "{\"registration\":true}",
        "{\"registration\":7}",
    ] {
        let (status, text, _, _) = refusal(&Scene::new(), &Request::check_in(KEY, body));
        assert_eq!(status, 400, "{body}");
        assert_eq!(text, "{\"success\":false,\"response\":\"request_invalid\"}", "{body}");
    }
}

#[test]
fn bad_json_is_an_invalid_request_in_json() {
    for body in [
        "{",
        "{\"registration\":",
        "{\"registration\":{}} extra",
        "{\"registration\":{\"owner\":\"a\",}}",
        "not json",
        "{\"registration\":{\"alias\":\"\u{1}\"}}",
    ] {
        let (status, text, outcome, _) = refusal(&Scene::new(), &Request::check_in(KEY, body));
        assert_eq!(status, 400, "{body}");
        assert_eq!(text, "{\"success\":false,\"response\":\"request_invalid\"}", "{body}");
        assert_eq!(outcome, Some(Outcome::Refused(Refusal::BadBody)), "{body}");
    }
}

#[test]
fn the_body_counts_whatever_its_content_type() {
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request =
            Request::check_in(KEY, &registration().wrapped("registration")).without("Content-Type");
        if let Some(content_type) = content_type {
            request = request.header("Content-Type", content_type);
        }
        assert_eq!(refusal(&Scene::new(), &request).0, 200);
    }
}

#[test]
fn row_3_without_a_key() {
    let body = registration().wrapped("registration");
    let request = Request::check_in(KEY, &body).without("Authentication");
    let (status, text, outcome, kinds) = refusal(&Scene::new(), &request);
    assert_eq!(status, 200);
    assert_eq!(text, "{\"success\":false,\"response\":\"authentication_error\"}");
    assert_eq!(outcome, Some(Outcome::Refused(Refusal::NoKey)));
    assert!(kinds.is_empty());
}

fn no_keys() -> Vec<String> {
    let mut keys: Vec<String> = ["", "88", &KEY[..63], "\"\""].map(str::to_owned).to_vec();
    keys.extend([format!("{KEY}0"), KEY.to_uppercase(), "g".repeat(64)]);
    keys
}

#[test]
fn what_has_not_the_form_of_a_key_never_reaches_the_store() {
    for key in no_keys() {
        let body = registration().wrapped("registration");
        let (status, text, _, kinds) = refusal(&Scene::new(), &Request::check_in(&key, &body));
        assert_eq!(status, 200, "{key}");
        assert!(text.starts_with("{\"success\":false,"), "{key}: {text}");
        assert!(kinds.is_empty(), "{key}");
    }
}

#[test]
fn what_has_not_the_form_of_a_key_is_reported_as_no_key() {
    for key in no_keys() {
        let body = registration().wrapped("registration");
        let (_, _, outcome, _) = refusal(&Scene::new(), &Request::check_in(&key, &body));
        assert_eq!(outcome, Some(Outcome::Refused(Refusal::NoKey)), "{key}");
    }
}

#[test]
fn a_key_may_stand_in_blanks_and_quotes() {
    for shape in [format!("\"{KEY}\""), format!("  {KEY}\t"), format!("'{KEY}'")] {
        let body = registration().wrapped("registration");
        let (_, text, _, _) = refusal(&Scene::new(), &Request::check_in(&shape, &body));
        assert!(text.contains("\"status\":\"OK\""), "{shape}: {text}");
    }
}

#[test]
fn row_4_a_bad_owner_is_named() {
    let upper = "A".repeat(64);
    for (fields, raw) in [
        (registration().text("owner", "nobody"), "nobody"),
        (registration().text("owner", &upper), upper.as_str()),
        (registration().text("owner", ""), ""),
        (registration().raw("owner", "5"), "5"),
        (registration().without("owner"), "undefined"),
    ] {
        let request = Request::check_in(KEY, &fields.wrapped("registration"));
        let (status, text, outcome, kinds) = refusal(&Scene::new(), &request);
        assert_eq!(status, 200, "{raw}");
        assert_eq!(text, format!("{{\"success\":false,\"response\":\"invalid owner:{raw}\"}}"));
        assert_eq!(outcome, Some(Outcome::Refused(Refusal::UnknownOwner)), "{raw}");
        assert!(kinds.is_empty(), "{raw}");
    }
}

#[test]
fn the_owner_that_is_named_back_cannot_break_the_json() {
    for raw in ["a\"b", "back\\slash", "new\nline", "}}", "\u{e9}\u{1f98a}"] {
        let fields = registration().text("owner", raw);
        let request = Request::check_in(KEY, &fields.wrapped("registration"));
        let (_, text, _, _) = refusal(&Scene::new(), &request);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["success"], false);
        let response = json["response"].as_str().expect("text");
        assert!(response.starts_with("invalid owner:"), "{response}");
    }
}

#[test]
fn row_5_an_owner_without_keys() {
    let fields = registration().text("owner", NO_OWNER);
    let request = Request::check_in(KEY, &fields.wrapped("registration"));
    let (status, text, outcome, kinds) = refusal(&Scene::new(), &request);
    assert_eq!(status, 200);
    assert_eq!(text, "{\"success\":false,\"response\":\"apikey_not_found\"}");
    assert_eq!(outcome, Some(Outcome::Refused(Refusal::UnknownOwner)));
    assert_eq!(kinds, ["Identify"]);
}

#[test]
fn row_6_a_key_that_is_not_the_owners() {
    for key in [NO_KEY, scene::OTHER_KEY] {
        let request = Request::check_in(key, &registration().wrapped("registration"));
        let (status, text, outcome, kinds) = refusal(&Scene::new(), &request);
        assert_eq!(status, 200);
        assert_eq!(text, "{\"success\":false,\"response\":\"owner_found_but_no_key\"}");
        assert_eq!(outcome, Some(Outcome::Refused(Refusal::WrongKey)));
        assert_eq!(kinds, ["Identify"]);
    }
}

/// Found to be missing by a planted bug (docs/planted.md): nobody registers with a wrong key.
#[test]
fn row_6_a_device_that_is_not_known_either() {
    let strangers = [
        registration().without("udid").text("mac", "AABBCCDDEEFF"),
        registration().text("udid", NO_DEVICE).text("mac", "AABBCCDDEEFF"),
    ];
    for (fields, key) in strangers.iter().flat_map(|f| [(f, NO_KEY), (f, scene::OTHER_KEY)]) {
        let request = Request::check_in(key, &fields.clone().wrapped("registration"));
        let (_, text, outcome, kinds) = refusal(&Scene::new(), &request);
        assert_eq!(text, "{\"success\":false,\"response\":\"owner_found_but_no_key\"}");
        assert_eq!(outcome, Some(Outcome::Refused(Refusal::WrongKey)));
        assert_eq!(kinds, ["Identify"], "nothing is kept");
    }
}

#[test]
fn the_body_is_judged_before_the_key_and_the_key_before_the_owner() {
    let no_key = Request::check_in(KEY, "{}").without("Authentication");
    assert!(refusal(&Scene::new(), &no_key).1.contains("request_invalid"));
    let fields = registration().text("owner", "nobody").wrapped("registration");
    let no_key = Request::check_in(KEY, &fields).without("Authentication");
    assert!(refusal(&Scene::new(), &no_key).1.contains("authentication_error"));
}

#[test]
fn row_7_a_new_device_gets_the_same_reply_and_a_random_id() {
    let fields = registration().without("udid").text("mac", "AABBCCDDEEFF").text("alias", "new");
    let (exchange, heard) = check_in(&Scene::new(), &fields);
    assert_eq!(heard.kinds(), ["Identify", "Record"]);
    assert_eq!(heard.identify(0).device, None);
    assert_eq!(heard.record(1).device, None);
    let json = heard.reply().json();
    let udid = json["registration"]["udid"].as_str().expect("an id").to_owned();
    assert_eq!(heard.reply().text(), ok_body("new", false, &udid, Clock::UNIX_START));
    let kept = exchange.store.device(scene::device(&udid)).expect("registered");
    assert_eq!(kept.owner, scene::owner(OWNER));
    assert_eq!(exchange.outcome(), Some(Outcome::Registered));
}

#[test]
fn a_new_device_keeps_a_valid_id_that_nobody_has() {
    let fields = registration().text("udid", &NO_DEVICE.to_uppercase()).without("mac");
    let (exchange, heard) = check_in(&Scene::new(), &fields);
    assert_eq!(heard.record(1).device, Some(scene::device(NO_DEVICE)));
    assert_eq!(heard.reply().json()["registration"]["udid"], NO_DEVICE, "lower case");
    assert!(exchange.store.device(scene::device(NO_DEVICE)).is_some());
}

#[test]
fn an_invalid_id_counts_as_none() {
    for udid in ["\"0\"", "\"\"", "0", "null", "\"xyz\"", &format!("\"{}\"", "-".repeat(36))] {
        let fields = registration().raw("udid", udid).text("mac", "AABBCCDDEEFF");
        let (_, heard) = check_in(&Scene::new(), &fields);
        assert_eq!(heard.identify(0).device, None, "{udid}");
        assert_eq!(heard.record(1).device, None, "{udid}");
        assert_eq!(heard.reply().status, 200, "{udid}");
    }
}

#[test]
fn a_device_without_an_id_is_found_by_its_mac() {
    for mac in [MAC, "5c:cf:7f:3d:8f:2a", "5C-CF-7F-3D-8F-2A"] {
        let (_, heard) = check_in(&Scene::new(), &registration().without("udid").text("mac", mac));
        assert_eq!(heard.identify(0).device, None);
        assert_eq!(heard.record(1).device, Some(scene::device(DEVICE)), "{mac}");
        assert_eq!(heard.reply().json()["registration"]["udid"], DEVICE);
        assert_eq!(heard.reply().json()["registration"]["alias"], ALIAS);
    }
}

#[test]
fn a_mac_of_another_owner_leads_nowhere() {
    let mut scene = Scene::new();
    let mac = Mac::parse("AABBCCDDEEFF");
    scene.store.register(scene::owner(OTHER_OWNER), scene::device(OTHER_DEVICE), mac, "other");
    let fields = registration().without("udid").text("mac", "AABBCCDDEEFF");
    let (_, heard) = check_in(&scene, &fields);
    assert_eq!(heard.record(1).device, None, "a new device of its own");
    assert_ne!(heard.reply().json()["registration"]["udid"], OTHER_DEVICE);
}

#[test]
fn row_8_a_device_of_another_owner_is_refused_like_a_wrong_key() {
    let fields = registration().text("udid", OTHER_DEVICE);
    let request = Request::check_in(KEY, &fields.wrapped("registration"));
    let (status, text, _, kinds) = refusal(&Scene::new(), &request);
    assert_eq!(status, 200);
    assert_eq!(text, "{\"success\":false,\"response\":\"owner_found_but_no_key\"}");
    assert_eq!(kinds, ["Identify"], "nothing is recorded");
}

#[test]
fn row_8_a_device_that_became_another_owners_meanwhile_is_refused_the_same() {
    let mut exchange = Scene::new().exchange();
    let fields = registration().text("udid", NO_DEVICE).without("mac");
    exchange.input(&Request::check_in(KEY, &fields.wrapped("registration")).bytes());
    exchange.ask().expect("Identify");
    exchange.answer(Answer::Standing(Standing {
        key: KeyStanding::Valid,
        device: DeviceStanding::Unknown,
        newest: None,
    }));
    assert!(matches!(exchange.ask(), Some(Query::Record(_))));
    exchange.answer(Answer::Recorded(None));
    exchange.settle();
    let reply = exchange.heard().reply();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text(), "{\"success\":false,\"response\":\"owner_found_but_no_key\"}");
}

#[test]
fn row_9_what_cannot_be_kept_is_unavailable() {
    for refused in ["Identify", "Record"] {
        let mut exchange = Scene::new().exchange();
        exchange.input(&Request::check_in(KEY, &registration().wrapped("registration")).bytes());
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
        assert_eq!(reply.status, 503, "{refused}");
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"unavailable\"}");
        assert_eq!(reply.header("Retry-After"), Some("10"));
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::Unavailable)));
    }
}

/// What comes of an offer if the store tells what it kept otherwise than it was asked.
fn offer_with(tell: impl Fn(&mut Recorded)) -> Heard {
    let mut exchange = Scene::new().with_release("1.2.0", 9000).with_auto_update().exchange();
    exchange.input(&Request::check_in(KEY, &registration().wrapped("registration")).bytes());
    while let Some(query) = exchange.ask() {
        let mut answer = exchange.store.answer(&query);
        if let Answer::Recorded(Some(recorded)) = &mut answer {
            tell(recorded);
        }
        exchange.answer(answer);
    }
    exchange.settle();
    exchange.heard()
}

#[test]
fn an_offer_without_a_token_is_none() {
    assert_eq!(offer_with(|recorded| recorded.token = None).reply().status, 503);
}

#[test]
fn an_offer_tells_the_flag_as_it_was_kept() {
    for (auto_update, told) in [(true, "\"auto_update\":true"), (false, "\"auto_update\":false")] {
        let heard = offer_with(|recorded| recorded.auto_update = auto_update);
        let reply = heard.reply();
        assert!(reply.text().contains("\"status\":\"FIRMWARE_UPDATE\""));
        assert!(reply.text().contains(told), "{}", reply.text());
    }
}

/// docs/wire.md 2.2, rule 4: a version that begins with a keyword is told from its last `:` on.
#[test]
fn a_version_that_misleads_is_told_without_its_beginning() {
    for (version, told) in [
        ("FIRMWARE_UPDATE:1.2.0", "1.2.0"),
        ("configuration:repo:1.2.0", "1.2.0"),
        ("repo:1.2.0", "repo:1.2.0"),
    ] {
        let scene = Scene::new().with_release(version, 9000).with_auto_update();
        let body = registration().wrapped("registration");
        let reply = scene.exchange().request(&Request::check_in(KEY, &body).bytes()).reply();
        assert_eq!(reply.json()["registration"]["version"], told, "{version}");
    }
}

#[test]
fn row_2_two_registrations_and_what_follows_the_body_are_invalid() {
    let body = registration().wrapped("registration");
    let twice = format!("{},{}", &body[..body.len() - 1], &body[1..]);
    for body in [twice, format!("{body}x"), format!("{body}{{}}")] {
        let reply = Scene::new().exchange().request(&Request::check_in(KEY, &body).bytes()).reply();
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"request_invalid\"}", "{body}");
    }
}

/// docs/wire.md 1.1: every field that is known is kept, and no other.
#[test]
fn all_known_fields_are_kept() {
    let names = [
        "lat",
        "lon",
        "rssi",
        "snr",
        "station",
        "commit",
        "checksum",
        "push",
        "timezone_offset",
        "timezone_abbr",
    ];
    let fields = names.iter().fold(registration(), |fields, name| fields.text(name, "x1"));
    let fields = fields.text("unknown", "x1").text("env_hash", "e1");
    let request = Request::check_in(KEY, &fields.wrapped("registration"));
    let heard = Scene::new().exchange().request(&request.bytes());
    let facts = &heard.record(1).check_in.as_ref().expect("a check-in").facts;
    let facts: serde_json::Value = serde_json::from_str(facts).expect("JSON");
    for name in names {
        assert_eq!(facts[name], "x1", "{name}");
    }
    assert!(facts.get("unknown").is_none());
}

#[test]
fn row_10_a_device_without_auto_update_is_offered_nothing() {
    let scene = Scene::new().with_release("1.2.0", 2000);
    let (exchange, heard) = check_in(&scene, &registration());
    let expected = ok_body(ALIAS, false, DEVICE, Clock::UNIX_START);
    assert_eq!(heard.reply().text(), expected);
    assert_eq!(heard.record(1).grant, None);
    assert_eq!(exchange.store.tokens_kept(), 0);
}

#[test]
fn row_10_a_current_device_is_told_its_flag() {
    let (_, heard) = check_in(&Scene::new().with_auto_update(), &registration());
    let expected = ok_body(ALIAS, true, DEVICE, Clock::UNIX_START);
    assert_eq!(heard.reply().text(), expected);
    assert_eq!(expected.len(), 235 + ALIAS.len());
    assert!(heard.record(1).check_in.as_ref().expect("a check-in").told_auto_update);
}

#[test]
fn row_11_a_device_with_auto_update_gets_exactly_the_offer() {
    let scene = Scene::new().with_release("1.2.0", 2000).with_auto_update();
    let mut exchange = scene.exchange();
    let body = registration().wrapped("registration");
    let heard = exchange.request(&Request::check_in(KEY, &body).bytes());
    let reply = heard.reply();
    let json = reply.json();
    let token = json["registration"]["ott"].as_str().expect("a token");
    let expected = format!(
        "{{\"registration\":{{\"status\":\"FIRMWARE_UPDATE\",\"auto_update\":true,\
         \"alias\":\"{ALIAS}\",\"udid\":\"{DEVICE}\",\"timestamp\":{},\"ott\":\"{token}\",\
         \"mac\":\"{MAC_SHOWN}\",\"version\":\"1.2.0\"}}}}",
        Clock::UNIX_START
    );
    assert_eq!(heard.text(), with_close(&expected));
    assert_eq!(heard.kinds(), ["Identify", "Record"]);
    assert_eq!(exchange.outcome(), Some(Outcome::Offered));
    assert_eq!(token.len(), 64);
}

#[test]
fn an_offer_grants_a_token_for_what_it_offers() {
    let mut scene = Scene::new().with_auto_update();
    let release = scene.publish(&otter_tests::Draft::binary("1.2.0", 2000));
    let (exchange, heard) = check_in(&scene, &registration());
    let record = heard.record(1);
    assert_eq!(record.grant, Some(scene.grant(Some(release))));
    assert_eq!(record.offered, Some(otter_tests::model::offered(release, 1, 0, 0)));
    let json = heard.reply().json();
    let text = json["registration"]["ott"].as_str().expect("a token").to_owned();
    let token = otter_protocol::Token::parse(text.as_bytes()).expect("64 digits");
    assert_eq!(text, token_text(token));
    assert_eq!(exchange.store.token(token).expect("kept").release, Some(release));
}

#[test]
fn the_lives_of_a_token_are_those_of_the_settings() {
    let mut scene = Scene::new().with_release("1.2.0", 2000).with_auto_update();
    scene.config.token_unused = Duration::from_secs(7);
    scene.config.token_used = Duration::from_secs(5);
    scene.config.transfer_timeout = Duration::from_secs(3);
    let (_, heard) = check_in(&scene, &registration());
    let grant = heard.record(1).grant.expect("a grant");
    assert_eq!((grant.unused.as_secs(), grant.used.as_secs(), grant.transfer.as_secs()), (7, 5, 3));
    assert!(!grant.forced);
}

#[test]
fn the_version_of_an_offer_is_the_one_that_was_published() {
    let scene = Scene::new().with_release("repo:1.2.3", 2000).with_auto_update();
    let (_, heard) = check_in(&scene, &registration());
    assert_eq!(heard.reply().json()["registration"]["version"], "repo:1.2.3");
}

#[test]
fn the_mac_of_an_offer_is_the_normalised_one() {
    let scene = Scene::new().with_release("1.2.0", 2000).with_auto_update();
    let (_, heard) = check_in(&scene, &registration().text("mac", "5c:cf:7f:3d:8f:2a"));
    assert_eq!(heard.reply().json()["registration"]["mac"], MAC_SHOWN);
}

#[test]
fn a_mac_that_is_missing_or_none_still_registers() {
    for fields in [
        registration().without("mac"),
        registration().raw("mac", "7"),
        registration().raw("mac", "null"),
        registration().raw("mac", "{}"),
        registration().text("mac", "anything"),
    ] {
        let (_, heard) = check_in(&Scene::new(), &fields);
        assert_eq!(heard.identify(0).mac, None);
        assert_eq!(heard.record(1).check_in.as_ref().expect("a check-in").mac, None);
        assert_eq!(heard.reply().status, 200);
    }
}

#[test]
fn unnamed_is_no_name_and_the_server_invents_one() {
    for alias in ["unnamed", ""] {
        let fields = registration().text("udid", NO_DEVICE).without("mac").text("alias", alias);
        let (_, heard) = check_in(&Scene::new(), &fields);
        assert_eq!(heard.record(1).check_in.as_ref().expect("a check-in").alias, None);
        let invented = Alias::invented(scene::device(NO_DEVICE));
        assert_eq!(heard.reply().json()["registration"]["alias"], invented.as_str());
    }
}

#[test]
fn the_servers_name_wins_over_the_devices() {
    let (_, heard) = check_in(&Scene::new(), &registration().text("alias", "mine"));
    assert_eq!(heard.reply().json()["registration"]["alias"], ALIAS);
}

#[test]
fn a_token_is_replaced_when_the_same_is_offered_again() {
    let mut scene = Scene::new().with_auto_update();
    let release = scene.publish(&otter_tests::Draft::binary("1.2.0", 2000));
    let (mut exchange, first) = check_in(&scene, &registration());
    let second = again(&mut exchange, &registration());
    let token = |heard: &Heard| heard.reply().json()["registration"]["ott"].to_string();
    assert_ne!(token(&first), token(&second));
    assert_eq!(second.record(1).offered, Some(otter_tests::model::offered(release, 2, 0, 0)));
    let get = format!("/device/firmware?ott={}", token(&first).trim_matches('"'));
    let heard = exchange.request(&Request::get(&get).bytes());
    assert_eq!(heard.reply().text(), "OTT_UPDATE_NOT_FOUND");
}

#[test]
fn an_authorization_header_is_never_looked_at() {
    for value in ["Bearer x", "Bearer null", "Basic Og=="] {
        let body = registration().wrapped("registration");
        let request = Request::check_in(KEY, &body).header("Authorization", value);
        assert_eq!(refusal(&Scene::new(), &request).0, 200);
    }
}

#[test]
fn origin_and_user_agent_are_advisory() {
    let body = registration().wrapped("registration");
    let request = Request::check_in(KEY, &body).without("Origin").without("User-Agent");
    assert_eq!(refusal(&Scene::new(), &request).0, 200);
    let request = request.header("Origin", "http://elsewhere").header("User-Agent", "THiNX-Client");
    assert!(refusal(&Scene::new(), &request).1.contains("\"status\":\"OK\""));
}

#[test]
fn owner_and_key_in_the_body_authorise_nothing() {
    let body = format!(
        "{{\"owner\":\"{OWNER}\",\"api_key\":\"{KEY}\",\"registration\":{}}}",
        registration().json()
    );
    let request = Request::post("/device/register", &body);
    assert_eq!(
        refusal(&Scene::new(), &request).1,
        "{\"success\":false,\"response\":\"authentication_error\"}"
    );
}
