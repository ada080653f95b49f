//! How large records are: one for a check-in, and none larger than the peer can take.

use otter_tests::scene::{KEY, Redeemable, registration};
use otter_tests::tls::{APPLICATION, HANDSHAKE, HEADER_BYTES, Hello, Key, Record, Session, Terms};
use otter_tests::{Draft, Request, Scene};

use crate::versions;

/// What sealing adds at most: an explicit nonce and a tag, or a kind and a tag.
const SEALING_BYTES: usize = 24;

fn largest(records: &[Record]) -> usize {
    let plain = |record: &Record| match record.kind {
        APPLICATION => record.payload.len().saturating_sub(17),
        _ => record.payload.len(),
    };
    records.iter().map(plain).max().unwrap_or_default()
}

#[test]
fn a_check_in_reply_is_one_record() {
    let body = registration().wrapped("registration");
    let offering = Scene::new().with_release("1.2.0", 9000).with_auto_update();
    for (name, terms) in versions() {
        for scene in [&Scene::new(), &offering] {
            let mut session = Session::open(scene, &terms);
            let request = Request::check_in(KEY, &body).without("Connection").bytes();
            let answer = session.request(&request);
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{name}");
            let sent = session.records();
            assert_eq!(sent.len(), 1, "{name}");
            assert!(sent[0].payload.len() <= answer.len() + SEALING_BYTES, "{name}");
        }
    }
}

/// Also the last one of a connection, and then the alert.
#[test]
fn a_closing_check_in_reply_is_one_record_and_an_alert() {
    for (name, terms) in versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        let body = registration().wrapped("registration");
        session.request(&Request::check_in(KEY, &body).bytes());
        let sent = session.records();
        assert_eq!(sent.len(), 2, "{name}");
        assert!(sent[1].payload.len() <= 2 + SEALING_BYTES, "{name}");
    }
}

#[test]
fn no_record_is_larger_than_the_listener_says() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 50_000));
    for (name, terms) in versions() {
        for fragment in [512, 1024, 1300, 2048, 4096, 16_384] {
            // A certificate that does not fit into the smallest.
            let fragment_max = Some(fragment + HEADER_BYTES);
            let terms = Terms { fragment_max, key: Key::Rsa, ..terms.clone() };
            let mut session = Session::new(&image.scene, &terms);
            let answer = session.request(&image.get().bytes());
            assert!(answer.len() > 50_000, "{name}, {fragment}");
            let sent = session.records();
            let largest = largest(&sent);
            let most = if name == "TLS 1.2" { fragment + 7 } else { fragment };
            assert!((fragment..=most).contains(&largest), "{name}: {largest} for {fragment}");
            let handshake: Vec<Record> =
                sent.into_iter().filter(|record| record.kind == HANDSHAKE).collect();
            assert!(
                handshake.iter().all(|record| record.payload.len() <= fragment + SEALING_BYTES)
            );
        }
    }
}

#[test]
fn a_hello_for_tls_1_3_can_be_made_by_hand() {
    let sent = answer_to(&Terms::default(), &tls_1_3(Hello::new()));
    assert!(sent.iter().any(|record| record.kind == APPLICATION), "encrypted: {sent:?}");
}

/// Whoever asks for small records gets them from the first one on.
#[test]
fn a_hello_may_ask_for_small_records() {
    for key in [Key::Rsa, Key::P256] {
        let terms = Terms { key, ..Terms::default() };
        for code in 1..=4 {
            let fragment = 512 << (code - 1);
            for hello in [Hello::new(), tls_1_3(Hello::new())] {
                let sent = answer_to(&terms, &hello.with_fragments(code));
                assert!(largest(&sent) <= fragment, "{key:?}: {} of {fragment}", largest(&sent));
                if (key, code) == (Key::Rsa, 1) {
                    assert!(
                        sent.len() > 2 && largest(&sent) == fragment,
                        "a certificate in pieces"
                    );
                }
            }
        }
    }
}

#[test]
fn the_smaller_of_two_sizes_holds() {
    for (ours, code, holds) in [(512, 4, 512), (700, 1, 512), (16_384, 1, 512), (700, 2, 700)] {
        let terms = Terms { fragment_max: Some(ours + 5), key: Key::Rsa, ..Terms::default() };
        let sent = answer_to(&terms, &Hello::new().with_fragments(code));
        assert_eq!(largest(&sent), holds, "{ours} here, {code} there");
    }
}

/// Codes that there are not, and contents that are none, ask for nothing.
#[test]
fn a_size_that_there_is_not_is_ignored() {
    let terms = Terms { key: Key::Rsa, ..Terms::default() };
    let mut odd = Hello::new();
    odd.extensions.push((1, vec![1, 1]));
    let mut empty = Hello::new();
    empty.extensions.push((1, Vec::new()));
    for hello in [Hello::new().with_fragments(0), Hello::new().with_fragments(5), odd, empty] {
        assert!(largest(&answer_to(&terms, &hello)) > 700, "one whole certificate");
    }
}

/// rustls does not confirm the size, and so nobody may rely on it: a ServerHello without it.
#[test]
fn the_size_is_not_confirmed() {
    let with = answer_to(&Terms::default(), &Hello::new().with_fragments(1));
    let without = answer_to(&Terms::default(), &Hello::new());
    assert_eq!(with[0].payload[..4], without[0].payload[..4], "kind and length");
}

/// Room for a server that rustls would not have: each handshake fails, none panics.
#[test]
fn a_size_that_rustls_does_not_take_fails_each_handshake() {
    let scene = Scene::new();
    let small = Terms { fragment_max: Some(3), ..Terms::default() };
    let large = Terms { fragment_max: Some(20_000), ..Terms::default() };
    for terms in [small, large] {
        let mut session = Session::new(&scene, &terms);
        session.settle();
        assert!(session.client.is_handshaking());
        assert!(session.peer.handshake().is_some());
        session.close();
    }
}

/// What the server sends first.
fn answer_to(terms: &Terms, hello: &Hello) -> Vec<Record> {
    let mut session = Session::new(&Scene::new(), terms);
    session.input(&hello.bytes());
    while session.take(usize::MAX) > 0 {}
    session.records()
}

/// With supported_versions, and a share of X25519 that nobody has the key of.
fn tls_1_3(mut hello: Hello) -> Hello {
    hello.suites.insert(0, 0x1301);
    hello.extensions[0].1 = vec![0, 2, 0, 29];
    hello.session = vec![9; 32];
    hello.extensions.push((43, vec![2, 3, 4]));
    let share = [&[0, 36, 0, 29, 0, 32][..], &[9; 32]].concat();
    hello.extensions.push((51, share));
    hello
}
