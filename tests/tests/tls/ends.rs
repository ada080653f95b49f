//! How connections end: an end that is meant is announced, and no other.

use std::io;
use std::sync::Arc;

use otter_protocol::{
    Answer, CloseReason, Config, Connection, Kind, Legible, Offer, Query, Redemption, Release,
    ReleaseId,
};
use otter_tests::scene::{self, KEY, Redeemable, registration};
use otter_tests::tls::{Client, End, Session, Terms};
use otter_tests::{Clock, Draft, Request, Scene};

use crate::{health, versions};

#[test]
fn the_last_answer_is_followed_by_close_notify_and_then_the_socket_ends() {
    for (name, terms) in versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        let body = registration().wrapped("registration");
        session.client.say(&Request::check_in(KEY, &body).bytes());
        let wire = session.client.take_wire();
        session.input(&wire);
        while session.answer() {}
        while session.client.heard().is_empty() {
            assert!(!session.peer.connection().wants_shutdown(), "{name}: an answer is due");
            assert!(session.take(50) > 0, "{name}");
        }
        assert_eq!(session.client.end(), None, "{name}: not yet");
        while session.client.end().is_none() {
            assert!(!session.peer.connection().wants_shutdown(), "{name}: the alert is due");
            assert!(session.take(1) > 0, "{name}");
        }
        assert_eq!(session.client.end(), Some(&End::Meant), "{name}");
        assert!(session.peer.connection().wants_shutdown(), "{name}");
        assert!(session.peer.connection().transmit().is_none(), "{name}: only one");
    }
}

#[test]
fn an_idle_connection_is_closed_with_close_notify() {
    for (name, terms) in versions() {
        for reason in [CloseReason::Idle, CloseReason::Shutdown, CloseReason::Peer] {
            let mut session = Session::open(&Scene::new(), &terms);
            let now = session.clock.now();
            if reason == CloseReason::Idle {
                session.expire();
            } else if reason == CloseReason::Shutdown {
                session.peer.shutdown(now);
            } else {
                session.client.say_end();
                let wire = session.client.take_wire();
                session.input(&wire);
            }
            assert_eq!(session.peer.closed(), Some(reason), "{name}");
            assert!(session.peer.connection().transmit().is_some(), "{name}: worth one try");
            session.settle();
            assert_eq!(session.client.end(), Some(&End::Meant), "{name}: {reason:?}");
            assert_eq!(session.records().len(), 1, "{name}: one alert");
        }
    }
}

/// Half-close: the client has said all and waits for the answer.
#[test]
fn a_client_may_end_before_its_answer() {
    for (name, terms) in versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        session
            .client
            .say(&Request::check_in(KEY, &registration().wrapped("registration")).bytes());
        session.client.say_end();
        session.settle();
        let answer = session.client.take_heard();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{name}");
        assert_eq!(session.client.end(), Some(&End::Meant), "{name}");
        assert_eq!(session.peer.closed(), Some(CloseReason::Peer), "{name}");
    }
}

/// Without close_notify an end of the socket cuts what is half there, as without TLS.
#[test]
fn an_end_that_nothing_announced_in_the_middle_of_a_request() {
    for (name, terms) in versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        let request = health();
        session.request(&request[..request.len() - 1]);
        assert_eq!(session.close(), CloseReason::Peer, "{name}");
        assert!(session.peer.reports().is_empty(), "{name}");
    }
}

/// What follows the end of a client is not looked at, nor kept.
#[test]
fn after_its_end_a_client_is_not_listened_to() {
    for (name, terms) in versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        session
            .client
            .say(&Request::check_in(KEY, &registration().wrapped("registration")).bytes());
        session.client.say_end();
        let wire = session.client.take_wire();
        session.input(&wire);
        for _ in 0..100 {
            session.input(&[0x17; 4096]);
        }
        session.settle();
        assert!(session.client.take_heard().starts_with(b"HTTP/1.1 200 OK\r\n"), "{name}");
        assert_eq!(session.peer.closed(), Some(CloseReason::Peer), "{name}");
    }
}

#[test]
fn a_tail_that_is_not_claimed_ends_without_close_notify() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 9000));
    for (name, terms) in versions() {
        let mut session = Session::open(&image.scene, &terms);
        session.client.say(&image.get().bytes());
        loop {
            let wire = session.client.take_wire();
            session.input(&wire);
            let Some((id, query)) = session.peer.query() else {
                assert!(session.take(700) > 0, "{name}");
                continue;
            };
            let is_claim = matches!(query, Query::Claim { .. });
            let answer =
                if is_claim { Answer::Claimed(false) } else { session.store.answer(&query) };
            let is_over = matches!(answer, Answer::Claimed(_));
            session.peer.answer(session.clock.now(), id, answer);
            if is_over {
                break;
            }
        }
        assert_eq!(session.peer.closed(), Some(CloseReason::Unclaimed), "{name}");
        session.settle();
        let heard = session.client.take_heard();
        let head = heard.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        assert_eq!(heard.len() - head, 9000 - 4096, "{name}: the prefix");
        assert_eq!(session.client.end(), None, "{name}: it cannot pass for the whole");
    }
}

/// An image that is there up to a point.
#[derive(Clone, Debug)]
struct Torn {
    bytes: Vec<u8>,
    good: usize,
    fails: bool,
}

impl AsRef<[u8]> for Torn {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Legible for Torn {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let left = self.bytes[..self.good].get(offset as usize..).unwrap_or_default();
        if left.is_empty() && self.fails {
            return Err(io::Error::other("the disk is gone"));
        }
        // A little at a time, as a file may.
        let n = left.len().min(buffer.len()).min(5000);
        buffer[..n].copy_from_slice(&left[..n]);
        Ok(&buffer[..n])
    }
}

/// A connection that serves such an image to whoever asks, until it closes.
fn fetch(image: &Torn, terms: &Terms) -> (Client, Vec<u8>, Option<CloseReason>) {
    let now = Clock::start().now();
    let mut connection: Connection<Torn> =
        Connection::tls(Arc::new(Config::default()), terms.server(), now);
    let mut client = Client::new(terms.client());
    client.say(&Request::get(&format!("/device/firmware?ott={}", "a".repeat(64))).bytes());
    let mut heard = Vec::new();
    for _ in 0..10_000 {
        let wire = client.take_wire();
        if !wire.is_empty() {
            connection.handle_input(now, &wire);
        }
        if let Some((id, query)) = connection.poll_query() {
            connection.handle_answer(now, id, answer(&query, image));
        }
        if let Some(transmit) = connection.transmit() {
            let taken = transmit.as_slice()[..transmit.as_slice().len().min(1000)].to_vec();
            connection.handle_sent(now, taken.len());
            client.hear(&taken);
            heard.extend(client.take_heard());
        } else if connection.closed().is_some() || connection.wants_shutdown() {
            break;
        }
    }
    (client, heard, connection.closed())
}

fn answer(query: &Query, image: &Torn) -> Answer<Torn> {
    let is_start = matches!(query, Query::Start { .. });
    match query {
        Query::Redeem { .. } | Query::Start { .. } => {
            let offer = Offer {
                release: ReleaseId([1; 16]),
                version: "1.2.0".into(),
                platform: "arduino".into(),
                env_hash: None,
                sha256: [1; 32],
                md5: [1; 16],
                size: image.bytes.len() as u64,
                kind: Kind::Image,
            };
            Answer::Redemption(Redemption::Ready {
                device: scene::device(scene::DEVICE),
                release: Release { offer: Arc::new(offer), image: image.clone() },
                started: is_start,
                forced: false,
            })
        }
        Query::Claim { .. } => Answer::Claimed(true),
        Query::Identify(_) | Query::Fetch { .. } | Query::Record(_) | Query::Push { .. } => {
            Answer::Unavailable
        }
    }
}

#[test]
fn an_image_that_can_be_read_is_whole() {
    let bytes: Vec<u8> = (0..40_000).map(|n| (n % 251) as u8).collect();
    let image = Torn { good: bytes.len(), bytes, fails: false };
    for (name, terms) in versions() {
        let (client, heard, _) = fetch(&image, &terms);
        assert!(heard.ends_with(&image.bytes), "{name}");
        assert_eq!(client.end(), Some(&End::Meant), "{name}");
    }
}

#[test]
fn an_image_that_cannot_be_read_any_more_cannot_pass_for_the_whole() {
    let bytes: Vec<u8> = (0..40_000).map(|n| (n % 251) as u8).collect();
    for (name, terms) in versions() {
        for good in [0, 1, 4999, 5000, 16_384, 30_000, 35_904, 35_905, 39_999] {
            for fails in [true, false] {
                let image = Torn { bytes: bytes.clone(), good, fails };
                let (client, heard, closed) = fetch(&image, &terms);
                assert_eq!(closed, Some(CloseReason::Torn), "{name}, {good} good");
                assert_eq!(client.end(), None, "{name}, {good} good: no close_notify");
                let head = heard.windows(4).position(|end| end == b"\r\n\r\n");
                let body = head.map_or(0, |at| heard.len() - at - 4);
                assert!(body <= good, "{name}, {good} good: {body} bytes");
            }
        }
    }
}
