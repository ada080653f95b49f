//! `GET /device/firmware?ott=` (docs/wire.md 1.4, 2.4, 3.3, 3.4; docs/token.md): what a token
//! gives, in which order the store is asked, and which bytes leave.

use std::time::Duration;

use otter_protocol::{Answer, CloseReason, Outcome, Query, Redemption, Refusal, Token, Transmit};
use otter_tests::exchange::kind;
use otter_tests::image::{hex, image, md5_of, sha256_of};
use otter_tests::scene::{DEVICE, Redeemable, device, token_text};
use otter_tests::tls::Difference;
use otter_tests::{Draft, Exchange, Request, Scene};

const SIZE: usize = 10_000;
const TAIL: usize = 4096;
const NOT_FOUND: &str = "OTT_UPDATE_NOT_FOUND";
const NOT_AVAILABLE: &str = "OTT_UPDATE_NOT_AVAILABLE";

/// A release of 10,000 bytes and a token for it.
fn offered() -> Redeemable {
    Redeemable::of(&Draft::binary("1.2.0", SIZE))
}

fn target(scene: &Scene, target: &str) -> (u16, String, Vec<&'static str>) {
    let heard = scene.exchange().request(&Request::get(target).bytes());
    let reply = heard.reply();
    let content_type =
        if reply.text().starts_with('{') { "application/json" } else { "text/plain" };
    assert_eq!(reply.header("Content-Type"), Some(content_type), "{target}");
    (reply.status, reply.text().to_owned(), heard.kinds())
}

#[test]
fn a_token_gives_the_whole_image() {
    let offered = offered();
    let (exchange, heard) = offered.fetch(&Request::esp8266_update(&token_text(offered.token)));
    let image = image("1.2.0", SIZE);
    let md5 = hex(&md5_of(&image));
    let sha256 = hex(&sha256_of(&image));
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
         Content-Disposition: attachment; filename=firmware.bin\r\nContent-Length: {SIZE}\r\n\
         x-MD5: {md5}\r\nETag: \"{sha256}\"\r\nAccept-Ranges: bytes\r\nConnection: close\r\n\r\n"
    );
    let reply = heard.reply();
    assert_eq!(reply.head, head);
    assert_eq!(reply.body, image);
    assert_eq!(heard.kinds(), ["Redeem", "Start", "Claim"]);
    assert_eq!(exchange.outcome(), Some(Outcome::Delivered));
    assert!(heard.ended);
}

#[test]
fn a_200_closes_even_where_the_client_would_keep_the_connection() {
    let offered = offered();
    for request in [
        offered.get(),
        offered.get().header("Connection", "keep-alive"),
        offered.get().version("HTTP/1.0").header("Connection", "keep-alive"),
    ] {
        let (_, heard) = offered.fetch(&request);
        assert!(heard.reply().says_close() && heard.ended);
    }
}

#[test]
fn a_bundle_is_json_and_no_attachment() {
    let json = "{\"type\":\"file\",\"files\":[{\"name\":\"boot.py\",\"data\":\"pass\"}]}";
    let offered = Redeemable::of(&Draft::bundle("1.2.0", json));
    let (_, heard) = offered.fetch(&offered.get());
    let reply = heard.reply();
    assert_eq!((reply.status, reply.text()), (200, json));
    assert_eq!(
        reply.header_names(),
        ["Content-Type", "Content-Length", "x-MD5", "ETag", "Accept-Ranges", "Connection"]
    );
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
}

#[test]
fn a_token_gives_one_whole_image_ever() {
    let offered = offered();
    let (first, _) = offered.fetch(&offered.get());
    assert_eq!(first.store.tokens_kept(), 0);
    let mut second = Exchange::new(first.store, offered.scene.config.clone());
    let heard = second.request(&offered.get().bytes());
    assert_eq!((heard.reply().status, heard.reply().text()), (404, NOT_FOUND));
    assert_eq!(heard.kinds(), ["Redeem"]);
}

#[test]
fn a_missing_token() {
    for path in ["/device/firmware", "/device/firmware?", "/device/firmware?x=1"] {
        let (status, body, kinds) = target(&Scene::new(), path);
        assert_eq!(status, 400, "{path}");
        assert_eq!(body, "{\"success\":false,\"response\":\"OTT_MISSING\"}", "{path}");
        assert!(kinds.is_empty());
    }
}

#[test]
fn a_malformed_token_is_not_found_without_the_store() {
    let good = token_text(offered().token);
    for value in [
        String::new(),
        "a".to_owned(),
        good[..63].to_owned(),
        format!("{good}0"),
        "0".repeat(129),
        "g".repeat(64),
        good.to_uppercase(),
        format!("{good}&ott={good}"),
        format!("{good}&ott="),
    ] {
        let (status, body, kinds) =
            target(&offered().scene, &format!("/device/firmware?ott={value}"));
        assert_eq!((status, body.as_str()), (404, NOT_FOUND), "{value}");
        assert!(kinds.is_empty(), "{value}");
    }
}

#[test]
fn other_parameters_beside_the_token_say_nothing() {
    let offered = offered();
    let text = token_text(offered.token);
    for path in
        [format!("/device/firmware?x=1&ott={text}"), format!("/device/firmware/?ott={text}&y")]
    {
        let (_, heard) = offered.fetch(&Request::get(&path));
        assert_eq!(heard.reply().body.len(), SIZE, "{path}");
    }
}

#[test]
fn all_dead_tokens_get_the_same_bytes() {
    let mut answers = Vec::new();
    for death in ["unknown", "expired", "used", "replaced", "revoked", "used hour over"] {
        let mut offered = offered();
        offered.scene.config.idle_timeout = Duration::from_secs(1 << 30);
        let mut exchange = offered.exchange();
        match death {
            "unknown" => offered.token = Token([9; 32]),
            "expired" => exchange.advance(Duration::from_secs(24 * 3600)),
            "used" => {
                exchange.store.answer(&Query::Claim { token: offered.token });
            }
            "replaced" => {
                let grant = offered.scene.grant(Some(offered.release));
                exchange.store.issue(device(DEVICE), grant);
            }
            "revoked" => assert!(exchange.store.revoke(offered.token)),
            _ => {
                exchange.store.answer(&Query::Start { token: offered.token });
                exchange.advance(Duration::from_secs(3600));
            }
        }
        let heard = exchange.request(&offered.get().bytes());
        assert_eq!(heard.kinds(), ["Redeem"], "{death}: no write");
        assert_eq!((heard.reply().status, heard.reply().text()), (404, NOT_FOUND), "{death}");
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::DeadToken)), "{death}");
        answers.push(heard.bytes);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_malformed_token_and_a_dead_one_get_the_same_bytes() {
    let answer = |value: &str| {
        let path = format!("/device/firmware?ott={value}");
        Scene::new().exchange().request(&Request::get(&path).bytes()).bytes
    };
    assert_eq!(answer("x"), answer(&"0".repeat(64)));
}

#[test]
fn nothing_to_give() {
    let mut withdrawn = offered();
    withdrawn.scene.store.withdraw(withdrawn.release);
    let mut unbound = offered();
    unbound.scene = Scene::new();
    unbound.token = unbound.scene.issue(None);
    for offered in [withdrawn, unbound] {
        let (exchange, heard) = offered.fetch(&offered.get());
        assert_eq!((heard.reply().status, heard.reply().text()), (404, NOT_AVAILABLE));
        assert_eq!(heard.kinds(), ["Redeem"], "no attempt");
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::NoRelease)));
    }
}

#[test]
fn a_token_from_before_the_publication_binds_at_the_first_redemption() {
    let mut scene = Scene::new();
    let token = scene.issue(None);
    let release = scene.publish(&Draft::binary("1.2.0", SIZE));
    let offered = Redeemable { scene, release, token };
    let (_, probe) = offered.fetch(&offered.get().header("Range", "bytes=0-99"));
    assert_eq!(probe.kinds(), ["Redeem", "Start"]);
    let (exchange, _) = offered.fetch(&offered.get().header("Range", "bytes=0-99"));
    let mut store = exchange.store;
    assert_eq!(store.token(token).expect("kept").release, Some(release));
    let newer = Draft::binary("1.3.0", SIZE);
    store.publish(otter_tests::Target::Device(device(DEVICE)), &newer);
    let mut later = Exchange::new(store, offered.scene.config.clone());
    let heard = later.request(&offered.get().bytes());
    assert_eq!(heard.reply().body, image("1.2.0", SIZE), "what it is bound to");
}

#[test]
fn a_device_that_runs_the_image_already_is_told_so() {
    let offered = offered();
    let md5 = hex(&md5_of(&image("1.2.0", SIZE)));
    for header in ["x-ESP8266-sketch-md5", "x-ESP32-sketch-md5", "X-Esp32-Sketch-Md5"] {
        let (exchange, heard) = offered.fetch(&offered.get().header(header, &md5));
        let reply = heard.reply();
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{header}");
        assert_eq!(reply.header("x-MD5"), None);
        assert_eq!(heard.kinds(), ["Redeem"], "neither an attempt nor a claim");
        assert_eq!(exchange.outcome(), Some(Outcome::NotModified));
    }
    let other = offered.get().header("x-ESP8266-sketch-md5", &"0".repeat(32));
    assert_eq!(offered.fetch(&other).1.reply().status, 200);
}

#[test]
fn a_forced_token_gives_the_image_even_so() {
    let mut offered = offered();
    let mut grant = offered.scene.grant(Some(offered.release));
    grant.forced = true;
    offered.token = offered.scene.store.issue(device(DEVICE), grant);
    let md5 = hex(&md5_of(&image("1.2.0", SIZE)));
    let (_, heard) = offered.fetch(&offered.get().header("x-ESP8266-sketch-md5", &md5));
    assert_eq!(heard.reply().status, 200);
}

#[test]
fn head_says_what_get_would_and_is_no_attempt() {
    let offered = offered();
    let (exchange, heard) = offered.fetch(&offered.get().method("HEAD"));
    let reply = heard.reply();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.content_length(), Some(SIZE));
    assert_eq!(reply.header("Accept-Ranges"), Some("bytes"));
    assert_eq!(heard.kinds(), ["Redeem"]);
    assert!(!exchange.store.token(offered.token).expect("kept").started);
    assert!(!heard.ended, "HEAD follows the client");
    let (_, heard) = offered.fetch(&offered.get().method("HEAD").header("Connection", "close"));
    assert!(heard.reply().says_close() && heard.ended);
}

#[test]
fn head_of_what_is_refused_has_the_status_and_no_body() {
    for (request, status) in [
        (Request::new("HEAD", "/device/firmware"), 400),
        (Request::new("HEAD", &format!("/device/firmware?ott={}", "0".repeat(64))), 404),
    ] {
        let reply = Scene::new().exchange().request(&request.bytes()).reply();
        assert_eq!((reply.status, reply.body.len()), (status, 0));
    }
}

#[test]
fn a_version_probe_gets_the_version_and_nothing_else() {
    let offered = offered();
    let probe = Request::esp8266_update(&token_text(offered.token)).without("x-ESP8266-mode");
    let (exchange, heard) = offered.fetch(&probe.header("x-ESP8266-mode", "version"));
    let reply = heard.reply();
    assert_eq!((reply.status, reply.header("x-version")), (200, Some("1.2.0")));
    assert!(reply.body.is_empty());
    assert_eq!(heard.kinds(), ["Redeem"]);
    assert!(!exchange.store.token(offered.token).expect("kept").started);
}

#[test]
fn a_store_that_is_down_is_unavailable() {
    for refused in ["Redeem", "Start"] {
        let offered = offered();
        let mut exchange = offered.exchange();
        exchange.input(&offered.get().bytes());
        while let Some(query) = exchange.ask() {
            let answer = if kind(&query) == refused {
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
    }
}

#[test]
fn a_first_attempt_shortens_the_deadline_once_and_a_later_one_starts_nothing() {
    let offered = offered();
    let part = offered.get().header("Range", "bytes=0-99");
    let mut exchange = offered.exchange();
    assert_eq!(exchange.request(&part.bytes()).kinds(), ["Redeem", "Start"]);
    let deadline = exchange.store.token(offered.token).expect("kept").deadline;
    assert_eq!(deadline, exchange.clock.since_1970() + Duration::from_secs(3600));
    exchange.advance(Duration::from_secs(60));
    assert_eq!(exchange.request(&part.bytes()).kinds(), ["Redeem"]);
    assert_eq!(exchange.store.token(offered.token).expect("kept").deadline, deadline);
}

#[test]
fn what_holds_after_the_start_decides() {
    for (answer, text) in [(Redemption::Unknown, NOT_FOUND), (Redemption::Nothing, NOT_AVAILABLE)] {
        let offered = offered();
        let mut exchange = offered.exchange();
        exchange.input(&offered.get().bytes());
        let redeem = exchange.ask().expect("Redeem");
        let ready = exchange.store.answer(&redeem);
        exchange.answer(ready);
        assert!(matches!(exchange.ask(), Some(Query::Start { .. })));
        exchange.answer(Answer::Redemption(answer));
        exchange.settle();
        let reply = exchange.heard().reply();
        assert_eq!((reply.status, reply.text()), (404, text));
    }
}

#[test]
fn another_release_after_the_start_is_the_one_that_is_given() {
    let mut offered = offered();
    let newer = offered.scene.publish(&Draft::binary("1.3.0", 7000));
    let other = offered.scene.issue(Some(newer));
    let mut exchange = offered.exchange();
    exchange.input(&offered.get().bytes());
    let redeem = exchange.ask().expect("Redeem");
    let ready = exchange.store.answer(&redeem);
    exchange.answer(ready);
    exchange.ask().expect("Start");
    let started = exchange.store.answer(&Query::Start { token: other });
    exchange.answer(started);
    exchange.settle();
    assert_eq!(exchange.heard().reply().body, image("1.3.0", 7000));
}

#[test]
fn the_tail_stays_until_the_claim_and_the_claim_waits_for_the_rest() {
    if Difference::Pieces.is_here() {
        return;
    }
    let offered = offered();
    let mut exchange = offered.exchange();
    exchange.input(&offered.get().bytes());
    for _ in 0..2 {
        let query = exchange.ask().expect("Redeem, Start");
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    let mut image_bytes = 0;
    while let Some(transmit) = exchange.peer.connection().transmit() {
        if let Transmit::Image { offset, len, .. } = transmit {
            assert_eq!(offset, image_bytes as u64);
            assert_eq!(offset + len, (SIZE - TAIL) as u64, "the prefix and nothing more");
            image_bytes += exchange.take(1000);
        } else {
            exchange.take(1000);
        }
        let done = image_bytes == SIZE - TAIL;
        assert_eq!(exchange.ask().is_some(), done, "after {image_bytes} bytes");
    }
    assert_eq!(image_bytes, SIZE - TAIL);
    exchange.answer(Answer::Claimed(true));
    let Some(Transmit::Image { offset, len, .. }) = exchange.peer.connection().transmit() else {
        panic!("no tail");
    };
    assert_eq!((offset, len), ((SIZE - TAIL) as u64, TAIL as u64));
}

#[test]
fn an_image_that_is_all_tail_waits_for_the_claim_with_its_first_byte() {
    for size in [1000, TAIL, TAIL + 1] {
        let offered = Redeemable::of(&Draft::binary("1.2.0", size));
        let mut exchange = offered.up_to_the_claim(&offered.get());
        let before = exchange.heard().bytes;
        let head = otter_tests::Reply::parse_head(&before).expect("the head is out").1;
        assert_eq!(before.len() - head, size.saturating_sub(TAIL));
        exchange.answer(Answer::Claimed(true));
        exchange.settle();
        assert_eq!(exchange.heard().bytes.len(), size.min(TAIL));
    }
}

#[test]
fn without_a_claim_the_connection_closes_without_the_tail() {
    for answer in [Answer::Claimed(false), Answer::Unavailable] {
        let offered = offered();
        let mut exchange = offered.up_to_the_claim(&offered.get());
        exchange.answer(answer);
        exchange.settle();
        let bytes = exchange.heard().bytes;
        let head = otter_tests::Reply::parse_head(&bytes).expect("the head is out").1;
        assert_eq!(bytes[head..], image("1.2.0", SIZE)[..SIZE - TAIL]);
        assert_eq!(exchange.close(), CloseReason::Unclaimed);
        assert_eq!(exchange.outcome(), Some(Outcome::Unclaimed));
    }
}

#[test]
fn a_claim_that_is_not_answered_in_time_closes_without_the_tail() {
    let offered = offered();
    let mut exchange = offered.up_to_the_claim(&offered.get());
    exchange.heard();
    assert_eq!(exchange.expire(), Duration::from_secs(2));
    exchange.settle();
    assert_eq!(exchange.heard().bytes, b"");
    assert_eq!(exchange.close(), CloseReason::Unclaimed);
    // And an answer that comes too late lets nothing out.
    exchange.peer.answer(exchange.clock.now(), otter_protocol::QueryId(3), Answer::Claimed(true));
    exchange.settle();
    assert_eq!(exchange.heard().bytes, b"");
}

#[test]
fn a_transfer_that_began_before_the_deadline_may_claim_after_it() {
    let offered = offered();
    let mut exchange = offered.exchange();
    exchange.advance(Duration::from_secs(24 * 3600 - 1));
    let config = std::sync::Arc::new(offered.scene.config.clone());
    exchange.peer = otter_tests::Watched::new(config, exchange.clock.now());
    exchange.input(&offered.get().bytes());
    for _ in 0..2 {
        let query = exchange.ask().expect("Redeem, Start");
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    exchange.advance(Duration::from_secs(20));
    exchange.settle();
    let heard = exchange.heard();
    assert_eq!(heard.reply().body.len(), SIZE);
    assert_eq!(heard.kinds(), ["Redeem", "Start", "Claim"]);
}

#[test]
fn a_transfer_keeps_its_image_whatever_is_published_or_withdrawn_meanwhile() {
    let offered = offered();
    let mut exchange = offered.up_to_the_claim(&offered.get());
    exchange.store.withdraw(offered.release);
    let newer = Draft::binary("1.3.0", SIZE);
    exchange.store.publish(otter_tests::Target::Device(device(DEVICE)), &newer);
    let claimed = exchange.store.answer(&Query::Claim { token: offered.token });
    exchange.answer(claimed);
    exchange.settle();
    assert_eq!(exchange.heard().reply().body, image("1.2.0", SIZE));
}

#[test]
fn a_transfer_that_breaks_before_the_tail_costs_nothing() {
    let offered = offered();
    let mut exchange = offered.exchange();
    exchange.input(&offered.get().bytes());
    for _ in 0..2 {
        let query = exchange.ask().expect("Redeem, Start");
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    exchange.take(5000);
    exchange.peer.reset(exchange.clock.now());
    assert_eq!(exchange.outcome(), Some(Outcome::Aborted));
    let mut again = Exchange::new(exchange.store, offered.scene.config.clone());
    let heard = again.request(&offered.get().bytes());
    assert_eq!(heard.kinds(), ["Redeem", "Claim"]);
    assert_eq!(heard.reply().body, image("1.2.0", SIZE));
}

#[test]
fn of_two_connections_with_one_token_one_gets_the_tail() {
    let offered = offered();
    let mut first = offered.up_to_the_claim(&offered.get());
    let mut second = Exchange::new(first.store.clone(), offered.scene.config.clone());
    second.input(&offered.get().bytes());
    let redeem = second.ask().expect("Redeem");
    let ready = second.store.answer(&redeem);
    second.answer(ready);
    while second.take(usize::MAX) > 0 {}
    let claim = second.ask().expect("Claim");
    let claimed = first.store.answer(&claim);
    second.answer(claimed);
    second.settle();
    assert_eq!(second.heard().reply().body.len(), SIZE);
    let refused = first.store.answer(&claim);
    first.answer(refused);
    first.settle();
    assert_eq!(first.close(), CloseReason::Unclaimed);
}

#[test]
fn a_post_with_a_token_in_the_query_redeems_nothing() {
    let offered = offered();
    let (exchange, heard) =
        offered.fetch(&offered.get().method("POST").header("Content-Length", "0"));
    assert_eq!(heard.reply().text(), "{\"success\":false,\"response\":\"missing_mac\"}");
    assert!(exchange.store.token(offered.token).is_some());
}
