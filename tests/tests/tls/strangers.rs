//! Who comes with something else: probes, HTTP without TLS, TLS without HTTP, old TLS, noise.

use otter_protocol::{CloseReason, Handshake, Outcome, Refusal, TlsFailure};
use otter_tests::tls::{Alert, HANDSHAKE, Hello, Record, Session, Terms, V1_2};
use otter_tests::{Reply, Request, Scene};
use proptest::prelude::*;

use crate::health;

fn fresh() -> Session {
    Session::new(&Scene::new(), &Terms::default())
}

/// The verdict on bytes that are no good start, and the alert that they are answered with.
fn refused(wire: &[u8]) -> (Option<Handshake>, Option<Alert>) {
    let mut session = fresh();
    session.input(wire);
    while session.take(usize::MAX) > 0 {}
    let sent = session.records();
    let alert = sent.last().and_then(Record::alert);
    let verdict = session.peer.handshake();
    if alert.is_some() {
        assert_eq!(sent.len(), 1, "an alert and nothing else");
        assert!(session.peer.connection().wants_shutdown(), "the alert must not be lost");
        assert_eq!(session.close(), CloseReason::Tls);
    }
    (verdict, alert)
}

#[test]
fn the_probe_of_an_esp8266_gets_its_answer_and_nothing_else() {
    for code in 1..=4 {
        let hello = Hello::esp8266_probe(code);
        let mut session = fresh();
        session.piece_bytes = 7;
        session.input(&hello.bytes());
        while session.take(5) > 0 {}
        let sent = session.records();
        assert_eq!(sent.len(), 1);
        let [2, 0, 0, 45, 3, 3, rest @ ..] = &sent[0].payload[..] else { panic!("no ServerHello") };
        assert_eq!(rest[..32], hello.random);
        assert_eq!(rest[32..], [0, 0xc0, 0x2b, 0, 0, 5, 0, 1, 0, 1, code], "no session, a suite");
        assert_eq!(session.peer.handshake(), Some(Handshake::Probed));
        assert_eq!(session.peer.closed(), None, "the device goes, not we");
    }
}

/// The device says close_notify, or something went wrong, or just goes: all of it is quiet.
#[test]
fn a_probe_ends_quietly() {
    let alert = [21, 3, 3, 0, 2, 1, 0];
    for ending in ["alert", "fatal alert", "end", "reset", "nothing"] {
        let mut session = fresh();
        session.input(&Hello::esp8266_probe(1).bytes());
        while session.take(usize::MAX) > 0 {}
        let now = session.clock.now();
        match ending {
            "alert" => session.input(&alert),
            "fatal alert" => session.input(&[21, 3, 3, 0, 2, 2, 40]),
            "end" => session.peer.eof(now),
            "reset" => session.peer.reset(now),
            _ => {
                session.expire();
            }
        }
        let reason = if ending == "nothing" { CloseReason::Idle } else { CloseReason::Peer };
        assert_eq!(session.peer.closed(), Some(reason), "{ending}");
        assert_eq!(session.peer.handshake(), Some(Handshake::Probed), "{ending}");
        assert!(session.peer.connection().transmit().is_none(), "{ending}");
        assert!(session.peer.reports().is_empty(), "{ending}");
    }
}

/// The same in TLS 1.1's clothes, or without the wish, is no probe.
#[test]
fn what_only_looks_like_a_probe_is_answered_as_a_hello() {
    let probe = Hello::esp8266_probe(1);
    let without = Hello { extensions: Hello::new().extensions, ..probe.clone() };
    let other = Hello { random: [1; 32], ..probe.clone() };
    let unknown = Hello { extensions: Hello::new().with_fragments(7).extensions, ..probe };
    for hello in [without, other, unknown] {
        let mut session = fresh();
        session.input(&hello.bytes());
        session.take(usize::MAX);
        assert!(session.records()[0].payload.len() > 49, "a hello with a future");
        assert_eq!(session.peer.handshake(), None);
    }
}

#[test]
fn http_without_tls_is_told_so() {
    for pieces in [1, 3, 1000] {
        let mut session = fresh();
        session.piece_bytes = pieces;
        session.input(&Request::get("/device/firmware?ott=x").bytes());
        let mut answer = Vec::new();
        loop {
            let taken = session.peer.take(session.clock.now(), 10);
            if taken.is_empty() {
                break;
            }
            answer.extend(taken);
        }
        let (reply, length) = Reply::parse(&answer, false).expect("an answer");
        assert_eq!((reply.status, length), (400, answer.len()));
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"https_required\"}");
        assert!(reply.says_close() && session.peer.connection().wants_shutdown());
        assert_eq!(session.peer.handshake(), Some(Handshake::Failed(TlsFailure::PlainHttp)));
        let outcomes: Vec<Outcome> = session.peer.reports().iter().map(|r| r.outcome).collect();
        assert_eq!(outcomes, [Outcome::Refused(Refusal::NotTls)]);
        session.peer.eof(session.clock.now());
        assert_eq!(session.peer.closed(), Some(CloseReason::Refused));
    }
}

#[test]
fn tls_on_the_plain_port_is_closed_without_an_answer() {
    if otter_tests::tls::Beneath::of_this_process().is_some() {
        return;
    }
    for hello in [Hello::new().bytes(), Hello::esp8266_probe(1).bytes(), vec![HANDSHAKE]] {
        let mut exchange = Scene::new().exchange();
        exchange.input(&hello);
        assert_eq!(exchange.peer.closed(), Some(CloseReason::Refused));
        assert!(exchange.heard().bytes.is_empty() && exchange.peer.reports().is_empty());
    }
}

#[test]
fn old_versions_are_told_that_they_are_old() {
    for minor in [0, 1, 2] {
        let hello = Hello { version: [3, minor], ..Hello::new() };
        let mut wire = hello.bytes();
        wire[2] = minor;
        let nothing = Some(Handshake::Failed(TlsFailure::NothingInCommon));
        assert_eq!(refused(&wire), (nothing, Some(Alert(2, Alert::PROTOCOL_VERSION))), "{minor}");
    }
}

#[test]
fn key_exchange_by_rsa_and_block_ciphers_are_nothing_in_common() {
    let axtls = [0x002f, 0x0035, 0x003c, 0x003d];
    let rsa_gcm = [0x009c, 0x009d];
    let ecdhe_cbc = [0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc027];
    let dhe = [0x009e, 0x0033];
    for suites in [&axtls[..], &rsa_gcm, &ecdhe_cbc, &dhe] {
        let nothing = Some(Handshake::Failed(TlsFailure::NothingInCommon));
        let verdict = refused(&Hello::new().with_suites(suites).bytes());
        assert_eq!(verdict, (nothing, Some(Alert(2, Alert::HANDSHAKE_FAILURE))), "{suites:x?}");
    }
}

/// A key of another kind than the client can check, and groups that nobody here has.
#[test]
fn signatures_and_groups_that_do_not_meet() {
    let without = |kind: u16, content: Vec<u8>| {
        let mut hello = Hello::new();
        hello.extensions.retain(|(other, _)| *other != kind);
        hello.extensions.push((kind, content));
        hello
    };
    // ECDSA with SHA-1 alone; the group sect571r1 alone.
    for hello in [without(13, vec![0, 2, 2, 3]), without(10, vec![0, 2, 0, 14])] {
        let (verdict, alert) = refused(&hello.bytes());
        assert_eq!(verdict, Some(Handshake::Failed(TlsFailure::NothingInCommon)));
        assert_eq!(alert, Some(Alert(2, Alert::HANDSHAKE_FAILURE)));
    }
}

#[test]
fn records_that_are_none() {
    let hello = Hello::new().bytes();
    let mut overlong = vec![22, 3, 3, 0x48, 0x01];
    overlong.extend([0; 20_000]);
    let cases: [(&str, &[u8]); 6] = [
        ("a kind that there is not", &[99, 3, 3, 0, 1, 0]),
        ("data first", &[23, 3, 3, 0, 1, 0]),
        ("an empty record", &[22, 3, 3, 0, 0]),
        ("another message", &[22, 3, 3, 0, 4, 2, 0, 0, 0]),
        ("a record that is too long", &overlong),
        ("SSL 2", &[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10]),
    ];
    for (what, wire) in cases {
        let (verdict, alert) = refused(wire);
        assert_eq!(verdict, Some(Handshake::Failed(TlsFailure::Malformed)), "{what}");
        assert!(alert.is_some_and(|alert| alert.0 == 2), "{what}: {alert:?}");
    }
    // Half a hello and then nothing.
    let mut session = fresh();
    session.input(&hello[..hello.len() - 1]);
    session.peer.eof(session.clock.now());
    assert_eq!(session.peer.handshake(), Some(Handshake::Failed(TlsFailure::Abandoned)));
}

/// A record that was changed on its way ends the connection, and is never read.
#[test]
fn a_record_that_was_changed_ends_it() {
    for (name, terms) in crate::versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        session.client.say(&health());
        let mut wire = session.client.take_wire();
        let last = wire.len() - 1;
        wire[last] ^= 1;
        session.input(&wire);
        assert!(session.peer.query().is_none() && session.peer.reports().is_empty(), "{name}");
        assert_eq!(session.peer.handshake(), Some(Handshake::Full), "{name}");
        session.settle();
        assert!(session.client.end().is_some(), "it is told so: {name}");
        assert_eq!(session.close(), CloseReason::Tls, "{name}");
    }
}

/// A part of a record and then the end of the socket: what was whole before is answered.
#[test]
fn a_record_that_is_cut_short() {
    for (name, terms) in crate::versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        session.client.say(&health());
        session.client.say(&health());
        let wire = session.client.take_wire();
        session.input(&wire[..wire.len() - 1]);
        session.peer.eof(session.clock.now());
        session.settle();
        assert_eq!(session.peer.reports().len(), 1, "{name}");
        assert!(session.client.take_heard().starts_with(b"HTTP/1.1 200"), "{name}");
        assert_eq!(session.peer.closed(), Some(CloseReason::Peer), "{name}");
    }
}

/// A hello without an end: TLS itself says when that is enough.
#[test]
fn a_hello_that_never_ends() {
    for fragment in [1, 100, 16_000] {
        let mut session = Session::new(&Scene::new(), &Terms::only(V1_2));
        let mut message = vec![1, 0xff, 0xff, 0xff];
        message.resize(fragment.max(4), 0);
        let mut fed = 0;
        while !session.peer.connection().wants_shutdown() && session.peer.closed().is_none() {
            let payload = std::mem::replace(&mut message, vec![0; fragment]);
            let wire = Record { kind: HANDSHAKE, payload }.bytes();
            session.input(&wire);
            session.settle();
            fed += wire.len();
            assert!(fed < 100_000, "{fed} bytes in records of {fragment}");
        }
        assert_eq!(session.peer.handshake(), Some(Handshake::Failed(TlsFailure::Malformed)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_answered_with_an_alert_or_nothing(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..8),
        is_record in any::<bool>(),
    ) {
        let mut session = fresh();
        for piece in pieces {
            let wire = if is_record {
                Record { kind: HANDSHAKE, payload: piece }.bytes()
            } else {
                piece
            };
            session.input(&wire);
            while session.take(usize::MAX) > 0 {}
        }
        prop_assert!(session.peer.query().is_none());
        session.close();
    }

    #[test]
    fn a_hello_with_changes_is_no_trouble(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        is_probe in any::<bool>(),
    ) {
        let hello = if is_probe { Hello::esp8266_probe(1) } else { Hello::new() };
        let mut wire = hello.bytes();
        for (index, byte) in changes {
            let index = index.index(wire.len());
            wire[index] = byte;
        }
        let mut session = fresh();
        session.input(&wire);
        session.take(usize::MAX);
        session.close();
    }
}
