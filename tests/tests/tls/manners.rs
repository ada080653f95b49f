//! Clients with bad manners, inside of TLS: what their keys allow them and no library does.

use std::time::Duration;

use otter_protocol::CloseReason;
use otter_tests::scene::KEY;
use otter_tests::tls::{APPLICATION, HANDSHAKE, Hello, Sealer, Session, Terms, V1_2, V1_3};
use otter_tests::{Request, Scene};
use proptest::prelude::*;

use crate::health;

const ALERT: u8 = 21;
const SECOND: Duration = Duration::from_secs(1);

/// A connection whose handshake is done, and who goes on with it.
fn open(terms: Terms) -> (Session, Sealer) {
    let terms = terms.sealable();
    let mut session = Session::open(&Scene::new(), &terms);
    let other = Session::new(&Scene::new(), &terms).client;
    let client = std::mem::replace(&mut session.client, other);
    (session, Sealer::of(client))
}

/// The ciphertext that is there to be sent.
fn sent(session: &mut Session) -> Vec<u8> {
    let now = session.clock.now();
    let mut sent = Vec::new();
    loop {
        let taken = session.peer.take(now, usize::MAX);
        if taken.is_empty() {
            return sent;
        }
        sent.extend(taken);
    }
}

#[test]
fn a_sealed_request_is_answered() {
    for versions in [V1_2, V1_3] {
        let (mut session, mut sealer) = open(Terms::only(versions));
        session.input(&sealer.seal(APPLICATION, &health()));
        assert_eq!(sent(&mut session).first(), Some(&APPLICATION));
        assert_eq!(session.peer.reports().len(), 1);
    }
}

#[test]
fn requests_may_share_a_record_or_have_many_each() {
    for versions in [V1_2, V1_3] {
        let (mut session, mut sealer) = open(Terms::only(versions));
        session.input(&sealer.seal(APPLICATION, &health().repeat(3)));
        sent(&mut session);
        assert_eq!(session.peer.reports().len(), 3, "pipelined in one record");
        for byte in health().repeat(2) {
            session.input(&sealer.seal(APPLICATION, &[byte]));
            sent(&mut session);
        }
        assert_eq!(session.peer.reports().len(), 5, "a record for each byte");
        assert_eq!(session.peer.closed(), None);
    }
}

/// A ClientHello in the middle of TLS 1.2: it is told that there is no renegotiation, and no
/// handshake begins. Who does not give up is sent away.
#[test]
fn renegotiation_is_refused() {
    let (mut session, mut sealer) = open(Terms::only(V1_2));
    session.input(&sealer.seal(HANDSHAKE, &Hello::new().message()));
    let told = sent(&mut session);
    assert_eq!(told.first(), Some(&ALERT), "no_renegotiation");
    assert_eq!(told.len(), 5 + 8 + 2 + 16, "one alert");
    assert!(!session.peer.connection().is_handshaking() && session.peer.closed().is_none());
    session.input(&sealer.seal(APPLICATION, &health()));
    assert_eq!(session.peer.reports().len(), 0, "not before it has left");
    sent(&mut session);
    assert_eq!(session.peer.reports().len(), 1, "the connection goes on as it was");
    for _ in 0..10 {
        session.input(&sealer.seal(HANDSHAKE, &Hello::new().message()));
    }
    assert!(session.peer.connection().wants_read());
    sent(&mut session);
    assert_eq!(session.close(), CloseReason::Tls);
}

/// A record without content buys no time: the connection is as idle as before.
#[test]
fn empty_records_buy_no_time() {
    for versions in [V1_2, V1_3] {
        let (mut session, mut sealer) = open(Terms::only(versions));
        let before = session.peer.deadline();
        for _ in 0..30 {
            session.advance(SECOND);
            session.input(&sealer.seal(APPLICATION, &[]));
        }
        assert_eq!(session.peer.deadline(), before);
        assert!(session.peer.connection().is_idle());
        // Nor in the middle of a request.
        session.input(&sealer.seal(APPLICATION, b"GET / HT"));
        let head = session.peer.deadline();
        session.advance(SECOND);
        session.input(&sealer.seal(APPLICATION, &[]));
        assert_eq!(session.peer.deadline(), head);
        // Without end they end it.
        for _ in 0..50 {
            session.input(&sealer.seal(APPLICATION, &[]));
        }
        sent(&mut session);
        assert_eq!(session.close(), CloseReason::Tls);
    }
}

/// A record that trickles in is nothing yet: the connection is as idle as before.
#[test]
fn half_a_record_buys_no_time() {
    for versions in [V1_2, V1_3] {
        let (mut session, mut sealer) = open(Terms::only(versions));
        let before = session.peer.deadline();
        let wire = sealer.seal(APPLICATION, &health());
        for byte in &wire[..wire.len() - 1] {
            session.advance(SECOND / 2);
            session.input(&[*byte]);
        }
        assert_eq!(session.peer.deadline(), before);
        assert!(session.peer.connection().is_idle());
        session.expire();
        assert_eq!(session.peer.closed(), Some(CloseReason::Idle));
    }
}

#[test]
fn new_keys_buy_no_time_and_are_answered() {
    let mut session = Session::open(&Scene::new(), &Terms::only(V1_3));
    let before = session.peer.deadline();
    for _ in 0..20 {
        session.advance(SECOND);
        session.client.update_keys().expect("TLS 1.3");
        session.settle();
    }
    assert_eq!(session.peer.deadline(), before);
    assert!(session.request(&health()).starts_with(b"HTTP/1.1 200"), "with the newest keys");
    assert!(session.peer.connection().is_idle());
}

/// Key updates without end, none of them read: the connection ends before that costs anything.
#[test]
fn key_updates_without_end_are_not_followed() {
    let (mut session, mut sealer) = open(Terms::only(V1_3));
    let request = [24, 0, 0, 1, 1];
    // All in one record: each would have to be answered.
    session.input(&sealer.seal(HANDSHAKE, &request.repeat(1000)));
    assert!(sent(&mut session).len() < 2000);
    assert_eq!(session.close(), CloseReason::Tls);
}

/// An answer to renegotiation while a part of a batch has left: the share of plaintext that has
/// left never goes back.
#[test]
fn what_is_said_in_the_middle_of_a_batch_is_no_trouble() {
    let post = Request::post("/device/register", "{\"registration\":{}}").key("k");
    let request = post.header("Expect", "100-continue").bytes();
    let head = request.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    for first in [1, 20, 40, 50] {
        let (mut session, mut sealer) = open(Terms::only(V1_2));
        session.input(&sealer.seal(APPLICATION, &request[..head]));
        let now = session.clock.now();
        assert_eq!(session.peer.take(now, first).len(), first, "of 100 Continue");
        session.input(&sealer.seal(HANDSHAKE, &Hello::new().message()));
        while !session.peer.take(now, 1).is_empty() {}
        session.input(&sealer.seal(APPLICATION, &request[head..]));
        assert!(session.answer() || !sent(&mut session).is_empty());
        session.peer.eof(now);
    }
}

/// Warnings are no fatal thing, but without end they are.
#[test]
fn warnings_without_end() {
    let (mut session, mut sealer) = open(Terms::only(V1_2));
    for n in 0..100 {
        session.input(&sealer.seal(ALERT, &[1, 90]));
        sent(&mut session);
        if session.peer.connection().wants_shutdown() {
            assert!(n < 50, "{n} warnings");
            return;
        }
    }
    panic!("a hundred warnings");
}

/// A message of a handshake in pieces that never becomes whole.
#[test]
fn a_message_in_pieces_after_the_handshake_keeps_little() {
    let (mut session, mut sealer) = open(Terms::only(V1_3));
    session.input(&sealer.seal(HANDSHAKE, &[24, 0, 0xff, 0xff]));
    let mut fed = 0;
    while session.peer.closed().is_none() && !session.peer.connection().wants_shutdown() {
        let wire = sealer.seal(HANDSHAKE, &[0]);
        session.input(&wire);
        fed += wire.len();
        assert!(fed < 70_000, "{fed} bytes of a message that is none");
    }
}

/// An alert that is fatal ends it at once, and quietly.
#[test]
fn a_fatal_alert_ends_it() {
    for versions in [V1_2, V1_3] {
        let (mut session, mut sealer) = open(Terms::only(versions));
        session.input(&sealer.seal(ALERT, &[2, 80]));
        assert!(sent(&mut session).is_empty());
        assert!(session.peer.reports().is_empty());
        assert_eq!(session.close(), CloseReason::Tls);
    }
}

/// What somebody with keys may do.
#[derive(Clone, Debug)]
enum Move {
    /// A record of this kind.
    Record(u8, Vec<u8>),
    /// A whole request that asks the store.
    CheckIn,
    Answer,
    Take(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let content = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..40),
        2 => (1..4usize).prop_map(|times| [24, 0, 0, 1, 1].repeat(times)),
        1 => Just(vec![24, 0, 0, 1, 0]),
        1 => Just(vec![24, 0]),
        1 => Just(vec![0, 1, 1]),
        1 => Just(Hello::new().message()),
        1 => (1..30usize).prop_map(|bytes| Hello::new().message()[..bytes].to_vec()),
        1 => prop::sample::select(vec![vec![1, 0], vec![2, 40], vec![1, 90], vec![1]]),
        2 => Just(health()),
    ];
    let kind = prop::sample::select(vec![APPLICATION, HANDSHAKE, HANDSHAKE, ALERT, 20, 24, 99]);
    let step = prop_oneof![
        6 => (kind, content).prop_map(|(kind, content)| Move::Record(kind, content)),
        2 => Just(Move::CheckIn),
        3 => Just(Move::Answer),
        3 => (1..400usize).prop_map(Move::Take),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever is said with good keys, nothing panics, and it ends.
    #[test]
    fn any_sealed_records_in_any_order(
        is_1_3 in any::<bool>(),
        steps in moves(),
        holds in 1..5usize,
    ) {
        let (mut session, mut sealer) = open(Terms::only(if is_1_3 { V1_3 } else { V1_2 }));
        let check_in = Request::post("/device/register", "{\"registration\":{}}").key(KEY).bytes();
        let mut held = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            let now = session.clock.now();
            match step {
                Move::Record(kind, content) => held.extend(sealer.seal(kind, &content)),
                Move::CheckIn => held.extend(sealer.seal(APPLICATION, &check_in)),
                Move::Answer => {
                    session.answer();
                }
                Move::Take(bytes) => {
                    session.peer.take(now, bytes);
                }
            }
            // Several records arrive at once, and the last one in part.
            if n % holds == 0 {
                let keeps = held.len() / 7;
                let arrives: Vec<u8> = held.drain(..held.len() - keeps).collect();
                session.input(&arrives);
            }
        }
        session.peer.eof(session.clock.now());
        for _ in 0..100 {
            while session.answer() || !sent(&mut session).is_empty() {}
            if session.peer.closed().is_some() {
                return Ok(());
            }
            session.expire();
        }
        prop_assert!(false, "law 4: it never ends");
    }
}
