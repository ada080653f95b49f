//! What is agreed upon, how sessions are taken up again, and how long it may take.

use std::time::Duration;

use otter_protocol::{CloseReason, Handshake, TlsFailure};
use otter_tests::Scene;
use otter_tests::tls::{Client, Hello, Key, Record, Session, Terms, V1_2, V1_3, records, suites};
use rustls::crypto::ring;
use rustls::{ProtocolVersion, SupportedCipherSuite};

use crate::{health, versions};

const HANDSHAKE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(75);
const SECOND: Duration = Duration::from_secs(1);

fn assert_serves(session: &mut Session, what: &str) {
    let answer = session.request(&health());
    assert!(answer.ends_with(b"{\"healthcheck\":true}"), "{what}: {:?}", session.client.end());
    assert_eq!(session.peer.handshake(), Some(Handshake::Full), "{what}");
}

/// The keys that a suite can go with.
fn keys(suite: SupportedCipherSuite) -> Vec<Key> {
    let name = format!("{:?}", suite.suite());
    match name {
        name if name.contains("ECDSA") => vec![Key::P256, Key::P384, Key::Ed25519],
        name if name.contains("RSA") => vec![Key::Rsa],
        _ => vec![Key::P256, Key::P384, Key::Ed25519, Key::Rsa],
    }
}

#[test]
fn every_suite_with_every_key() {
    let mut tried = 0;
    for suite in suites() {
        for key in keys(*suite) {
            let version = suite.version().version;
            let versions = if version == ProtocolVersion::TLSv1_2 { V1_2 } else { V1_3 };
            let terms = Terms { suites: vec![*suite], key, ..Terms::only(versions) };
            let mut session = Session::new(&Scene::new(), &terms);
            assert_serves(&mut session, &format!("{suite:?} with {key:?}"));
            let agreed = session.client.connection().negotiated_cipher_suite();
            assert_eq!(agreed, Some(*suite));
            tried += 1;
        }
    }
    assert_eq!(tried, 3 * 3 + 3 + 3 * 4, "ECDSA and RSA of TLS 1.2, and TLS 1.3");
}

#[test]
fn every_group_in_either_version() {
    for (name, terms) in versions() {
        for group in ring::ALL_KX_GROUPS {
            let terms = Terms { groups: vec![*group], ..terms.clone() };
            assert_serves(&mut Session::new(&Scene::new(), &terms), &format!("{name}, {group:?}"));
        }
    }
}

/// A client that guesses the group wrong is asked again (HelloRetryRequest).
#[test]
fn another_group_than_the_client_thought() {
    let server = Terms { groups: vec![ring::kx_group::SECP384R1], ..Terms::only(V1_3) };
    let client = Terms::only(V1_3);
    let mut session = Session::with(&Scene::new(), &server.server(), &client.client());
    assert_serves(&mut session, "P-384 at the second try");
}

#[test]
fn a_client_may_offer_protocols_and_none_is_chosen() {
    for (name, terms) in versions() {
        let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut session = Session::new(&Scene::new(), &Terms { alpn, ..terms });
        assert_serves(&mut session, name);
        assert_eq!(session.client.connection().alpn_protocol(), None);
    }
}

#[test]
fn sessions_are_taken_up_again_by_id_and_by_ticket() {
    let ways = [
        ("an id, TLS 1.2", Terms { tickets: false, ..Terms::only(V1_2) }, true),
        ("a ticket, TLS 1.2", Terms { sessions: false, ..Terms::only(V1_2) }, true),
        ("a ticket, TLS 1.3", Terms { sessions: false, ..Terms::only(V1_3) }, true),
        ("nothing, TLS 1.2", Terms { tickets: false, sessions: false, ..Terms::only(V1_2) }, false),
        ("nothing, TLS 1.3", Terms { tickets: false, ..Terms::only(V1_3) }, false),
    ];
    for (way, terms, resumes) in ways {
        let (server, client) = (terms.server(), terms.client());
        for n in 0..3 {
            let mut session = Session::with(&Scene::new(), &server, &client);
            assert!(session.request(&health()).starts_with(b"HTTP/1.1 200"), "{way}");
            let is_resumed = resumes && n > 0;
            let expected = if is_resumed { Handshake::Resumed } else { Handshake::Full };
            assert_eq!(session.peer.handshake(), Some(expected), "{way}, connection {n}");
            assert_eq!(session.client.is_resumed(), is_resumed, "{way}, connection {n}");
        }
    }
}

/// Tickets end: a client that comes back after a week proves nothing with its own.
#[test]
fn a_session_is_good_for_a_day_and_not_for_a_week() {
    let terms = Terms { sessions: false, ..Terms::only(V1_3) };
    let (server, client) = (terms.server(), terms.client());
    let come = || {
        let mut session = Session::with(&Scene::new(), &server, &client);
        session.request(&health());
        session.peer.handshake()
    };
    assert_eq!(come(), Some(Handshake::Full));
    terms.time.set(otter_tests::Clock::UNIX_START + 3600);
    assert_eq!(come(), Some(Handshake::Resumed));
    terms.time.set(otter_tests::Clock::UNIX_START + 8 * 24 * 3600);
    assert_eq!(come(), Some(Handshake::Full));
}

#[test]
fn a_clock_that_goes_back_is_no_trouble() {
    for (name, terms) in versions() {
        let (server, client) = (terms.server(), terms.client());
        for unix in [2_000_000_000, 0, 4_000_000_000, 1] {
            // The client keeps its own time, by which the certificate is good.
            terms.time.set(unix);
            let other = Terms { time: Default::default(), ..terms.clone() };
            let mut fresh = Session::with(&Scene::new(), &server, &other.client());
            assert!(fresh.request(&health()).starts_with(b"HTTP/1.1 200"), "{name} at {unix}");
            terms.time.set(unix.max(otter_tests::Clock::UNIX_START));
            let mut again = Session::with(&Scene::new(), &server, &client);
            assert!(again.request(&health()).starts_with(b"HTTP/1.1 200"), "{name} at {unix}");
        }
    }
}

/// 1-byte feeding, and messages over as many records as there can be.
#[test]
fn a_handshake_in_pieces() {
    for (name, terms) in versions() {
        for client_fragment_max in [Some(32), Some(64), None] {
            for piece_bytes in [1, 5, 1000] {
                let terms = Terms { client_fragment_max, ..terms.clone() };
                let mut session = Session::new(&Scene::new(), &terms);
                (session.piece_bytes, session.take_bytes_max) = (piece_bytes, piece_bytes);
                assert_serves(&mut session, &format!("{name} by {piece_bytes}"));
            }
        }
    }
}

/// Records of one byte each, the first of which do not have the header of the message.
#[test]
fn a_hello_over_many_records_is_answered_as_one() {
    for terms in [Terms::default(), Terms::only(V1_2)] {
        for bytes in [1, 2, 3, 4, 5, 50] {
            let mut session = Session::new(&Scene::new(), &terms);
            session.input(&Hello::new().in_records_of(bytes));
            session.take(usize::MAX);
            let kinds: Vec<u8> = session.records()[0].payload[..1].to_vec();
            assert_eq!(kinds, [2], "a ServerHello, in records of {bytes}");
        }
    }
}

/// What the client sends with its Finished waits for it: nothing is asked before.
#[test]
fn nothing_is_done_before_the_client_has_finished() {
    for (name, terms) in versions() {
        let mut session = Session::new(&Scene::new(), &terms);
        let hello = session.client.take_wire();
        session.input(&hello);
        while session.take(usize::MAX) > 0 {}
        if name == "TLS 1.2" {
            assert!(session.client.is_handshaking());
        }
        session.client.say(&otter_tests::Request::check_in(otter_tests::scene::KEY, "{}").bytes());
        let flight = session.client.take_wire();
        let end: usize =
            records(&flight).iter().take(finished(name)).map(|r| r.bytes().len()).sum();
        for byte in &flight[..end - 1] {
            session.input(&[*byte]);
            assert!(session.peer.connection().is_handshaking(), "{name}");
            assert!(session.peer.query().is_none() && session.peer.reports().is_empty());
        }
        session.input(&flight[end - 1..]);
        assert!(!session.peer.connection().is_handshaking(), "{name}");
    }
}

/// How many records the client's last flight has up to its Finished.
fn finished(name: &str) -> usize {
    if name == "TLS 1.2" { 3 } else { 2 }
}

/// Data in the place of the client's Finished is none.
#[test]
fn data_before_the_client_has_finished_ends_it() {
    let mut session = Session::new(&Scene::new(), &Terms::only(V1_3));
    let hello = session.client.take_wire();
    session.input(&hello);
    while session.take(usize::MAX) > 0 {}
    session.client.say(&health());
    let flight: Vec<Record> = records(&session.client.take_wire());
    session.input(&flight.last().expect("data").bytes());
    assert_eq!(session.peer.handshake(), Some(Handshake::Failed(TlsFailure::Malformed)));
    assert!(
        session.peer.reports().is_empty() && session.peer.connection().wants_shutdown() || {
            session.settle();
            session.peer.connection().wants_shutdown()
        }
    );
    assert_eq!(session.close(), CloseReason::Tls);
}

#[test]
fn a_handshake_takes_ten_seconds_whatever_trickles_in() {
    let scene = Scene::new();
    let mut silent = Session::new(&scene, &Terms::default());
    assert_eq!(silent.expire(), HANDSHAKE);
    assert_eq!(silent.peer.closed(), Some(CloseReason::Tls));
    assert_eq!(silent.peer.handshake(), Some(Handshake::Failed(TlsFailure::TimedOut)));
    for stage in ["hello", "finished"] {
        let mut session = Session::new(&scene, &Terms::default());
        if stage == "finished" {
            let hello = session.client.take_wire();
            session.input(&hello);
            while session.take(usize::MAX) > 0 {}
        }
        let wire = session.client.take_wire();
        for second in 1..10 {
            session.advance(SECOND);
            session.input(&wire[second - 1..second]);
            let left = session.clock.offset(session.peer.deadline().expect("a deadline"));
            assert_eq!(left, HANDSHAKE, "{stage}");
        }
        assert_eq!(session.expire(), SECOND, "{stage}");
        assert_eq!(session.peer.closed(), Some(CloseReason::Tls), "{stage}");
        assert_eq!(session.peer.handshake(), Some(Handshake::Failed(TlsFailure::TimedOut)));
        assert!(session.peer.connection().transmit().is_none(), "nothing to say: {stage}");
    }
}

/// From the end of the handshake on the connection is idle as any other.
#[test]
fn the_end_of_the_handshake_begins_the_idle_time() {
    for (name, terms) in versions() {
        let mut session = Session::new(&Scene::new(), &terms);
        session.advance(9 * SECOND);
        session.settle();
        assert!(session.peer.connection().is_idle(), "{name}");
        assert_eq!(session.expire(), IDLE, "{name}");
        assert_eq!(session.peer.closed(), Some(CloseReason::Idle), "{name}");
    }
}

#[test]
fn every_limit_of_the_handshake_is_a_setting() {
    let mut scene = Scene::new();
    scene.config.handshake_timeout = 3 * SECOND;
    assert_eq!(Session::new(&scene, &Terms::default()).expire(), 3 * SECOND);
}

/// Clients of another authority say so with an alert.
#[test]
fn a_client_that_does_not_trust_the_certificate() {
    for (name, terms) in versions() {
        let stranger = Terms { key: Key::P256, ..terms.clone() };
        let mut session = Session::with(&Scene::new(), &stranger.server(), &terms.client());
        session.request(&health());
        assert_eq!(
            session.peer.handshake(),
            Some(Handshake::Failed(TlsFailure::PeerRefused)),
            "{name}"
        );
        assert_eq!(session.close(), CloseReason::Tls, "{name}");
    }
}

#[test]
fn versions_that_do_not_meet() {
    for (server, client) in [(V1_2, V1_3), (V1_3, V1_2)] {
        let (server, client) = (Terms::only(server), Terms::only(client));
        let mut session = Session::with(&Scene::new(), &server.server(), &client.client());
        session.request(&health());
        let failed = Handshake::Failed(TlsFailure::NothingInCommon);
        assert_eq!(session.peer.handshake(), Some(failed));
    }
}

/// The server need not be named: devices send no SNI.
#[test]
fn no_name_is_needed() {
    let mut session = Session::new(&Scene::new(), &Terms::only(V1_2));
    session.input(&Hello::new().bytes());
    session.take(usize::MAX);
    let flight: Vec<u8> = session.records().into_iter().flat_map(|r| r.payload).collect();
    let (mut messages, mut left) = (Vec::new(), &flight[..]);
    while let [kind, a, b, c, rest @ ..] = left {
        messages.push(*kind);
        left = &rest[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    assert_eq!(messages, [2, 11, 12, 14], "ServerHello to ServerHelloDone");
}

/// A client may go in the middle, with or without a word.
#[test]
fn a_handshake_that_is_abandoned() {
    for stage in [0, 1] {
        for ending in ["end", "reset", "close_notify"] {
            let mut session = Session::new(&Scene::new(), &Terms::only(V1_2));
            let hello = session.client.take_wire();
            session.input(if stage == 0 { &hello[..50] } else { &hello });
            session.take(usize::MAX);
            let now = session.clock.now();
            if ending == "close_notify" && stage == 1 {
                // Anybody could have said it: only the end of the socket counts.
                session.input(&[21, 3, 3, 0, 2, 1, 0]);
                assert_eq!(session.peer.handshake(), None);
            }
            if ending == "reset" {
                session.peer.reset(now)
            } else {
                session.peer.eof(now)
            }
            assert_eq!(
                session.peer.handshake(),
                Some(Handshake::Failed(TlsFailure::Abandoned)),
                "{ending} at stage {stage}"
            );
            assert_eq!(session.peer.closed(), Some(CloseReason::Peer), "{ending}");
        }
    }
}

/// Who says nothing at all has begun no handshake.
#[test]
fn a_connection_without_a_byte_is_no_failure() {
    let mut session = Session::new(&Scene::new(), &Terms::default());
    session.peer.eof(session.clock.now());
    assert_eq!((session.peer.handshake(), session.peer.closed()), (None, Some(CloseReason::Peer)));
    let mut told = Session::new(&Scene::new(), &Terms::default());
    told.peer.shutdown(told.clock.now());
    assert_eq!((told.peer.handshake(), told.peer.closed()), (None, Some(CloseReason::Shutdown)));
}

/// The client alone, to know that the tests would see a difference.
#[test]
fn a_client_says_nothing_before_it_may() {
    let mut client = Client::new(Terms::default().client());
    client.say(b"secret");
    let wire = client.take_wire();
    assert!(!wire.windows(6).any(|bytes| bytes == b"secret"));
}
