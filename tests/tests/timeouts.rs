//! Deadlines (docs/design.md 8, law 4; docs/wire.md 1.0): each limit of `Config` that is a
//! time, exactly when it strikes, and what comes of it.

use std::time::Duration;

use otter_protocol::{Answer, CloseReason, Config, Outcome, Refusal};
use otter_tests::scene::{KEY, registration, token_text};
use otter_tests::tls::Difference;
use otter_tests::{Draft, Exchange, Request, Scene};

const IDLE: Duration = Duration::from_secs(75);
const HEAD: Duration = Duration::from_secs(10);
const BODY: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(2);
const SEND_WINDOW: Duration = Duration::from_secs(30);
const TRANSFER: Duration = Duration::from_secs(15 * 60);
const LINGER: Duration = Duration::from_secs(1);
const SECOND: Duration = Duration::from_secs(1);

fn check_in() -> Vec<u8> {
    Request::post("/device/register", &registration().wrapped("registration")).key(KEY).bytes()
}

/// Is a request of this exchange refused with `status`, and the connection closed after it?
fn assert_refused(exchange: &mut Exchange, status: u16, refusal: Refusal) {
    exchange.settle();
    let heard = exchange.heard();
    let reply = heard.reply();
    assert_eq!(reply.status, status);
    assert_eq!(reply.json()["success"], false);
    assert!(reply.says_close() && heard.ended);
    assert_eq!(exchange.outcome(), Some(Outcome::Refused(refusal)));
}

/// A download of `size` bytes whose head and first bytes are shown.
fn download(size: usize) -> Exchange {
    let mut scene = Scene::new();
    let release = scene.publish(&Draft::binary("1.2.0", size));
    let token = token_text(scene.issue(Some(release)));
    let mut exchange = scene.exchange();
    exchange.input(&Request::esp8266_update(&token).bytes());
    for _ in 0..2 {
        let query = exchange.ask().expect("Redeem, Start");
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    exchange
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let mut exchange = Scene::new().exchange();
    assert_eq!(exchange.expire(), IDLE);
    exchange.settle();
    assert_eq!(exchange.heard().bytes, b"");
    assert_eq!(exchange.close(), CloseReason::Idle);
}

#[test]
fn a_connection_is_silent_from_its_last_answer_on() {
    let mut exchange = Scene::new().exchange();
    exchange.advance(70 * SECOND);
    exchange.request(&check_in());
    assert_eq!(exchange.deadline(), Some(IDLE));
    assert_eq!(exchange.expire(), IDLE);
    exchange.settle();
    assert_eq!(exchange.heard().bytes, b"");
    assert_eq!(exchange.close(), CloseReason::Idle);
}

#[test]
fn a_head_has_ten_seconds_from_its_first_byte_however_many_follow() {
    let mut exchange = Scene::new().exchange();
    exchange.advance(20 * SECOND);
    let bytes = check_in();
    exchange.input(&bytes[..1]);
    assert_eq!(exchange.deadline(), Some(HEAD));
    for (second, byte) in (1..10).zip(bytes[1..].chunks(1)) {
        exchange.advance(SECOND);
        exchange.input(byte);
        assert_eq!(exchange.deadline(), Some(HEAD - second * SECOND));
    }
    exchange.expire();
    assert_refused(&mut exchange, 408, Refusal::TooSlow);
}

#[test]
fn a_body_has_fifteen_seconds_from_the_end_of_the_head() {
    let bytes = check_in();
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    for chunked in [false, true] {
        let mut exchange = Scene::new().exchange();
        if chunked {
            let request = Request::post("/device/register", "{}").chunked(1).bytes();
            exchange.input(&request[..request.len() - 5]);
        } else {
            exchange.input(&bytes[..20]);
            exchange.advance(9 * SECOND);
            exchange.input(&bytes[20..head_end]);
        }
        assert_eq!(exchange.deadline(), Some(BODY), "chunked: {chunked}");
        exchange.advance(5 * SECOND);
        if !chunked {
            exchange.input(&bytes[head_end..head_end + 10]);
        }
        assert_eq!(exchange.deadline(), Some(BODY - 5 * SECOND), "not extended by bytes");
        exchange.expire();
        assert_refused(&mut exchange, 408, Refusal::TooSlow);
    }
}

#[test]
fn a_request_that_arrives_just_in_time_is_answered() {
    let mut exchange = Scene::new().exchange();
    let bytes = check_in();
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    exchange.input(&bytes[..1]);
    exchange.advance(HEAD - Duration::from_millis(1));
    exchange.input(&bytes[1..head_end]);
    exchange.advance(BODY - Duration::from_millis(1));
    exchange.input(&bytes[head_end..]);
    exchange.settle();
    assert_eq!(exchange.heard().reply().status, 200);
}

#[test]
fn a_store_has_two_seconds_for_each_query() {
    for answered in 0..2 {
        let mut exchange = Scene::new().exchange();
        exchange.input(&check_in());
        for _ in 0..answered {
            let query = exchange.ask().expect("Identify");
            exchange.advance(SECOND);
            let answer = exchange.store.answer(&query);
            exchange.answer(answer);
        }
        exchange.ask().expect("the query that stays open");
        assert_eq!(exchange.expire(), ANSWER, "after {answered} answers");
        exchange.settle();
        let heard = exchange.heard();
        let reply = heard.reply();
        assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("10")));
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"unavailable\"}");
        assert!(reply.says_close() && heard.ended, "503 and close");
    }
}

#[test]
fn an_answer_that_comes_too_late_changes_nothing() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in());
    let (id, query) = exchange.peer.query().expect("Identify");
    exchange.expire();
    let answer = exchange.store.answer(&query);
    exchange.peer.answer(exchange.clock.now(), id, answer);
    exchange.settle();
    let heard = exchange.heard();
    assert_eq!(heard.reply().status, 503);
    assert!(heard.queries.is_empty());
}

#[test]
fn an_answer_to_an_earlier_query_is_not_one_to_the_open_query() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in());
    let (first, identify) = exchange.peer.query().expect("Identify");
    let answer = exchange.store.answer(&identify);
    exchange.peer.answer(exchange.clock.now(), first, answer);
    let (second, record) = exchange.peer.query().expect("Record");
    assert_ne!(first, second);
    exchange.peer.answer(exchange.clock.now(), first, Answer::Unavailable);
    assert_eq!(exchange.take(usize::MAX), 0, "the record is still due");
    let answer = exchange.store.answer(&record);
    exchange.peer.answer(exchange.clock.now(), second, answer);
    exchange.settle();
    assert_eq!(exchange.heard().reply().status, 200);
}

#[test]
fn the_name_of_the_wait_is_a_setting() {
    let mut scene = Scene::new();
    scene.config.retry_after_s = 77;
    scene.config.answer_timeout = SECOND;
    let mut exchange = scene.exchange();
    exchange.input(&check_in());
    exchange.ask().expect("Identify");
    assert_eq!(exchange.expire(), SECOND);
    exchange.settle();
    assert_eq!(exchange.heard().reply().header("Retry-After"), Some("77"));
}

#[test]
fn an_answer_that_nobody_reads_is_given_up_after_one_window() {
    let mut exchange = download(100_000);
    assert_eq!(exchange.expire(), SEND_WINDOW);
    assert_eq!(exchange.close(), CloseReason::Slow);
    assert_eq!(exchange.outcome(), Some(Outcome::Aborted));
}

#[test]
fn too_few_bytes_in_a_window_are_given_up() {
    if Difference::PartialTakes.is_here() {
        return;
    }
    let mut exchange = download(100_000);
    exchange.advance(20 * SECOND);
    let mut taken = 0;
    while taken < 7679 {
        taken += exchange.take(7679 - taken);
    }
    exchange.expire();
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Slow), "{taken} bytes in 30 s");
}

#[test]
fn enough_bytes_in_each_window_are_taken_for_as_long_as_it_takes() {
    if Difference::PartialTakes.is_here() {
        return;
    }
    let mut exchange = download(100_000);
    for _ in 0..12 {
        let mut taken = 0;
        while taken < 7680 {
            taken += exchange.take(7680 - taken);
        }
        assert_eq!(exchange.expire(), SEND_WINDOW);
        assert_eq!(exchange.peer.closed(), None);
    }
}

#[test]
fn bytes_of_an_earlier_window_do_not_count_in_a_later_one() {
    let mut exchange = download(100_000);
    let mut taken = 0;
    while taken < 50_000 {
        taken += exchange.take(50_000 - taken);
    }
    assert_eq!(exchange.expire(), SEND_WINDOW);
    exchange.take(7679);
    assert_eq!(exchange.expire(), SEND_WINDOW);
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Slow));
}

#[test]
fn a_short_answer_that_nobody_reads_is_given_up_too() {
    if Difference::PartialTakes.is_here() {
        return;
    }
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in());
    while let Some(query) = exchange.ask() {
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    exchange.take(100);
    assert_eq!(exchange.expire(), SEND_WINDOW);
    assert_eq!(exchange.close(), CloseReason::Slow);
}

#[test]
fn no_answer_takes_longer_than_fifteen_minutes() {
    if Difference::PartialTakes.is_here() {
        return;
    }
    let mut exchange = download(1_000_000);
    let begun = exchange.clock.at();
    while exchange.peer.closed().is_none() {
        let mut taken = 0;
        while taken < 8000 {
            taken += exchange.take(8000 - taken);
        }
        exchange.expire();
    }
    assert_eq!(exchange.clock.at() - begun, TRANSFER);
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Slow));
}

#[test]
fn after_the_last_byte_strays_are_dropped_for_a_second() {
    let mut exchange = Scene::new().exchange();
    let request = Request::check_in(KEY, &registration().wrapped("registration")).then(b"").bytes();
    exchange.request(&request);
    assert_eq!(exchange.deadline(), Some(LINGER));
    exchange.advance(LINGER / 2);
    exchange.input(b"\r\n");
    assert_eq!(exchange.deadline(), Some(LINGER / 2), "not extended by bytes");
    exchange.expire();
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Peer));
}

#[test]
fn after_the_last_byte_only_so_many_strays_are_dropped() {
    let mut exchange = Scene::new().exchange();
    let request = Request::check_in(KEY, &registration().wrapped("registration"));
    exchange.request(&request.bytes());
    let mut dropped = 0;
    while exchange.peer.closed().is_none() {
        exchange.input(&[b'x'; 4096]);
        dropped += 4096;
        assert!(dropped <= 65_536 + 4096, "{dropped} bytes");
    }
    assert!(dropped > 60_000, "{dropped} bytes");
}

#[test]
fn an_end_while_lingering_closes_at_once() {
    let mut exchange = Scene::new().exchange();
    let request = Request::check_in(KEY, &registration().wrapped("registration"));
    exchange.request(&request.bytes());
    exchange.eof();
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Peer));
}

#[test]
fn a_refused_request_lingers_as_well() {
    let mut exchange = Scene::new().exchange();
    exchange.request(&Request::get("/").header("x", &"y".repeat(9000)).bytes());
    assert_eq!(exchange.peer.closed(), None);
    assert_eq!(exchange.expire(), LINGER);
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Refused));
}

/// What may be closed to make room (the law that it then closes at once is checked everywhere).
#[test]
fn a_connection_is_idle_while_nothing_has_arrived_and_nothing_is_owed() {
    let mut exchange = Scene::new().exchange();
    let is_idle = |exchange: &Exchange| exchange.peer.connection().is_idle();
    assert!(is_idle(&exchange), "accepted");
    exchange.input(b"\r\n\r");
    assert!(is_idle(&exchange), "line ends");
    exchange.input(b"\nGET / HTTP/1.1\r\n");
    assert!(!is_idle(&exchange), "a part of a request");
    exchange.input(b"Host: otter\r\n\r\n");
    assert!(!is_idle(&exchange), "an answer is owed");
    exchange.settle();
    assert!(is_idle(&exchange), "answered");
    exchange.input(&[&Request::get("/").bytes()[..], b"GET /"].concat());
    exchange.settle();
    assert!(!is_idle(&exchange), "answered, with a part of the next behind it");
    exchange.input(b" HTTP/1.0\r\n\r\n");
    exchange.settle();
    assert!(!is_idle(&exchange), "lingers");
    assert_eq!(exchange.expire(), LINGER);
    assert!(!is_idle(&exchange), "closed");
}

#[test]
fn a_shutdown_closes_an_idle_connection_at_once() {
    let mut exchange = Scene::new().exchange();
    exchange.peer.shutdown(exchange.clock.now());
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Shutdown));
}

/// Half a stray line end is no request that would have to be waited for.
#[test]
fn a_shutdown_closes_a_connection_that_has_half_a_line_end() {
    let mut exchange = Scene::new().exchange();
    exchange.request(&check_in());
    exchange.input(b"\r");
    exchange.peer.shutdown(exchange.clock.now());
    assert_eq!(exchange.peer.closed(), Some(CloseReason::Shutdown));
}

/// Line ends that the libraries send behind each body are not counted as requests ahead.
#[test]
fn line_ends_between_requests_never_use_a_connection_up() {
    let mut exchange = Scene::new().exchange();
    let request = check_in();
    let (first, second) = request.split_at(request.len() - 20);
    for n in 0..200 {
        exchange.input(first);
        exchange.input(second);
        // The line end as it comes: with the body, or cut in two.
        exchange.input(b"\r");
        exchange.settle();
        assert!(!exchange.heard().ended, "after {n} requests");
        exchange.input(b"\n");
    }
}

#[test]
fn a_shutdown_lets_the_answer_finish() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in());
    let query = exchange.ask().expect("Identify");
    exchange.peer.shutdown(exchange.clock.now());
    let answer = exchange.store.answer(&query);
    exchange.answer(answer);
    exchange.settle();
    let heard = exchange.heard();
    assert!(heard.reply().says_close() && heard.ended);
    assert_eq!(exchange.close(), CloseReason::Shutdown);
}

#[test]
fn a_shutdown_lets_a_transfer_finish() {
    let mut exchange = download(50_000);
    exchange.take(1000);
    exchange.peer.shutdown(exchange.clock.now());
    exchange.settle();
    assert_eq!(exchange.heard().reply().body.len(), 50_000);
    assert_eq!(exchange.close(), CloseReason::Shutdown);
}

#[test]
fn the_defaults_are_the_ones_tried_here() {
    let config = Config::default();
    assert_eq!(
        (config.idle_timeout, config.head_timeout, config.body_timeout, config.answer_timeout),
        (IDLE, HEAD, BODY, ANSWER)
    );
    assert_eq!(
        (config.send_window, config.transfer_timeout, config.linger_timeout),
        (SEND_WINDOW, TRANSFER, LINGER)
    );
    assert_eq!((config.send_window_bytes_min, config.linger_bytes_max), (7680, 65_536));
}

#[test]
fn every_timeout_is_a_setting() {
    let mut scene = Scene::new();
    scene.config.idle_timeout = 3 * SECOND;
    scene.config.head_timeout = 4 * SECOND;
    scene.config.body_timeout = 5 * SECOND;
    scene.config.send_window = 6 * SECOND;
    scene.config.linger_timeout = 7 * SECOND;
    let mut exchange = scene.exchange();
    assert_eq!(exchange.deadline(), Some(3 * SECOND));
    let request = Request::check_in(KEY, &registration().wrapped("registration")).then(b"").bytes();
    exchange.input(&request[..5]);
    assert_eq!(exchange.deadline(), Some(4 * SECOND));
    exchange.input(&request[5..request.len() - 1]);
    assert_eq!(exchange.deadline(), Some(5 * SECOND));
    exchange.input(&request[request.len() - 1..]);
    while let Some(query) = exchange.ask() {
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    assert_eq!(exchange.deadline(), Some(6 * SECOND));
    exchange.settle();
    assert_eq!(exchange.deadline(), Some(7 * SECOND));
}
