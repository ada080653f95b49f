//! Law 5 and law 6 in bytes: what a connection owns in each state, counted by the allocator and
//! compared with the formulas of docs/proof.md. A binary of its own, with one test: whatever else
//! runs would be counted.

use std::sync::Arc;

use bytes::Bytes;
use otter_protocol::{Config, Connection, Now, Query, QueryId};
use otter_tests::bounds::{
    ANSWER, BATCH, EXCHANGE, GIVEN_BACK, PLAN, RECORD, SPARE_BUFFERS, SPARE_EXCHANGE,
    SPARE_EXCHANGES, STREAM, TLS_IDLE, TLS_OVER, TLS_SHAKING,
};
use otter_tests::scene::{KEY, Redeemable, registration};
use otter_tests::tls::{Client, Hello, Key, Terms, V1_2, V1_3};
use otter_tests::{Clock, Draft, ModelStore, Request, Scene, samples};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustls::{ClientConfig, ServerConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Most bytes that a driver reads at once.
const READ: usize = 65_536;

/// What is beneath HTTP.
#[derive(Clone)]
struct Beneath {
    name: &'static str,
    tls: Option<(Arc<ServerConfig>, Arc<ClientConfig>)>,
}

impl Beneath {
    fn all() -> [Self; 3] {
        let over = |name, versions| {
            let terms = Terms { key: Key::P256, sessions: false, ..Terms::only(versions) };
            Self { name, tls: Some((terms.server(), terms.client())) }
        };
        let plain = Self { name: "plain", tls: None };
        [plain, over("TLS 1.2", V1_2), over("TLS 1.3", V1_3)]
    }

    /// What it may hold while the connection is in this state.
    fn bytes(&self, state: &str) -> usize {
        match (&self.tls, state) {
            (None, _) => 0,
            // Nothing is sealed, and nothing half received.
            (Some(_), "Idle" | "Claiming") => TLS_IDLE,
            (Some(_), "Receiving") => TLS_IDLE + RECORD,
            (Some(_), "Lingering" | "Closed") => TLS_OVER + BATCH,
            (Some(_), _) => TLS_IDLE + BATCH,
        }
    }
}

/// A connection, the store behind it and perhaps the other end of its TLS.
struct Peer {
    connection: Connection<Bytes>,
    client: Option<Client>,
    store: ModelStore,
    now: Now,
    open: Option<(QueryId, Query)>,
    /// Holds the spare exchanges and buffers, which are shared by all connections of a thread.
    config: Arc<Config>,
}

impl Peer {
    /// Its handshake is done, if it has TLS.
    fn new(scene: &Scene, beneath: &Beneath) -> Self {
        Self::with(scene, beneath, &Arc::new(scene.config.clone()))
    }

    /// The same, with settings that others have, too.
    fn with(scene: &Scene, beneath: &Beneath, config: &Arc<Config>) -> Self {
        let (now, config) = (Clock::start().now(), Arc::clone(config));
        let (connection, client) = match &beneath.tls {
            None => (Connection::plain(Arc::clone(&config), now), None),
            Some((server, client)) => {
                let connection = Connection::tls(Arc::clone(&config), Arc::clone(server), now);
                (connection, Some(Client::new(Arc::clone(client))))
            }
        };
        let store = scene.store.clone();
        let mut peer = Self { connection, client, store, now, open: None, config };
        while peer.hand_in(&[], READ) || peer.take(usize::MAX) {}
        assert!(!peer.connection.is_handshaking());
        peer
    }

    /// Hands in what the peer says, in pieces of at most so many bytes.
    fn input(&mut self, plain: &[u8], piece_bytes: usize) {
        self.hand_in(plain, piece_bytes);
    }

    /// The same; was there anything, be it of the handshake?
    fn hand_in(&mut self, plain: &[u8], piece_bytes: usize) -> bool {
        let wire = match &mut self.client {
            None => plain.to_vec(),
            Some(client) => {
                client.say(plain);
                client.take_wire()
            }
        };
        for piece in wire.chunks(piece_bytes) {
            self.connection.handle_input(self.now, piece);
            self.poll();
        }
        !wire.is_empty()
    }

    fn poll(&mut self) {
        self.connection.poll_report();
        self.connection.poll_handshake();
    }

    /// Lets the socket take so many bytes of what is shown.
    fn take(&mut self, bytes_max: usize) -> bool {
        let Some(transmit) = self.connection.transmit() else { return false };
        let shown = transmit.as_slice();
        let taken = shown[..shown.len().min(bytes_max)].to_vec();
        if let Some(client) = &mut self.client {
            client.hear(&taken);
            drop(client.take_heard());
        }
        self.connection.handle_sent(self.now, taken.len());
        self.poll();
        true
    }

    fn ask(&mut self) -> bool {
        if let Some(query) = self.connection.poll_query() {
            self.open = Some(query);
        }
        self.open.is_some()
    }

    fn answer(&mut self) -> bool {
        self.ask();
        let Some((id, query)) = self.open.take() else { return false };
        let answer = self.store.answer(&query);
        self.connection.handle_answer(self.now, id, answer);
        self.poll();
        true
    }

    /// Everything that can be done.
    fn settle(&mut self) {
        while self.answer() || self.take(usize::MAX) {}
    }

    /// Answers and takes until the connection is in this state.
    fn until(&mut self, state: &str) {
        while self.state() != state {
            assert!(self.answer() || self.take(1000), "{} and not {state}", self.state());
        }
    }

    fn state(&self) -> String {
        let shown = format!("{:?}", self.connection);
        shown.split('"').nth(1).unwrap_or_default().to_owned()
    }

    /// The bytes of heap that go with it.
    fn owned(self) -> usize {
        let Self { connection, client, store, open, config, .. } = self;
        let region = Region::new(ALLOCATOR);
        drop(connection);
        let owned = -held(&region);
        drop((client, store, open, config));
        usize::try_from(owned).expect("a connection that goes makes nothing")
    }
}

/// Bytes that the allocator has given out and not got back.
fn held(region: &Region<'_, std::alloc::System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}

/// What one shape of traffic may make a connection own, and what it does.
struct Case {
    what: String,
    /// The state that it ends in.
    state: &'static str,
    bound: usize,
    owned: usize,
}

/// Cases of one kind of connection.
struct Cases {
    beneath: Beneath,
    cases: Vec<Case>,
}

impl Cases {
    /// Drives a fresh connection, and counts what it owns then. `bound` is for a plain one; over
    /// TLS what TLS may hold meanwhile is added.
    fn add(
        &mut self,
        what: &str,
        state: &'static str,
        bound: usize,
        scene: &Scene,
        drive: impl FnOnce(&mut Peer),
    ) {
        let mut peer = Peer::new(scene, &self.beneath);
        drive(&mut peer);
        assert_eq!(peer.state(), state, "{what}");
        let beneath = self.beneath.bytes(state);
        let (what, owned) = (what.to_owned(), peer.owned());
        self.cases.push(Case { what, state, bound: bound + beneath, owned });
    }

    fn judge(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for case in &self.cases {
            let Case { what, state, bound, owned } = case;
            let line =
                format!("{owned:>7} of {bound:>7} bytes: {}, {state}: {what}", self.beneath.name);
            eprintln!("{line}");
            if owned > bound {
                broken.push(line);
            }
        }
        broken
    }
}

#[test]
fn what_connections_own() {
    let mut broken = Vec::new();
    for beneath in Beneath::all() {
        // What is made once for all is made now.
        drop(Peer::new(&Scene::new(), &beneath));
        let mut cases = Cases { beneath, cases: Vec::new() };
        handshaking(&mut cases);
        idle(&mut cases);
        receiving(&mut cases);
        asking(&mut cases);
        responding(&mut cases);
        lingering(&mut cases);
        broken.extend(cases.judge());
        any_traffic(&cases.beneath);
        steady(&cases.beneath);
        shared(&cases.beneath);
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// A buffer that grew to `bytes` by pieces, or at once.
fn grown(bytes: usize, piece_bytes: usize) -> usize {
    if piece_bytes >= bytes { bytes } else { 2 * bytes + 8 }
}

/// The head of a check-in, as long as it may be, that announces a body of this many bytes.
fn long_head(body_bytes: usize) -> Vec<u8> {
    let head = |pad: usize| {
        let request = Request::new("POST", "/device/register").key(KEY);
        let request = request.header("Content-Length", &body_bytes.to_string());
        request.header("x", &"y".repeat(pad)).bytes()
    };
    head(Config::default().head_bytes_max - head(0).len())
}

/// A registration of exactly so many bytes.
fn long_body(bytes: usize) -> String {
    let fields = registration().text("station", "");
    let pad = bytes - fields.wrapped("registration").len();
    fields.text("station", &"s".repeat(pad)).wrapped("registration")
}

fn check_in() -> Request {
    Request::post("/device/register", &registration().wrapped("registration")).key(KEY)
}

const PIECES: [usize; 4] = [1, 100, 1460, READ];

/// Before there is anything of HTTP: a hello that comes slowly, and an answer that nobody takes.
fn handshaking(cases: &mut Cases) {
    let Some((server, client)) = cases.beneath.tls.clone() else { return };
    let hello = Client::new(Arc::clone(&client)).take_wire();
    let long = Hello::new().in_records_of(1);
    for (what, bytes, bound) in [
        ("nothing was said", &[][..], TLS_OVER),
        ("all but the end of a hello", &hello[..hello.len() - 1], TLS_OVER + 2 * hello.len()),
        ("a hello in many records", &long[..long.len() - 1], TLS_OVER + 2 * long.len()),
        ("a hello, and nothing is taken", &hello, TLS_SHAKING + BATCH),
    ] {
        let (now, config) = (Clock::start().now(), Arc::new(Config::default()));
        let mut connection: Connection =
            Connection::tls(Arc::clone(&config), Arc::clone(&server), now);
        bytes.iter().for_each(|byte| connection.handle_input(now, &[*byte]));
        let region = Region::new(ALLOCATOR);
        drop(connection);
        let owned = usize::try_from(-held(&region)).expect("what goes makes nothing");
        drop(config);
        cases.cases.push(Case { what: what.to_owned(), state: "Handshaking", bound, owned });
    }
}

fn idle(cases: &mut Cases) {
    let scene = Scene::new();
    cases.add("fresh", "Idle", 0, &scene, |_| {});
    cases.add("after a blank line", "Idle", 0, &scene, |peer| peer.input(b"\r\n", READ));
    for (what, request) in [
        ("after a check-in", check_in()),
        ("after a chunked one", check_in().chunked(3)),
        ("after a refusal", Request::get("/nowhere")),
    ] {
        for piece_bytes in PIECES {
            let what = format!("{what} in pieces of {piece_bytes}");
            cases.add(&what, "Idle", 0, &scene, |peer| {
                peer.input(&request.bytes(), piece_bytes);
                peer.settle();
            });
        }
    }
    let longest = [long_head(16_384), long_body(16_384).into_bytes()].concat();
    for piece_bytes in PIECES {
        let what = format!("after the longest check-in in pieces of {piece_bytes}");
        cases.add(&what, "Idle", 0, &scene, |peer| {
            peer.input(&longest, piece_bytes);
            peer.settle();
        });
    }
    cases.add("after twenty in a row", "Idle", 0, &scene, |peer| {
        peer.input(&Request::get("/").bytes().repeat(20), READ);
        peer.settle();
    });
    let image = Redeemable::of(&Draft::binary("1.2.0", 50_000));
    let part = image.get().header("Range", "bytes=0-9999").bytes();
    cases.add("after a part of an image", "Idle", 0, &image.scene, |peer| {
        peer.input(&part, READ);
        peer.settle();
    });
}

fn receiving(cases: &mut Cases) {
    let scene = Scene::new();
    let head = long_head(16_384);
    let body = long_body(16_384).into_bytes();
    for piece_bytes in PIECES {
        let kept = &head[..head.len() - 1];
        let bound = EXCHANGE + grown(kept.len(), piece_bytes);
        let what = format!("all but the end of the longest head in pieces of {piece_bytes}");
        cases.add(&what, "Receiving", bound, &scene, |peer| peer.input(kept, piece_bytes));

        let kept = [&head, &body[..body.len() - 1]].concat();
        let bound = EXCHANGE + grown(kept.len(), piece_bytes);
        let what = format!("all but the end of the longest body in pieces of {piece_bytes}");
        cases.add(&what, "Receiving", bound, &scene, |peer| peer.input(&kept, piece_bytes));

        let chunked = Request::post("/device/register", &long_body(16_384)).key(KEY).chunked(5);
        let bytes = chunked.bytes();
        let bound = EXCHANGE + 2 * (1024 + 16_384) + GIVEN_BACK;
        let what = format!("all but the end of a chunked body in pieces of {piece_bytes}");
        cases.add(&what, "Receiving", bound, &scene, |peer| {
            peer.input(&bytes[..bytes.len() - 1], piece_bytes);
        });
    }
    let framing = Request::post("/device/register", &"x".repeat(9000)).key(KEY).chunked(1).bytes();
    let bound = EXCHANGE + 2 * (1024 + 9000) + GIVEN_BACK;
    cases.add("a read that is mostly framing", "Receiving", bound, &scene, |peer| {
        peer.input(&framing[..framing.len() - 1], READ);
    });
    cases.add("a single byte", "Receiving", EXCHANGE + 8, &scene, |peer| peer.input(b"G", 1));
    let expecting = check_in().header("Expect", "100-continue").bytes();
    let head_bytes = expecting.len() - registration().wrapped("registration").len();
    let bound = EXCHANGE + head_bytes + 64;
    cases.add("told to continue", "Receiving", bound, &scene, |peer| {
        peer.input(&expecting[..head_bytes], READ);
    });
}

fn asking(cases: &mut Cases) {
    let scene = Scene::new();
    let body = long_body(16_384);
    let longest = [long_head(16_384), body.clone().into_bytes()].concat();
    let chunked = Request::post("/device/register", &body).key(KEY).chunked(5).bytes();
    for piece_bytes in PIECES {
        let given = EXCHANGE + PLAN + GIVEN_BACK;
        for (what, bytes, text) in [
            ("the longest check-in", &longest, body.len()),
            ("a chunked one", &chunked, body.len()),
        ] {
            let what = format!("{what} in pieces of {piece_bytes}");
            cases.add(&what, "Asking", given + text, &scene, |peer| {
                peer.input(bytes, piece_bytes);
            });
            cases.add(&format!("{what}, to be kept"), "Asking", given + text, &scene, |peer| {
                peer.input(bytes, piece_bytes);
                assert!(peer.answer() && peer.ask(), "Identify, then Record");
            });
        }
    }
    let behind = Request::get("/").bytes().repeat(3000);
    let ahead = [check_in().bytes(), behind[..READ - 1000].to_vec()].concat();
    let bound = EXCHANGE + PLAN + GIVEN_BACK + ahead.len();
    cases.add("a read full of requests behind it", "Asking", bound, &scene, |peer| {
        peer.input(&ahead, READ);
    });
}

fn responding(cases: &mut Cases) {
    let scene = Scene::new();
    let image = Redeemable::of(&Draft::binary("1.2.0", 50_000));
    let longest = [long_head(16_384), long_body(16_384).into_bytes()].concat();
    let bound = EXCHANGE + PLAN + ANSWER + GIVEN_BACK;
    for piece_bytes in PIECES {
        let what = format!("the longest check-in in pieces of {piece_bytes}");
        cases.add(&what, "Responding", bound, &scene, |peer| {
            peer.input(&longest, piece_bytes);
            peer.until("Responding");
            peer.take(10);
        });
    }
    let get = image.get().header("x", &"y".repeat(7000)).bytes();
    for (state, taken) in [("Responding", 0), ("Responding", 20_000), ("Claiming", 0)] {
        let what = format!("an image of which {taken} bytes were taken by a slow socket");
        cases.add(&what, state, bound + STREAM, &image.scene, |peer| {
            peer.input(&get, 100);
            peer.until("Responding");
            for _ in 0..taken / 100 {
                peer.take(100);
            }
            peer.until(state);
        });
    }
    let refused = Request::get(&format!("/{}", "x".repeat(3000))).bytes();
    cases.add("a refusal", "Responding", bound, &scene, |peer| peer.input(&refused, READ));
}

fn lingering(cases: &mut Cases) {
    let scene = Scene::new();
    let close = check_in().header("Connection", "close").bytes();
    for piece_bytes in PIECES {
        let what = format!("after a check-in and strays in pieces of {piece_bytes}");
        cases.add(&what, "Lingering", 0, &scene, |peer| {
            peer.input(&close, piece_bytes);
            peer.settle();
            peer.input(&[b'x'; 60_000], piece_bytes.max(100));
        });
    }
    cases.add("closed", "Closed", 0, &scene, |peer| {
        peer.input(&close, READ);
        peer.settle();
        peer.connection.handle_reset(peer.now);
    });
}

/// Any requests, cut off anywhere, in any pieces, answered and taken as far as it comes.
fn any_traffic(beneath: &Beneath) {
    let samples = samples();
    let scene = &samples.iter().find(|s| s.name == "redeem").expect("a sample").scene;
    let index = any::<prop::sample::Index>;
    let traffic = (
        prop::collection::vec(index(), 1..5),
        index(),
        1..3000_usize,
        prop::collection::vec(0..5000_usize, 0..12),
    );
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() };
    let found = TestRunner::new(config).run(&traffic, |(picks, cut, piece_bytes, takes)| {
        let bytes: Vec<u8> = picks.iter().flat_map(|i| i.get(&samples).bytes.clone()).collect();
        let bytes = &bytes[..cut.index(bytes.len() + 1)];
        let mut peer = Peer::new(scene, beneath);
        peer.input(bytes, piece_bytes);
        for take in takes {
            // A query that was taken waits, or is answered.
            if !peer.ask() || take % 2 == 0 {
                peer.answer();
            }
            peer.take(take);
        }
        let (state, owned) = (peer.state(), peer.owned());
        let bound = match state.as_str() {
            "Idle" | "Lingering" | "Closed" => 0,
            "Receiving" => EXCHANGE + ANSWER + 2 * bytes.len() + 16,
            _ => EXCHANGE + PLAN + ANSWER + STREAM + GIVEN_BACK + 2 * bytes.len(),
        };
        let bound = bound + beneath.bytes(&state);
        prop_assert!(owned <= bound, "{}, {state}: {owned} of {bound} bytes", beneath.name);
        Ok(())
    });
    found.expect("within the bounds");
}

/// A thousand requests leave nothing that ten do not, and the last connection leaves nothing.
fn steady(beneath: &Beneath) {
    let image = Redeemable::of(&Draft::binary("1.2.0", 50_000));
    let part = image.get().header("Range", "bytes=0-999").bytes();
    let longest = [long_head(16_384), long_body(16_384).into_bytes()].concat();
    let requests = [check_in().bytes(), longest, check_in().chunked(3).bytes(), part];
    let round = |peer: &mut Peer| {
        for request in &requests {
            peer.input(request, 999);
            peer.settle();
            assert_eq!(peer.state(), "Idle");
        }
    };
    let owned_after = |rounds: u32| {
        let region = Region::new(ALLOCATOR);
        let mut peer = Peer::new(&image.scene, beneath);
        (0..rounds).for_each(|_| round(&mut peer));
        let config = Arc::clone(&peer.config);
        let found = (peer.owned(), shared_bytes(config));
        // The client remembers its ticket.
        let left = held(&region);
        assert!(left < 4096, "{}: {left} bytes are lost after {rounds}", beneath.name);
        found
    };
    let few = owned_after(3);
    assert_eq!(owned_after(250), few, "{}: owned and shared after many requests", beneath.name);
    eprintln!("{}: {few:?} bytes owned and shared after any number of requests", beneath.name);
}

/// What connections lend each other is bounded, however many there were.
fn shared(beneath: &Beneath) {
    let scene = Scene::new();
    let config = Arc::new(scene.config.clone());
    let longest = [long_head(16_384), long_body(16_384).into_bytes()].concat();
    let mut peers: Vec<Peer> = (0..SPARE_EXCHANGES + 20)
        .map(|_| {
            let mut peer = Peer::with(&scene, beneath, &config);
            peer.input(&longest, 999);
            peer
        })
        .collect();
    peers.iter_mut().for_each(Peer::settle);
    drop(peers);
    let bytes = shared_bytes(config);
    let bound = SPARE_EXCHANGES * (EXCHANGE + 4 * SPARE_EXCHANGE) + SPARE_BUFFERS * BATCH + 4096;
    eprintln!("{}: {bytes} of {bound} bytes shared", beneath.name);
    assert!(bytes <= bound, "{}: {bytes} of {bound} bytes shared", beneath.name);
}

/// The bytes of heap that go with the last share of the settings.
fn shared_bytes(config: Arc<Config>) -> usize {
    assert_eq!(Arc::strong_count(&config), 1);
    let region = Region::new(ALLOCATOR);
    drop(config);
    usize::try_from(-held(&region)).expect("settings that go make nothing")
}
