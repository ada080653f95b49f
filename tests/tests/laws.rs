//! Laws 2 to 10 of docs/design.md 8 under any calls in any order: [`Watched`] checks most of them
//! at every step, so these tests only have to get it into every state there is.
//!
//! [`Watched`]: otter_tests::Watched

use std::time::Duration;

use otter_protocol::{
    Answer, CloseReason, DeviceStanding, KeyStanding, QueryId, Redemption, Standing,
};
use otter_tests::scene::token_text;
use otter_tests::tls::Beneath;
use otter_tests::{Draft, Exchange, Ledger, Request, Sample, Scene, samples};
use proptest::prelude::*;

/// One call of a driver, sensible or not.
#[derive(Clone, Debug)]
enum Op {
    /// A whole sample, or the beginning of one.
    Sample(prop::sample::Index, Option<prop::sample::Index>),
    /// A sample with some bytes changed.
    Mutant(prop::sample::Index, Vec<(prop::sample::Index, u8)>),
    Bytes(Vec<u8>),
    Ask,
    Answer(Said),
    Stale(u32),
    Take(usize),
    TakeVectored(usize),
    TakeNothing,
    Wait(u64),
    EarlyTimeout,
    Deadline,
    Eof,
    Reset,
    Shutdown,
    Settle,
}

/// How a query is answered.
#[derive(Clone, Copy, Debug)]
enum Said {
    Truth,
    Unavailable,
    /// The answer to some other query.
    Nonsense(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let index = any::<prop::sample::Index>;
    let said = prop_oneof![
        6 => Just(Said::Truth),
        1 => Just(Said::Unavailable),
        2 => (0..8u8).prop_map(Said::Nonsense),
    ];
    let op = prop_oneof![
        6 => (index(), prop::option::weighted(0.3, index())).prop_map(|(s, c)| Op::Sample(s, c)),
        3 => (index(), prop::collection::vec((index(), any::<u8>()), 1..4))
            .prop_map(|(s, changes)| Op::Mutant(s, changes)),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Op::Bytes),
        8 => Just(Op::Ask),
        8 => said.prop_map(Op::Answer),
        1 => (0..5u32).prop_map(Op::Stale),
        6 => (0..6000usize).prop_map(Op::Take),
        2 => (0..6000usize).prop_map(Op::TakeVectored),
        1 => Just(Op::TakeNothing),
        2 => (0..20_000u64).prop_map(Op::Wait),
        1 => Just(Op::EarlyTimeout),
        2 => Just(Op::Deadline),
        1 => Just(Op::Eof),
        1 => Just(Op::Reset),
        1 => Just(Op::Shutdown),
        4 => Just(Op::Settle),
    ];
    prop::collection::vec(op, 1..60)
}

/// An exchange that is driven by [`Op`]s, and all that was seen of it.
struct Driven {
    exchange: Exchange,
    samples: Vec<Sample>,
    is_asked: bool,
    transcript: Vec<String>,
}

impl Driven {
    fn new(samples: &[Sample]) -> Self {
        // The scene in which tokens are redeemed has all that the others ask for as well.
        let scene = &samples.iter().find(|s| s.name == "redeem").expect("a sample").scene;
        let exchange = scene.exchange();
        Self { exchange, samples: samples.to_vec(), is_asked: false, transcript: Vec::new() }
    }

    fn run(mut self, ops: &[Op]) -> Vec<String> {
        for op in ops {
            self.step(op);
            self.note();
        }
        let reason = self.end();
        self.transcript.push(format!("{reason:?}"));
        self.transcript
    }

    fn step(&mut self, op: &Op) {
        let now = self.exchange.clock.now();
        match op {
            Op::Sample(sample, cut) => {
                let bytes = &sample.get(&self.samples).bytes;
                let end = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
                self.exchange.input(&bytes[..end]);
            }
            Op::Mutant(sample, changes) => {
                let mut bytes = sample.get(&self.samples).bytes.clone();
                for (at, value) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *value;
                }
                self.exchange.input(&bytes);
            }
            Op::Bytes(bytes) => self.exchange.input(bytes),
            Op::Ask => self.is_asked |= self.exchange.ask().is_some(),
            Op::Answer(said) => self.answer(*said),
            Op::Stale(id) => self.exchange.peer.answer(now, QueryId(1000 + id), Answer::Kept),
            Op::Take(bytes_max) => {
                self.exchange.take(*bytes_max);
            }
            Op::TakeVectored(bytes_max) => {
                self.exchange.peer.take_vectored(now, *bytes_max);
            }
            Op::TakeNothing => self.exchange.peer.sent(now, 0),
            Op::Wait(ms) => self.exchange.advance(Duration::from_millis(*ms)),
            Op::EarlyTimeout => self.exchange.peer.timeout(now),
            Op::Deadline => self.deadline(),
            Op::Eof => self.exchange.eof(),
            Op::Reset => self.exchange.peer.reset(now),
            Op::Shutdown => self.exchange.peer.shutdown(now),
            Op::Settle => {
                if self.is_asked {
                    self.answer(Said::Truth);
                }
                self.exchange.settle();
            }
        }
    }

    fn answer(&mut self, said: Said) {
        if !std::mem::take(&mut self.is_asked) {
            return;
        }
        match said {
            Said::Truth => self.exchange.answer_truly(),
            Said::Unavailable => self.exchange.answer(Answer::Unavailable),
            Said::Nonsense(which) => self.exchange.answer(nonsense(which)),
        }
    }

    fn deadline(&mut self) {
        if self.exchange.deadline().is_some() {
            self.exchange.expire();
        }
    }

    fn note(&mut self) {
        let heard = self.exchange.heard();
        let deadline = self.exchange.deadline();
        self.transcript.push(format!("{} {:?} {deadline:?}", heard.text(), heard.queries));
    }

    fn end(&mut self) -> CloseReason {
        self.answer(Said::Truth);
        self.exchange.close()
    }
}

fn nonsense(which: u8) -> Answer<bytes::Bytes> {
    match which {
        0 => Answer::Kept,
        1 => Answer::Claimed(false),
        2 => Answer::Claimed(true),
        3 => Answer::Recorded(None),
        4 => Answer::Release(None),
        5 => Answer::Redemption(Redemption::Nothing),
        6 => Answer::Redemption(Redemption::Unknown),
        _ => Answer::Standing(Standing {
            key: KeyStanding::Wrong,
            device: DeviceStanding::Foreign,
            newest: None,
        }),
    }
}

/// A case over TLS begins with a handshake: fewer of them.
fn config(cases: u32) -> ProptestConfig {
    let cases = if Beneath::of_this_process().is_some() { cases / 5 } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(1500))]

    /// Laws 2 to 9: nothing panics, nothing hangs, everything closes in the end.
    #[test]
    fn any_calls_in_any_order(ops in ops()) {
        Driven::new(&samples()).run(&ops);
    }

    /// Law 10: the same inputs at the same times, the same outputs, byte for byte.
    #[test]
    fn the_same_calls_give_the_same_outputs(ops in ops()) {
        let samples = samples();
        prop_assert_eq!(Driven::new(&samples).run(&ops), Driven::new(&samples).run(&ops));
    }

    /// Whatever bytes arrive, there is an answer or silence, and an end.
    #[test]
    fn any_bytes(pieces in pieces()) {
        let mut exchange = Scene::new().exchange();
        for piece in &pieces {
            exchange.input(piece);
            exchange.settle();
        }
        prop_assert!(exchange.heard().queries.is_empty(), "noise is no request");
        exchange.close();
    }

    /// Whatever JSON arrives, there is exactly one answer, in JSON or one of the bare texts.
    #[test]
    fn any_body(
        target in prop::sample::select(TARGETS.to_vec()),
        body in json(),
    ) {
        let request = Request::post(target, &body).key(otter_tests::scene::KEY);
        let reply = Scene::new().exchange().request(&request.bytes()).reply();
        let text = reply.text();
        let bare = ["", "no_such_device", "OTT_API_KEY_NOT_VALID"].contains(&text);
        prop_assert!(bare || reply.json().is_object(), "{}", text);
        prop_assert_ne!(reply.status, 500);
    }
}

const TARGETS: [&str; 3] = ["/device/register", "/device/firmware", "/device/addpush"];

fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)
}

/// JSON that looks like what devices send, with anything in its fields.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:e}")),
        any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
        prop::sample::select(vec![otter_tests::scene::OWNER, otter_tests::scene::DEVICE, "ott"])
            .prop_map(|s| format!("\"{s}\"")),
    ];
    let name = prop::sample::select(vec![
        "mac",
        "udid",
        "owner",
        "version",
        "alias",
        "status",
        "platform",
        "use",
        "forced",
        "push",
        "ott",
        "registration",
        "update",
        "env_hash",
        "firmware",
        "x",
    ]);
    scalar.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            3 => prop::collection::btree_map(name.clone(), inner.clone(), 0..8).prop_map(|fields| {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
            1 => prop::collection::vec(inner, 0..4).prop_map(|v| format!("[{}]", v.join(","))),
        ]
    })
}

/// One step of one of several connections that share a token.
#[derive(Clone, Copy, Debug)]
enum Race {
    Ask,
    Answer,
    Take(usize),
    Deadline,
    Reset,
}

fn races() -> impl Strategy<Value = Vec<(usize, Race)>> {
    let step = prop_oneof![
        5 => Just(Race::Ask),
        5 => Just(Race::Answer),
        5 => (1..6000usize).prop_map(Race::Take),
        1 => Just(Race::Deadline),
        1 => Just(Race::Reset),
    ];
    prop::collection::vec((0..4usize, step), 20..200)
}

proptest! {
    #![proptest_config(config(500))]

    /// Law 9 over many connections: one token, one tail, whoever comes when and breaks off where.
    #[test]
    fn a_token_gives_its_tail_once(size in 1000..9000usize, races in races()) {
        let mut scene = Scene::new();
        let release = scene.publish(&Draft::binary("1.2.0", size));
        let token = token_text(scene.issue(Some(release)));
        let get = Request::get(&format!("/device/firmware?ott={token}"));
        let part = get.clone().header("Range", "bytes=500-");
        let mut store = scene.store.clone();
        let mut ledger = Ledger::default();
        let mut peers: Vec<(Exchange, bool)> = (0..4).map(|_| (scene.exchange(), false)).collect();
        for (i, (exchange, _)) in peers.iter_mut().enumerate() {
            exchange.input(&if i % 2 == 0 { get.bytes() } else { part.bytes() });
        }
        for (i, race) in races {
            let (exchange, is_asked) = &mut peers[i];
            match race {
                Race::Ask => *is_asked |= exchange.ask().is_some(),
                Race::Answer if std::mem::take(is_asked) => {
                    store.set_clock(exchange.clock.since_1970());
                    std::mem::swap(&mut exchange.store, &mut store);
                    exchange.answer_truly();
                    std::mem::swap(&mut exchange.store, &mut store);
                }
                Race::Answer => {}
                Race::Take(bytes_max) => {
                    exchange.take(bytes_max);
                }
                Race::Deadline if exchange.deadline().is_some() => {
                    exchange.expire();
                }
                Race::Deadline => {}
                Race::Reset => {
                    let fresh = scene.exchange();
                    *exchange = fresh;
                    exchange.input(&get.bytes());
                    *is_asked = false;
                }
            }
            for token in exchange.peer.take_tails() {
                ledger.tail_left(token, i as u64);
            }
        }
        prop_assert!(ledger.tails() <= 1);
    }
}

#[test]
fn law_2_more_sent_than_shown_is_the_one_mistake_that_panics() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&Request::get("/").bytes());
    let now = exchange.clock.now();
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exchange.peer.sent(now, 100_000)));
    assert!(panicked.is_err());
}

#[test]
fn law_5_a_busy_connection_stops_reading() {
    let request = Request::check_in(otter_tests::scene::KEY, "{}").without("Connection").bytes();
    let mut exchange = Scene::new().exchange();
    exchange.input(&Request::get("/").bytes());
    let mut fed = 0;
    while exchange.peer.connection().wants_read() {
        exchange.input(&request);
        fed += request.len();
        assert!(fed <= 8192 + 16_384 + 65_536, "{fed} bytes while an answer is due");
    }
}

#[test]
fn law_6_a_connection_at_rest_between_requests_is_as_at_its_beginning() {
    let scene = Scene::new();
    let fresh = scene.exchange();
    let mut used = scene.exchange();
    let get = Request::get("/").bytes();
    for _ in 0..3 {
        used.request(&get);
    }
    used.advance(Duration::from_secs(1));
    assert_eq!(used.deadline().map(|d| d + Duration::from_secs(1)), fresh.deadline());
    let connection = used.peer.connection();
    assert!(connection.is_idle() && connection.wants_read() && !connection.wants_shutdown());
    assert_eq!(size_of_val(connection), 72, "what a hundred thousand idle devices cost each");
}
