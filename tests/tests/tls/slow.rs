//! Peers that take slowly: what they must take is counted in plaintext, and never less is asked
//! of them than without TLS, nor much more.

use std::time::Duration;

use otter_protocol::{CloseReason, Outcome};
use otter_tests::Draft;
use otter_tests::scene::Redeemable;
use otter_tests::tls::{HEADER_BYTES, Session, Terms};

use crate::versions;

const SECOND: Duration = Duration::from_secs(1);
const SEND_WINDOW: Duration = Duration::from_secs(30);

/// A download over TLS of which nothing has left.
fn download(image: &Redeemable, terms: &Terms) -> Session {
    let mut session = Session::open(&image.scene, terms);
    session.client.say(&image.get().bytes());
    let wire = session.client.take_wire();
    session.input(&wire);
    while session.answer() {}
    session
}

/// Takes so many bytes of ciphertext each second until it is over; how long that was.
fn trickle(session: &mut Session, bytes_per_second: usize) -> Duration {
    let begun = session.clock.at();
    while session.peer.closed().is_none() && session.peer.connection().transmit().is_some() {
        let deadline = session.peer.deadline().map(|at| session.clock.offset(at));
        session.advance(SECOND);
        if deadline.is_some_and(|deadline| deadline <= session.clock.at()) {
            session.peer.timeout(session.clock.now());
        }
        let mut left = bytes_per_second;
        while left > 0 {
            let taken = session.take(left);
            while session.answer() {}
            left -= taken;
            if taken == 0 {
                break;
            }
        }
    }
    session.clock.at() - begun
}

fn sizes() -> [Option<usize>; 3] {
    [Some(512 + HEADER_BYTES), Some(4096 + HEADER_BYTES), None]
}

#[test]
fn three_hundred_bytes_per_second_are_enough() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 150_000));
    for (name, terms) in versions() {
        for fragment_max in sizes() {
            let mut session = download(&image, &Terms { fragment_max, ..terms.clone() });
            let took = trickle(&mut session, 300);
            assert_eq!(session.peer.closed(), None, "{name}, {fragment_max:?}: {took:?}");
            assert_eq!(session.peer.reports()[0].outcome, Outcome::Delivered);
            assert!(took > 500 * SECOND, "{took:?}");
        }
    }
}

#[test]
fn a_hundred_bytes_per_second_are_not() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 150_000));
    for (name, terms) in versions() {
        for fragment_max in sizes() {
            let mut session = download(&image, &Terms { fragment_max, ..terms.clone() });
            let took = trickle(&mut session, 100);
            assert_eq!(session.peer.closed(), Some(CloseReason::Slow), "{name}, {fragment_max:?}");
            assert!(took <= SEND_WINDOW + SECOND, "{name}, {fragment_max:?}: {took:?}");
            assert_eq!(session.client.end(), None, "no close_notify");
        }
    }
}

/// Fast and then not at all: what was taken before a window does not count in it.
#[test]
fn what_left_before_the_window_does_not_count() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 150_000));
    for (name, terms) in versions() {
        let mut session = download(&image, &terms);
        for _ in 0..50 {
            session.take(1000);
        }
        assert_eq!(session.expire(), SEND_WINDOW, "{name}");
        assert_eq!(session.peer.closed(), None, "{name}");
        session.take(7000);
        assert_eq!(session.expire(), SEND_WINDOW, "{name}");
        assert_eq!(session.peer.closed(), Some(CloseReason::Slow), "{name}");
    }
}

/// An answer is on its way for 15 minutes at most.
#[test]
fn no_answer_takes_longer_than_fifteen_minutes() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 1_000_000));
    for (name, terms) in versions() {
        let mut session = download(&image, &terms);
        let took = trickle(&mut session, 400);
        assert_eq!(took, 15 * 60 * SECOND, "{name}");
        assert_eq!(session.peer.closed(), Some(CloseReason::Slow), "{name}");
    }
}

/// What the reports count is plaintext, and never more than left.
#[test]
fn an_answer_that_breaks_off_is_aborted_with_what_left() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 50_000));
    for (name, terms) in versions() {
        for taken in [0, 1, 100, 5000, 16_000, 20_000, 40_000] {
            let mut session = download(&image, &terms);
            let mut left = taken;
            while left > 0 {
                left -= session.take(left);
            }
            session.peer.reset(session.clock.now());
            let report = session.peer.reports()[0];
            assert_eq!(report.outcome, Outcome::Aborted, "{name}");
            let sent = usize::try_from(report.bytes_sent).expect("few");
            assert!(sent <= taken && sent + 200 >= taken, "{name}: {sent} of {taken}");
            let heard = session.client.heard_bytes();
            assert!(heard <= sent + 1, "{name}: {heard} were opened, {sent} reported");
        }
    }
}
