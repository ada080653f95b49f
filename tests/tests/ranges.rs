//! Parts of an image (docs/wire.md 1.4, 2.4; docs/token.md): `Range`, `If-Range`, and what a part
//! has to do with the tail.

use otter_protocol::{Answer, CloseReason, Outcome, Refusal};
use otter_tests::Draft;
use otter_tests::image::{hex, image, sha256_of};
use otter_tests::scene::Redeemable;

const SIZE: usize = 10_000;
const TAIL: usize = 4096;
const NOT_FOUND: &str = "OTT_UPDATE_NOT_FOUND";

/// A release of 10,000 bytes and a token for it.
fn offered() -> Redeemable {
    Redeemable::of(&Draft::binary("1.2.0", SIZE))
}

#[test]
fn ranges_are_answered_with_what_they_ask() {
    let offered = offered();
    let image = image("1.2.0", SIZE);
    for (range, start, end) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100-5000", 100, 5000),
        ("bytes=100-5903", 100, 5903),
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
        let is_whole = end - start + 1 == SIZE;
        let outcome = if is_whole { Outcome::Delivered } else { Outcome::Ranged };
        assert_eq!(exchange.outcome(), Some(outcome), "{range}");
        assert!(!heard.ended, "206 follows the client");
    }
}

#[test]
fn only_ranges_that_reach_the_tail_claim() {
    let offered = offered();
    let first_of_tail = SIZE - TAIL;
    for (range, claims) in [
        ("bytes=0-0".to_owned(), false),
        (format!("bytes=0-{}", first_of_tail - 1), false),
        (format!("bytes={first_of_tail}-{first_of_tail}"), true),
        (format!("bytes={first_of_tail}-"), true),
        ("bytes=-1".to_owned(), true),
        ("bytes=0-".to_owned(), true),
    ] {
        let (exchange, heard) = offered.fetch(&offered.get().header("Range", &range));
        assert_eq!(heard.kinds().contains(&"Claim"), claims, "{range}");
        assert_eq!(exchange.store.token(offered.token).is_none(), claims, "{range}");
    }
}

/// Its claim would be spent on some of the tail, and the request for the rest would find the token
/// dead. A part may be shorter than was asked for (RFC 9110, 15.3.7).
#[test]
fn a_part_that_would_end_inside_the_tail_ends_before_it() {
    let offered = offered();
    let image = image("1.2.0", SIZE);
    let last = SIZE - TAIL - 1;
    for (range, start) in [
        (format!("bytes=0-{}", last + 1), 0),
        ("bytes=0-9998".to_owned(), 0),
        ("bytes=4000-7999".to_owned(), 4000),
        (format!("bytes={last}-9000"), last),
    ] {
        let (exchange, heard) = offered.fetch(&offered.get().header("Range", &range));
        let reply = heard.reply();
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.body, image[start..=last], "{range}");
        let content_range = format!("bytes {start}-{last}/{SIZE}");
        assert_eq!(reply.header("Content-Range"), Some(content_range.as_str()), "{range}");
        assert!(!heard.kinds().contains(&"Claim"), "{range}");
        assert!(exchange.store.token(offered.token).is_some(), "{range}");
    }
}

#[test]
fn a_range_that_begins_in_the_tail_shows_nothing_of_it_before_the_claim() {
    let offered = offered();
    let mut exchange = offered.up_to_the_claim(&offered.get().header("Range", "bytes=-100"));
    let before = exchange.heard().bytes;
    assert!(before.ends_with(b"\r\n\r\n"), "the head alone");
    exchange.answer(Answer::Claimed(false));
    exchange.settle();
    assert_eq!(exchange.heard().bytes, b"");
    assert_eq!(exchange.close(), CloseReason::Unclaimed);
}

#[test]
fn what_arrives_while_a_claim_is_asked_is_answered_after_it() {
    let offered = offered();
    let mut exchange = offered.up_to_the_claim(&offered.get().header("Range", "bytes=-100"));
    exchange.input(&otter_tests::Request::get("/").bytes());
    exchange.answer(Answer::Claimed(true));
    exchange.settle();
    let statuses: Vec<u16> = exchange.heard().replies().iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [206, 200]);
}

#[test]
fn a_range_beyond_the_end_cannot_be_satisfied() {
    let offered = offered();
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
    let offered = offered();
    for range in ["bytes=5-1", "bytes=", "bytes=a-b", "lines=0-1", "bytes 0-1", "bytes=--1"] {
        let (_, heard) = offered.fetch(&offered.get().header("Range", range));
        let reply = heard.reply();
        assert_eq!((reply.status, reply.body.len()), (200, SIZE), "{range}");
    }
}

#[test]
fn a_range_resumes_only_what_it_began_with() {
    let offered = offered();
    let etag = format!("\"{}\"", hex(&sha256_of(&image("1.2.0", SIZE))));
    for (if_range, status) in [(etag.as_str(), 206), ("\"other\"", 200), ("W/\"x\"", 200)] {
        let request = offered.get().header("Range", "bytes=100-").header("If-Range", if_range);
        let (_, heard) = offered.fetch(&request);
        assert_eq!(heard.reply().status, status, "{if_range}");
    }
}

#[test]
fn an_image_may_be_fetched_in_parts_on_one_connection() {
    let offered = offered();
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

/// An ESP-IDF device asks for parts of a fixed size, goes on where the last one ended, and knows
/// nothing of tails. Parts that are no smaller than the tail work, wherever the borders fall.
#[test]
fn an_image_may_be_fetched_in_parts_of_any_size_from_that_of_the_tail_on() {
    for part_bytes in [TAIL, TAIL + 1, 5000, 6000, 9999, 16_384] {
        let offered = offered();
        let mut exchange = offered.exchange();
        let mut fetched = Vec::new();
        while fetched.len() < SIZE {
            let range = format!("bytes={}-{}", fetched.len(), fetched.len() + part_bytes - 1);
            let reply = exchange.request(&offered.get().header("Range", &range).bytes()).reply();
            assert_eq!(reply.status, 206, "{range}");
            fetched.extend(reply.body);
        }
        assert_eq!(fetched, image("1.2.0", SIZE), "{part_bytes}");
    }
}

/// The price of the rule: smaller parts use the token up inside the tail.
#[test]
fn a_part_inside_the_tail_uses_the_token_up() {
    let offered = offered();
    let mut exchange = offered.exchange();
    let part = offered.get().header("Range", "bytes=6000-7999");
    assert_eq!(exchange.request(&part.bytes()).kinds(), ["Redeem", "Start", "Claim"]);
    let rest = offered.get().header("Range", "bytes=8000-9999");
    assert_eq!(exchange.request(&rest.bytes()).reply().text(), NOT_FOUND);
}
