//! The laws of docs/design.md 8 with ciphertext: however it is cut and in whatever order things
//! happen. [`otter_tests::Watched`] checks most of them at every step.

use std::sync::Arc;
use std::time::Duration;

use otter_protocol::{Answer, CloseReason, Config, QueryId};
use otter_tests::tls::{Client, Session, Terms, V1_2, V1_3};
use otter_tests::{Clock, Sample, Scene, Watched, samples};
use proptest::prelude::*;
use rustls::{ClientConfig, ServerConfig};

use crate::{health, versions};

/// Settings of both sides, made once: sessions are taken up again, as devices do.
type Pair = (Arc<ServerConfig>, Arc<ClientConfig>);

fn pairs() -> Vec<Pair> {
    let small = Terms { fragment_max: Some(517), ..Terms::only(V1_2) };
    let kinds = [Terms::only(V1_2), Terms::only(V1_3), small];
    kinds.iter().map(|terms| (terms.server(), terms.client())).collect()
}

/// All that came of a request.
#[derive(Debug, PartialEq)]
struct Outcome {
    heard: String,
    end: String,
    reports: String,
    closed: Option<CloseReason>,
}

fn outcome(sample: &Sample, pair: &Pair, piece_bytes: usize, take_bytes_max: usize) -> Outcome {
    let mut session = Session::with(&sample.scene, &pair.0, &pair.1);
    (session.piece_bytes, session.take_bytes_max) = (piece_bytes, take_bytes_max);
    let heard = session.request(&sample.bytes);
    Outcome {
        heard: String::from_utf8_lossy(&heard).into_owned(),
        end: format!("{:?}", session.client.end()),
        reports: format!("{:?}", session.peer.reports()),
        closed: session.peer.closed(),
    }
}

/// Law 1: the same plaintext, and the same as without TLS.
#[test]
fn ciphertext_may_be_cut_anywhere_and_taken_in_any_pieces() {
    for pair in pairs() {
        for sample in samples() {
            let whole = outcome(&sample, &pair, usize::MAX, usize::MAX);
            let mut plain = sample.scene.exchange();
            assert_eq!(plain.request(&sample.bytes).text(), whole.heard, "{}", sample.name);
            for (piece, take) in [(1, usize::MAX), (7, 1), (100, 13), (1460, 536), (4096, 4097)] {
                let cut = outcome(&sample, &pair, piece, take);
                assert_eq!(cut, whole, "{} by {piece} and {take}", sample.name);
            }
        }
    }
}

/// Law 1 for each place there is, of a request and of its answer.
#[test]
fn one_cut_at_every_place() {
    for (name, terms) in versions() {
        let scene = Scene::new();
        let pair = (terms.server(), terms.client());
        let mut cut = 0;
        loop {
            let mut session = Session::with(&scene, &pair.0, &pair.1);
            session.settle();
            session.client.say(&health());
            let wire = session.client.take_wire();
            let (before, after) = wire.split_at(cut.min(wire.len()));
            session.input(before);
            session.input(after);
            session.take(cut);
            session.settle();
            let heard = session.client.take_heard();
            assert!(heard.ends_with(b"{\"healthcheck\":true}"), "{name} cut at {cut}");
            cut += 1;
            if cut > wire.len() {
                break;
            }
        }
    }
}

/// Law 6: between requests a connection has neither buffers nor a verdict that waits.
#[test]
fn a_connection_at_rest_is_as_at_its_beginning() {
    for (name, terms) in versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        let before = (session.peer.deadline(), session.peer.connection().is_idle());
        for _ in 0..3 {
            assert!(session.request(&health()).starts_with(b"HTTP/1.1 200"));
        }
        let connection = session.peer.connection();
        assert_eq!((connection.poll_timeout(), connection.is_idle()), before, "{name}");
        assert!(connection.transmit().is_none() && connection.wants_read(), "{name}");
    }
}

/// One call of a driver, or of a client, sensible or not.
#[derive(Clone, Debug)]
enum Op {
    Say(prop::sample::Index),
    SayEnd,
    UpdateKeys,
    /// Hands in so much of what the client wants to send.
    Feed(usize),
    Noise(Vec<u8>),
    Ask,
    Answer(bool),
    Stale(u32),
    Take(usize),
    TakeVectored(usize),
    Wait(u64),
    Deadline,
    Eof,
    Reset,
    Shutdown,
    Settle,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => any::<prop::sample::Index>().prop_map(Op::Say),
        1 => Just(Op::SayEnd),
        2 => Just(Op::UpdateKeys),
        8 => (1..2000usize).prop_map(Op::Feed),
        1 => prop::collection::vec(any::<u8>(), 1..60).prop_map(Op::Noise),
        8 => Just(Op::Ask),
        8 => any::<bool>().prop_map(Op::Answer),
        1 => (0..5u32).prop_map(Op::Stale),
        8 => (1..6000usize).prop_map(Op::Take),
        2 => (0..6000usize).prop_map(Op::TakeVectored),
        2 => (0..20_000u64).prop_map(Op::Wait),
        1 => Just(Op::Deadline),
        1 => Just(Op::Eof),
        1 => Just(Op::Reset),
        1 => Just(Op::Shutdown),
        6 => Just(Op::Settle),
    ];
    prop::collection::vec(op, 1..80)
}

/// A session that is driven by [`Op`]s, by a driver that reads whether it should or not.
struct Driven {
    session: Session,
    samples: Vec<Sample>,
    /// What the client wants to send and was not handed in.
    up: Vec<u8>,
    asked: Option<(QueryId, otter_protocol::Query)>,
}

impl Driven {
    fn new(pair: &Pair) -> Self {
        let samples = samples();
        let scene = &samples.iter().find(|s| s.name == "redeem").expect("a sample").scene;
        let session = Session::with(scene, &pair.0, &pair.1);
        Self { session, samples, up: Vec::new(), asked: None }
    }

    fn run(mut self, ops: &[Op]) {
        for op in ops {
            self.step(op);
            let more = self.session.client.take_wire();
            self.up.extend(more);
        }
        self.answer(true);
        self.session.close();
    }

    fn step(&mut self, op: &Op) {
        let session = &mut self.session;
        let now = session.clock.now();
        match op {
            Op::Say(sample) => session.client.say(&sample.get(&self.samples).bytes),
            Op::SayEnd => session.client.say_end(),
            Op::UpdateKeys => drop(session.client.update_keys()),
            Op::Feed(bytes) => {
                let fed: Vec<u8> = self.up.drain(..self.up.len().min(*bytes)).collect();
                session.input(&fed);
            }
            Op::Noise(bytes) => session.input(bytes),
            Op::Ask => {
                if let Some(asked) = session.peer.query() {
                    self.asked = Some(asked);
                }
            }
            Op::Answer(is_true) => self.answer(*is_true),
            Op::Stale(id) if self.asked.as_ref().is_none_or(|(open, _)| open.0 != *id) => {
                session.peer.answer(now, QueryId(*id + 1000), Answer::Unavailable);
            }
            Op::Stale(_) => {}
            Op::Take(bytes) => {
                session.take(*bytes);
            }
            Op::TakeVectored(bytes) => {
                let taken = session.peer.take_vectored(now, *bytes);
                session.client.hear(&taken);
            }
            Op::Wait(ms) => session.advance(Duration::from_millis(*ms)),
            Op::Deadline if session.peer.deadline().is_some() => {
                session.expire();
            }
            Op::Deadline => {}
            Op::Eof => session.peer.eof(now),
            Op::Reset => session.peer.reset(now),
            Op::Shutdown => session.peer.shutdown(now),
            Op::Settle => {
                self.answer(true);
                let fed = std::mem::take(&mut self.up);
                self.session.input(&fed);
                self.session.settle();
            }
        }
    }

    fn answer(&mut self, is_true: bool) {
        let Some((id, query)) = self.asked.take() else { return };
        let session = &mut self.session;
        let answer = if is_true { session.store.answer(&query) } else { Answer::Unavailable };
        session.peer.answer(session.clock.now(), id, answer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Laws 2 to 9: nothing panics, nothing hangs, everything closes in the end.
    #[test]
    fn any_calls_in_any_order(which in 0..3usize, ops in ops()) {
        Driven::new(&pairs()[which]).run(&ops);
    }
}

/// Law 5: what is kept of a peer that is not listened to. A driver that asks `wants_read` gives
/// what one read has; of that a connection keeps no more than a head, a body, one read and one
/// record.
#[test]
fn a_busy_connection_stops_reading() {
    for (name, terms) in versions() {
        let mut session = Session::open(&Scene::new(), &terms);
        session.client.say(&health());
        let mut fed = 0;
        while session.peer.connection().wants_read() {
            session.client.say(&vec![b'x'; 16_000]);
            let wire = session.client.take_wire();
            session.input(&wire);
            fed += wire.len();
            assert!(fed < 8192 + 16_384 + 65_536 + 16_640, "{name}: {fed}");
        }
    }
}

/// Law 10: the same plaintext each time, although no two connections have a byte in common.
#[test]
fn plaintext_is_the_same_and_ciphertext_is_not() {
    for (name, terms) in versions() {
        let pair = (terms.server(), terms.client());
        let run = || {
            let mut session = Session::with(&Scene::new(), &pair.0, &pair.1);
            session.settle();
            session.records();
            let heard = session.request(&health());
            (heard, session.records(), session.peer.deadline().map(|at| session.clock.offset(at)))
        };
        let (first, second, third) = (run(), run(), run());
        assert_eq!((&first.0, &first.2), (&second.0, &second.2), "{name}");
        assert_ne!(first.1, second.1, "{name}");
        let sizes = |records: &[otter_tests::tls::Record]| {
            records.iter().map(|record| record.payload.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&second.1), sizes(&third.1), "{name}: as much of it each time");
    }
}

/// Law 2: more sent than shown is the one mistake that panics, in the handshake as after it.
#[test]
fn more_sent_than_shown_panics() {
    let clock = Clock::start();
    let mut client = Client::new(Terms::default().client());
    let mut peer =
        Watched::tls(Arc::new(Config::default()), Terms::default().server(), clock.now());
    peer.input(clock.now(), &client.take_wire());
    let sent = std::panic::AssertUnwindSafe(|| peer.sent(clock.now(), 1_000_000));
    assert!(std::panic::catch_unwind(sent).is_err());
}
