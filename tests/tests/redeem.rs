//! `GET /device/firmware?ott=` (WIRE.md 1.4, 2.4, 3.3, 3.4; TOKEN.md): what a token gives, in
//! which order the store is asked, and which bytes leave.

use std::time::Duration;

use otter_protocol::{
    Answer, CloseReason, Outcome, Query, Redemption, Refusal, ReleaseId, Token, Transmit,
};
use otter_tests::exchange::kind;
use otter_tests::image::{hex, image, md5_of, sha256_of};
use otter_tests::scene::{DEVICE, device, token_text};
use otter_tests::{Draft, Exchange, Heard, Request, Scene};

const SIZE: usize = 10_000;
const TAIL: usize = 4096;
const NOT_FOUND: &str = "OTT_UPDATE_NOT_FOUND";
const NOT_AVAILABLE: &str = "OTT_UPDATE_NOT_AVAILABLE";

/// A release of 10,000 bytes and a token for it.
struct Offered {
    scene: Scene,
    release: ReleaseId,
    token: Token,
}

impl Offered {
    fn new() -> Self {
        Self::of(&Draft::binary("1.2.0", SIZE))
    }

    fn of(draft: &Draft) -> Self {
        let mut scene = Scene::new();
        let release = scene.publish(draft);
        let token = scene.issue(Some(release));
        Self { scene, release, token }
    }

    fn get(&self) -> Request {
        Request::get(&format!("/device/firmware?ott={}", token_text(self.token)))
    }

    fn exchange(&self) -> Exchange {
        self.scene.exchange()
    }

    fn fetch(&self, request: &Request) -> (Exchange, Heard) {
        let mut exchange = self.exchange();
        let heard = exchange.request(&request.bytes());
        (exchange, heard)
    }
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
    let offered = Offered::new();
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
    let offered = Offered::new();
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
    let offered = Offered::of(&Draft::bundle("1.2.0", json));
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
    let offered = Offered::new();
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
    let good = token_text(Offered::new().token);
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
            target(&Offered::new().scene, &format!("/device/firmware?ott={value}"));
        assert_eq!((status, body.as_str()), (404, NOT_FOUND), "{value}");
        assert!(kinds.is_empty(), "{value}");
    }
}

#[test]
fn other_parameters_beside_the_token_say_nothing() {
    let offered = Offered::new();
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
        let mut offered = Offered::new();
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
    let mut withdrawn = Offered::new();
    withdrawn.scene.store.withdraw(withdrawn.release);
    let mut unbound = Offered::new();
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
    let offered = Offered { scene, release, token };
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
    let offered = Offered::new();
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
    let mut offered = Offered::new();
    let mut grant = offered.scene.grant(Some(offered.release));
    grant.forced = true;
    offered.token = offered.scene.store.issue(device(DEVICE), grant);
    let md5 = hex(&md5_of(&image("1.2.0", SIZE)));
    let (_, heard) = offered.fetch(&offered.get().header("x-ESP8266-sketch-md5", &md5));
    assert_eq!(heard.reply().status, 200);
}

#[test]
fn head_says_what_get_would_and_is_no_attempt() {
    let offered = Offered::new();
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
    let offered = Offered::new();
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
        let offered = Offered::new();
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
    let offered = Offered::new();
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
        let offered = Offered::new();
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
    let mut offered = Offered::new();
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

/// Redeems, starts, and takes everything that is shown; the claim is asked and not answered.
fn up_to_the_claim(offered: &Offered, request: &Request) -> Exchange {
    let mut exchange = offered.exchange();
    exchange.input(&request.bytes());
    for expected in ["Redeem", "Start"] {
        let query = exchange.ask().expect(expected);
        assert_eq!(kind(&query), expected);
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    assert!(exchange.ask().is_none(), "no claim while earlier bytes are there to send");
    while exchange.take(usize::MAX) > 0 {}
    assert!(matches!(exchange.ask(), Some(Query::Claim { .. })));
    exchange
}

#[test]
fn the_tail_stays_until_the_claim_and_the_claim_waits_for_the_rest() {
    let offered = Offered::new();
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
        let offered = Offered::of(&Draft::binary("1.2.0", size));
        let mut exchange = up_to_the_claim(&offered, &offered.get());
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
        let offered = Offered::new();
        let mut exchange = up_to_the_claim(&offered, &offered.get());
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
    let offered = Offered::new();
    let mut exchange = up_to_the_claim(&offered, &offered.get());
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
fn ranges_are_answered_with_what_they_ask() {
    let offered = Offered::new();
    let image = image("1.2.0", SIZE);
    for (range, start, end) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100-5000", 100, 5000),
        ("bytes=9999-9999", 9999, 9999),
        ("bytes=9000-", 9000, 9999),
        ("bytes=-1", 9999, 9999),
        ("bytes=-20000", 0, 9999),
        ("bytes=0-10000", 0, 9999),
        ("bytes=5000-99999999999", 5000, 9999),
    ] {
        let (exchange, heard) = offered.fetch(&offered.get().header("Range", range));
        let reply = heard.reply();
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.body, image[start..=end], "{range}");
        let content_range = format!("bytes {start}-{end}/{SIZE}");
        assert_eq!(reply.header("Content-Range"), Some(content_range.as_str()));
        assert_eq!(reply.header("Content-Type"), Some("application/octet-stream"));
        assert_eq!(reply.header("x-MD5"), None, "it would be the MD5 of something else");
        let etag = format!("\"{}\"", hex(&sha256_of(&image)));
        assert_eq!(reply.header("ETag"), Some(etag.as_str()));
        assert_eq!(exchange.outcome(), Some(Outcome::Ranged), "{range}");
        assert!(!heard.ended, "206 follows the client");
    }
}

#[test]
fn only_ranges_that_reach_the_tail_claim() {
    let offered = Offered::new();
    let first_of_tail = SIZE - TAIL;
    for (range, claims) in [
        ("bytes=0-0".to_owned(), false),
        (format!("bytes=0-{}", first_of_tail - 1), false),
        (format!("bytes=0-{first_of_tail}"), true),
        (format!("bytes={first_of_tail}-{first_of_tail}"), true),
        ("bytes=-1".to_owned(), true),
        ("bytes=0-".to_owned(), true),
    ] {
        let (exchange, heard) = offered.fetch(&offered.get().header("Range", &range));
        assert_eq!(heard.kinds().contains(&"Claim"), claims, "{range}");
        assert_eq!(exchange.store.token(offered.token).is_none(), claims, "{range}");
    }
}

#[test]
fn a_range_that_begins_in_the_tail_shows_nothing_of_it_before_the_claim() {
    let offered = Offered::new();
    let mut exchange = up_to_the_claim(&offered, &offered.get().header("Range", "bytes=-100"));
    let before = exchange.heard().bytes;
    assert!(before.ends_with(b"\r\n\r\n"), "the head alone");
    exchange.answer(Answer::Claimed(false));
    exchange.settle();
    assert_eq!(exchange.heard().bytes, b"");
    assert_eq!(exchange.close(), CloseReason::Unclaimed);
}

#[test]
fn a_range_beyond_the_end_cannot_be_satisfied() {
    let offered = Offered::new();
    for range in ["bytes=10000-", "bytes=10000-10001", "bytes=-0", "bytes=99999999999-"] {
        let (exchange, heard) = offered.fetch(&offered.get().header("Range", range));
        let reply = heard.reply();
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.header("Content-Range"), Some("bytes */10000"));
        assert_eq!(heard.kinds(), ["Redeem"], "no attempt");
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::BadRange)));
        assert!(!heard.ended, "416 follows the client");
    }
}

#[test]
fn a_range_that_is_none_is_ignored() {
    let offered = Offered::new();
    for range in ["bytes=5-1", "bytes=", "bytes=a-b", "lines=0-1", "bytes 0-1", "bytes=--1"] {
        let (_, heard) = offered.fetch(&offered.get().header("Range", range));
        let reply = heard.reply();
        assert_eq!((reply.status, reply.body.len()), (200, SIZE), "{range}");
    }
}

#[test]
fn a_range_resumes_only_what_it_began_with() {
    let offered = Offered::new();
    let etag = format!("\"{}\"", hex(&sha256_of(&image("1.2.0", SIZE))));
    for (if_range, status) in [(etag.as_str(), 206), ("\"other\"", 200), ("W/\"x\"", 200)] {
        let request = offered.get().header("Range", "bytes=100-").header("If-Range", if_range);
        let (_, heard) = offered.fetch(&request);
        assert_eq!(heard.reply().status, status, "{if_range}");
    }
}

#[test]
fn an_image_may_be_fetched_in_parts_on_one_connection() {
    let offered = Offered::new();
    let mut exchange = offered.exchange();
    let length = exchange.request(&offered.get().method("HEAD").bytes()).reply().content_length();
    assert_eq!(length, Some(SIZE));
    let mut fetched = Vec::new();
    for (range, kinds) in [
        ("bytes=0-0", vec!["Redeem", "Start"]),
        ("bytes=1-3000", vec!["Redeem"]),
        ("bytes=3001-5000", vec!["Redeem"]),
        ("bytes=5001-10000", vec!["Redeem", "Claim"]),
    ] {
        let heard = exchange.request(&offered.get().header("Range", range).bytes());
        assert_eq!(heard.kinds(), kinds, "{range}");
        fetched.extend(heard.reply().body);
    }
    assert_eq!(fetched, image("1.2.0", SIZE));
}

/// The price of the rule: a device that asks for parts without knowing of tails claims with the
/// first part that reaches into the tail, and what is left of the tail stays here.
#[test]
fn a_part_that_ends_inside_the_tail_uses_the_token_up() {
    let offered = Offered::new();
    let mut exchange = offered.exchange();
    let part = offered.get().header("Range", "bytes=4000-7999");
    assert_eq!(exchange.request(&part.bytes()).kinds(), ["Redeem", "Start", "Claim"]);
    let rest = offered.get().header("Range", "bytes=8000-9999");
    assert_eq!(exchange.request(&rest.bytes()).reply().text(), NOT_FOUND);
}

#[test]
fn a_transfer_that_began_before_the_deadline_may_claim_after_it() {
    let offered = Offered::new();
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
    let offered = Offered::new();
    let mut exchange = up_to_the_claim(&offered, &offered.get());
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
    let offered = Offered::new();
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
    let offered = Offered::new();
    let mut first = up_to_the_claim(&offered, &offered.get());
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
    let offered = Offered::new();
    let (exchange, heard) =
        offered.fetch(&offered.get().method("POST").header("Content-Length", "0"));
    assert_eq!(heard.reply().text(), "{\"success\":false,\"response\":\"missing_mac\"}");
    assert!(exchange.store.token(offered.token).is_some());
}
